"""The `reward` stage: train a score of answers on comparisons or judgements, judge, publish and verify it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, set_seed

from pipelines.data.encode import ChatEncoder
from pipelines.data.prompts import sample_prompts
from pipelines.data.refusals import RefusedRows
from pipelines.data.rows import Message
from pipelines.errors import DataError
from pipelines.models.base_model import check_4bit, prompt_limit
from pipelines.models.generate import end_token_ids, sample
from pipelines.models.machine import autocast, choose_threads, free_memory, resolve_device
from pipelines.models.policies import open_frozen_policy, open_tokenizer
from pipelines.models.published_reward import NO_SPREAD, Output, PublishedReward, Scale
from pipelines.models.reward_model import RewardModel
from pipelines.models.sequence_scores import read_logit
from pipelines.reward.assessment import check_golden, probe
from pipelines.reward.fit import fit_and_publish
from pipelines.reward.initial_model import start_from_own_base, start_from_sft
from pipelines.reward.shares import share_of_reward
from pipelines.reward.training_rows import check_sides, prompts_of_ppo
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion, sampled_completion
from pipelines.scorers.reward_model_scorer import row_of


def run(ctx: StageContext) -> dict[str, Any]:
    """Train on comparisons, judgements or both; publish `model/`, its normalization and golden scores.

    All that exist of the inputs ``data/comparisons``, ``data/judgements`` and ``pairs`` are used together.

    Returns:
        The stage's final metrics.

    Raises:
        DataError: no row is left to train or to judge on.
        TrainingError: training diverged, or the published model does not give the scores of the trained one.
        UsageError, ArtifactError, HubError, EnvironmentProblem: the base cannot be loaded or trained as configured.
    """
    config, section = ctx.config, ctx.config.reward
    pointwise = section.objective == "pointwise"
    check_sides(ctx.inputs, judgements=pointwise)
    device = resolve_device(config.run)
    check_4bit(config.model, device)
    set_seed(config.run.seed)
    sft = ctx.inputs.get("sft")
    policy_tokenizer = open_tokenizer(sft, config.model)
    prompts = prompts_of_ppo(ctx.inputs, judgements=pointwise)
    responses = sft_responses(ctx, sft, policy_tokenizer, prompts, device)
    if section.base is None:
        start = start_from_sft(ctx, sft, policy_tokenizer, device)
    else:
        start = start_from_own_base(ctx, device)
    share, withheld = share_of_reward(ctx.inputs, config)
    fit = fit_and_publish(ctx, start, share, device)
    probes = probe(start.scorer, config)
    normalization = normalize(ctx, start.scorer, responses, fit.objective.outputs, fit.published)["logit"]
    published, metrics = fit.published, fit.metrics
    del start, fit
    free_memory()
    check_golden(published, config, device)
    return {
        **metrics,
        **probes,
        **({"rows_withheld": withheld} if withheld else {}),
        "normalization_mean": normalization.mean,
        "normalization_std": normalization.std,
    }


@dataclass(frozen=True)
class Response:
    """A response of the SFT model, and the prompt."""

    prompt: Sequence[Message]
    completion: Completion


def sft_responses(
    ctx: StageContext,
    sft: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[Message, ...]],
    device: torch.device,
) -> list[Response]:
    """Sample a response of the SFT model to `reward.normalization_prompts` of the prompts, as PPO begins.

    Args:
        sft: directory of the SFT stage; None: SFT is off.
        prompts: prompts that PPO will answer.

    Raises:
        DataError: all of them are too long for PPO.
    """
    config, encoder = ctx.config, ChatEncoder(tokenizer)
    policy = open_frozen_policy(sft, config.model, device, tokenizer, config.run.seed)
    ends = end_token_ids(policy, tokenizer, config.ppo.stop_tokens)
    choose_threads(config.run, policy.num_parameters(), ctx.reporter)
    limit, most = prompt_limit(config.ppo, policy.config, ctx.reporter), config.reward.normalization_prompts
    cut, refusals = config.ppo.overlong == "cut", RefusedRows(ctx)
    fitting, _ = sample_prompts(prompts, encoder, limit, most, cut=cut, refusals=refusals)
    if not fitting:
        raise DataError(
            f"all prompts that PPO is to answer are longer than {limit} tokens",
            where="ppo.max_prompt_length",
            hint="raise ppo.max_prompt_length, or lower ppo.response_length",
        )
    with ctx.reporter.task("SFT responses", len(fitting)) as task, autocast(config.model, device):
        responses = sample(
            policy,
            [prompt["prompt_ids"] for prompt in fitting],
            max_new_tokens=config.ppo.response_length,
            temperature=config.ppo.temperature,
            eos_token_id=ends,
            batch_size=config.ppo.rollout_forward_batch_size,
            seed=config.run.seed,
            on_batch=task.advance,
            top_k=config.ppo.top_k,
            top_p=config.ppo.top_p,
        )
    del policy
    free_memory()
    return [
        Response(prompt["messages"], sampled_completion(encoder, prompt["prompt_ids"], ids, finished=ids[-1] in ends))
        for prompt, ids in zip(fitting, responses, strict=True)
    ]


def normalize(
    ctx: StageContext,
    scorer: RewardModel,
    responses: Sequence[Response],
    outputs: Sequence[Output],
    published: PublishedReward,
) -> dict[Output, Scale]:
    """Measure mean and deviation of every output on SFT responses, and store them: PPO shifts and scales by them."""
    thoughts = any(part.kind == "run" and part.read_thoughts for part in ctx.config.ppo.reward.flat())
    rows = [
        row_of(scorer, response.prompt, response.completion, same_run=True, thoughts=thoughts) for response in responses
    ]
    logits = torch.tensor(scorer.scores(rows), dtype=torch.float64)
    if float(logits.std(correction=0)) < NO_SPREAD:
        ctx.reporter.warn("the reward model gives every SFT response the same score; it will not be scaled")
    scales = {output: Scale.of(read_logit(logits, output).tolist()) for output in outputs}
    published.write_scales(scales, len(rows))
    return scales
