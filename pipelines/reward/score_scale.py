"""What the SFT model answers held-out prompts, and how a reward model's scores spread on these answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from pipelines.data.encode import ChatEncoder, fit_prompt
from pipelines.data.prompts import take
from pipelines.data.rows import Message
from pipelines.errors import DataError
from pipelines.models.base_model import length_limit
from pipelines.models.generate import closed, sample, stop_token_ids
from pipelines.models.machine import autocast, choose_threads, free_memory
from pipelines.models.policies import open_frozen_policy
from pipelines.models.published_reward import NO_SPREAD, Output, PublishedReward, Scale
from pipelines.models.reward_model import RewardModel
from pipelines.models.sequence_scores import read_logit
from pipelines.run.stage import StageContext


@dataclass(frozen=True)
class Response:
    """What the SFT model answered: messages and text, and the answer's ids as sampled."""

    prompt: Sequence[Message]
    text: str
    ids: list[int]


def sft_responses(
    ctx: StageContext,
    sft: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[Message, ...]],
    device: torch.device,
) -> list[Response]:
    """A sampled response of the SFT model to each of the first `reward.normalization_prompts` prompts that fit.

    Args:
        ctx: the stage's.
        sft: directory of the SFT stage; None: SFT is off.
        tokenizer: the policy's.
        prompts: held-out ones, each once.
        device: where to sample.

    Raises:
        DataError: none of them leaves room for a response.
    """
    config, encoder = ctx.config, ChatEncoder(tokenizer)
    ends = stop_token_ids(tokenizer, config.ppo.stop_tokens)
    policy = open_frozen_policy(sft, config.model, device, tokenizer, config.run.seed)
    choose_threads(config.run, policy.num_parameters(), ctx.reporter)
    room = length_limit(config.reward, policy.config, ctx.reporter) - config.ppo.response_length
    most = config.reward.normalization_prompts
    fitting, _ = take(prompts, most, lambda prompt: fit_prompt(prompt, encoder, room))
    if not fitting:
        raise DataError(
            f"no held-out prompt leaves room for a response of {config.ppo.response_length} tokens",
            where="reward",
            hint="lower ppo.response_length or raise reward.max_length",
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
        )
    del policy
    free_memory()
    return [
        Response(prompt["messages"], encoder.decode(ids), closed(ids, ends))
        for prompt, ids in zip(fitting, responses, strict=True)
    ]


def normalize(
    ctx: StageContext,
    scorer: RewardModel,
    responses: Sequence[Response],
    outputs: Sequence[Output],
    published: PublishedReward,
) -> dict[Output, Scale]:
    """Mean and deviation of every output on SFT responses, stored beside the model: PPO shifts and scales by them."""
    rows = [scorer.row(answer.prompt, answer.text, answer.ids) for answer in responses]
    logits = torch.tensor(scorer.scores(rows), dtype=torch.float64)
    if float(logits.std(correction=0)) < NO_SPREAD:
        ctx.reporter.warn("the reward model gives every SFT response the same score; it will not be scaled")
    scales = {output: Scale.of(read_logit(logits, output).tolist()) for output in outputs}
    published.write_scales(scales, len(rows))
    return scales
