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
from pipelines.models.adapters import trainable_parameters
from pipelines.models.base_model import check_4bit, prompt_limit
from pipelines.models.generate import end_token_ids, sample
from pipelines.models.machine import autocast, choose_threads, free_memory, resolve_device
from pipelines.models.policies import open_frozen_policy, open_tokenizer
from pipelines.models.publish import publish_model
from pipelines.models.published_reward import NO_SPREAD, Output, PublishedReward, Scale
from pipelines.models.reward_model import RewardModel
from pipelines.models.sequence_scores import read_logit
from pipelines.reward.assessment import check_golden, probe, write_golden
from pipelines.reward.initial_model import Objective, start_from_own_base, start_from_sft
from pipelines.reward.pairwise import Pairwise
from pipelines.reward.pointwise import Pointwise
from pipelines.reward.training_rows import check_sides, prompts_of_ppo
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion, sampled_completion
from pipelines.scorers.reward_model_scorer import row_of
from pipelines.trainers.training import settings_kept, train


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
    objective: Objective = (Pointwise if pointwise else Pairwise)(ctx, start, device)
    report, scorer = objective.report, start.scorer

    before = objective.judge()
    with settings_kept(start.model):
        trainer = objective.trainer()
        trained = trainable_parameters(start.model)
        result = train(trainer, ctx, config.reward, "reward model")
    after = objective.judge()
    objective.log_figures(after)
    probes = probe(scorer, config)

    published = PublishedReward(ctx.out, start.base, scorer.reads, section.objective, objective.polarity)
    publish_model(
        start.model, start.tokenizer, ctx.out / "model", base=start.base, run_dir=ctx.run_dir, reads=scorer.reads
    )
    normalization = normalize(ctx, scorer, responses, objective.outputs, published)["logit"]
    write_golden(ctx.out, scorer, objective.heldout_texts)
    ctx.notes.update(objective.notes | published.as_notes())
    ctx.notes["rows"] = {"used": report.used, "dropped": report.dropped, "cut": report.cut, "refused": report.refused}
    num_heldout, num_tokens = objective.num_heldout, objective.num_tokens
    del start, scorer, trainer, objective
    free_memory()
    check_golden(published, config, device)

    return {
        **{f"{key}_before": value for key, value in before.items()},
        **{f"{key}_after": value for key, value in after.items()},
        **probes,
        "rows_used": report.used,
        "rows_dropped": report.dropped,
        "rows_cut": report.cut,
        "rows_refused": report.refused,
        "rows_heldout": num_heldout,
        "normalization_mean": normalization.mean,
        "normalization_std": normalization.std,
        "train_loss": result.loss,
        "steps": result.steps,
        "tokens_per_second": round(num_tokens * result.epochs / max(result.seconds, 1e-9), 1),
        "trainable_parameters": trained,
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
