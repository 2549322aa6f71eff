"""Collecting a rollout: generate, score, compute what an update needs. Holds no gradients."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor
from typing_extensions import override

from pipelines.config.ppo_section import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.errors import TrainingError
from pipelines.models.forward import TokenBatch
from pipelines.models.generate import closed
from pipelines.models.published_reward import Output
from pipelines.models.sequence_scores import read_logit
from pipelines.ppo.engines import RolloutEngine
from pipelines.ppo.learner import over_processes
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.objective import advantages_and_returns, grpo_advantages, k1, rloo_advantages, token_rewards
from pipelines.ppo.roles import Roles
from pipelines.ppo.types import Rollout
from pipelines.scorers.protocol import Completion, Dialogue, Scorer, ScorerWithParts, counts_of, sampled_completion


@dataclass(frozen=True)
class Scored:
    """Scores of a batch.

    Attributes:
        scores: [B], on the device of the batch.
        figures: figures to log beside them: ``scores/<part>``, the mean of each part of the score, and
            ``reward/<count>``, counts of the source since the start (requests, texts that it cut).
    """

    scores: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)


class Reward(Protocol):
    """Reward source of PPO."""

    def __call__(self, batch: TokenBatch, prompts: Sequence[EncodedPrompt], responses: list[list[int]]) -> Scored:
        """Score every row."""


@dataclass(frozen=True)
class RoleReward(Reward):
    """The run's own reward model as one of the roles. It scores token ids, so that nothing is tokenized twice.

    Attributes:
        roles: roles, a reward role among them.
        chunk: rows of one forward pass.
        ends: the ids that end a response, EOS first.
        output: which function of the logit is the score.
        encoder: encodes answers anew whose thoughts are not read; None: all is read as it was sampled.
    """

    roles: Roles
    chunk: int
    ends: Sequence[int] = ()
    output: Output = "logit"
    encoder: ChatEncoder | None = None

    @override
    def __call__(self, batch: TokenBatch, prompts: Sequence[EncodedPrompt], responses: list[list[int]]) -> Scored:
        answers = responses
        if self.encoder is not None:
            rows = zip(prompts, responses, batch.finished.tolist(), strict=True)
            answers = [without_thought(self.encoder, prompt, ids, finished=finished) for prompt, ids, finished in rows]
        if self.ends:
            answers = [closed(ids, self.ends) for ids in answers]
        if answers != responses:
            batch = TokenBatch.of([prompt["prompt_ids"] for prompt in prompts], answers, self.ends).to(batch.device)
        return Scored(read_logit(self.roles.scores(batch, self.chunk), self.output))


def without_thought(encoder: ChatEncoder, prompt: EncodedPrompt, ids: list[int], *, finished: bool) -> list[int]:
    """The response, or its answer alone, encoded as the reward model was trained to read it, where it has a thought."""
    completion = sampled_completion(encoder, prompt["prompt_ids"], ids, finished=finished)
    if not completion.thought:
        return ids
    answer = encoder.answer(prompt["messages"], completion.text)
    return answer if finished else answer[:-1]


@dataclass(frozen=True)
class RoleScorer(Scorer):
    """The run's reward model, one of the roles, as a part of a sum or an ensemble.

    Attributes:
        name: its name in tables.
        reward: scores tokens.
        encoder: encoder of the prompts.
    """

    name: str
    reward: RoleReward
    encoder: ChatEncoder

    @override
    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        encoded: list[EncodedPrompt] = [
            {"prompt_ids": self.encoder.prompt(prompt), "messages": tuple(prompt)} for prompt in prompts
        ]
        responses = [list(completion.ids) for completion in completions]
        device = next(self.reward.roles.policy.model.parameters()).device
        batch = TokenBatch.of([prompt["prompt_ids"] for prompt in encoded], responses, self.reward.ends).to(device)
        scores: list[float] = self.reward(batch, encoded, responses).scores.tolist()
        return scores


@dataclass(frozen=True)
class TextReward(Reward):
    """A scorer of texts. A stop token that is not a special token is part of the text."""

    scorer: Scorer
    encoder: ChatEncoder

    @override
    def __call__(self, batch: TokenBatch, prompts: Sequence[EncodedPrompt], responses: list[list[int]]) -> Scored:
        completions = [
            sampled_completion(self.encoder, prompt["prompt_ids"], ids, finished=finished)
            for prompt, ids, finished in zip(prompts, responses, batch.finished.tolist(), strict=True)
        ]
        dialogues = [prompt["messages"] for prompt in prompts]
        parts: dict[str, list[float]] = {}
        if isinstance(self.scorer, ScorerWithParts):
            scores, parts = self.scorer.with_parts(dialogues, completions)
        else:
            scores = self.scorer(dialogues, completions)
        figures = {f"scores/{name}": fmean(values) for name, values in parts.items()}
        for name, count in counts_of(self.scorer).items():
            figures["time/reward" if name == "seconds" else f"reward/{name}"] = count
        return Scored(torch.tensor(scores, dtype=torch.float32, device=batch.device), figures)


def finite_scores(scored: Scored) -> Tensor:
    """Return the scores [B].

    Raises:
        TrainingError: one of them is not finite.
    """
    if not torch.isfinite(scored.scores).all():
        raise TrainingError("the reward source gave a score that is not finite", where="ppo.reward")
    return scored.scores


@dataclass(frozen=True)
class PpoContext:
    """The models and settings that training and held-out evaluation share.

    Attributes:
        roles: policy, reference, value and reward models.
        engine: samples responses of the policy.
        reward: reward source.
        encoder: encoder of prompts and decoder of responses.
        eos_token_id: the id or ids that end a response.
        settings: the `ppo` section.
        accelerator: device and processes.
        seed: seed of the run.
    """

    roles: Roles
    engine: RolloutEngine
    reward: Reward
    encoder: ChatEncoder
    eos_token_id: int | Sequence[int]
    settings: PpoSection
    accelerator: Accelerator
    seed: int

    def respond(self, prompts: Sequence[EncodedPrompt], seed: int) -> tuple[list[list[int]], TokenBatch]:
        """Sample one response to each prompt: its ids, and prompts and responses as a batch on the device."""
        ids = [prompt["prompt_ids"] for prompt in prompts]
        responses = self.engine.generate(ids, seed=seed)
        return responses, TokenBatch.of(ids, responses, self.eos_token_id).to(self.accelerator.device)


@dataclass(frozen=True)
class Timing:
    """Seconds spent on the two halves of a rollout."""

    generation: float
    scoring: float


def collect(
    context: PpoContext, prompts: Sequence[EncodedPrompt], *, kl_coef: float, normalizer: Normalizer, seed: int
) -> tuple[Rollout, Timing, Mapping[str, float]]:
    """Answer the prompts and compute everything that an update needs.

    Args:
        context: models and settings.
        prompts: prompts of this process, each `num_generations` times in a row.
        kl_coef: weight of the KL penalty in this rollout.
        normalizer: normalizer of the scores; it may learn from them.
        seed: seed of the sampling.

    Returns:
        The rollout, its timing, and figures: those of the reward source, and the share of clipped scores.

    Raises:
        TrainingError: the reward source gave a number that is not finite.
    """
    roles, settings = context.roles, context.settings
    chunk, temperature = settings.rollout_forward_batch_size, settings.temperature
    started = time.perf_counter()
    # 1. Sample a response to each prompt.
    responses, batch = context.respond(prompts, seed)
    mask = batch.response_mask
    generated = time.perf_counter()
    # 2. Score the whole responses.
    scored = context.reward(batch, prompts, responses)
    scores = finite_scores(scored)
    # 3. Log-probabilities under policy and reference, and values, by the forward pass that trains.
    logprobs = roles.policy_logprobs(batch, temperature, chunk)
    ref_logprobs = roles.reference_logprobs(batch, temperature, chunk)
    values = roles.values(batch, chunk) if roles.value is not None else None
    # 4. Rewards: the KL penalty on every token; on the last one the normalized score less penalties (no EOS, length).
    normalized, clipped = normalizer(scores, batch.finished, mask.sum(-1), over_processes(context.accelerator))
    rewards = token_rewards(normalized, k1(logprobs, ref_logprobs), mask, kl_coef)
    # 5. Advantages, and returns for the value model.
    advantages, returns = _advantages(rewards, values, mask, settings)
    rollout = Rollout(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        response_mask=mask,
        finished=batch.finished,
        logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        values=values,
        scores=scores,
        rewards=rewards,
        advantages=advantages,
        returns=returns,
        loss_mask=mask & batch.finished.unsqueeze(-1) if settings.mask_truncated_completions else mask,
    )
    figures = {**scored.figures, "objective/scores_clipped": clipped}
    return rollout, Timing(generated - started, time.perf_counter() - generated), figures


def _advantages(
    rewards: Tensor, values: Tensor | None, mask: Tensor, settings: PpoSection
) -> tuple[Tensor, Tensor | None]:
    """Advantages by `advantage_estimator`, and the targets of the value model where there is one: [B, T]."""
    if values is not None:
        return advantages_and_returns(rewards, values, mask, settings.gamma, settings.lam)
    estimate = rloo_advantages if settings.advantage_estimator == "rloo" else grpo_advantages
    return estimate(rewards, mask, settings.num_generations), None
