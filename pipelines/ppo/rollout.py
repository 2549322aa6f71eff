"""Generate -> score -> Rollout. Holds no gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from pipelines.config.ppo_section import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.errors import TrainingError
from pipelines.models.forward import TokenBatch
from pipelines.models.generate import closed
from pipelines.models.published_reward import Output
from pipelines.models.sequence_scores import read_logit
from pipelines.ppo.engines.transformers_engine import RolloutEngine
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.objective import Reduce, advantages_and_returns, k1, token_rewards
from pipelines.ppo.roles import Roles
from pipelines.ppo.types import Rollout
from pipelines.scorers.protocol import Completion, Scorer, ScorerWithParts, counts_of


@dataclass(frozen=True)
class Scored:
    """What a reward source says of a batch.

    Attributes:
        scores: [B], on the device of the batch.
        figures: what is worth logging beside them: ``scores/<part>``, the mean of each part of the score, and
            ``reward/<count>``, what the source counted since the start (requests, texts that it cut).
    """

    scores: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)


class Reward(Protocol):
    """A reward source as PPO uses it."""

    def __call__(self, batch: TokenBatch, prompts: Sequence[EncodedPrompt], responses: list[list[int]]) -> Scored:
        """One score a row."""


@dataclass(frozen=True)
class RoleReward:
    """The run's own reward model, one of the roles: scores token ids, so that nothing is tokenized twice.

    Attributes:
        roles: with a reward role.
        chunk: rows in one forward.
        ends: the ids that end a response, EOS first.
        output: what of its logit is the score.
    """

    roles: Roles
    chunk: int
    ends: Sequence[int] = ()
    output: Output = "logit"

    def __call__(self, batch: TokenBatch, prompts: Sequence[EncodedPrompt], responses: list[list[int]]) -> Scored:
        """See Reward."""
        if len(self.ends) > 1:
            whole = [closed(ids, self.ends) for ids in responses]
            batch = TokenBatch.of([prompt["prompt_ids"] for prompt in prompts], whole, self.ends).to(batch.device)
        return Scored(read_logit(self.roles.scores(batch, self.chunk), self.output))


@dataclass(frozen=True)
class TextReward:
    """Any scorer on text; a stop token that is no special token belongs to the text."""

    scorer: Scorer
    encoder: ChatEncoder

    def __call__(self, batch: TokenBatch, prompts: Sequence[EncodedPrompt], responses: list[list[int]]) -> Scored:
        """See Reward."""
        completions = [
            Completion(self.encoder.decode(ids), tuple(ids), finished=finished)
            for ids, finished in zip(responses, batch.finished.tolist(), strict=True)
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
    """The scores [B].

    Raises:
        TrainingError: one of them is not a finite number.
    """
    if not torch.isfinite(scored.scores).all():
        raise TrainingError("the reward source gave a score that is not finite", where="ppo.reward")
    return scored.scores


@dataclass(frozen=True)
class Timing:
    """Seconds of the two halves of a rollout."""

    generation: float
    scoring: float


def collect(
    prompts: Sequence[EncodedPrompt],
    roles: Roles,
    engine: RolloutEngine,
    reward: Reward,
    settings: PpoSection,
    *,
    kl_coef: float,
    normalizer: Normalizer,
    reduce: Reduce,
    eos_token_id: int | Sequence[int],
    device: torch.device,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Rollout, Timing, Mapping[str, float]]:
    """Answer the prompts and work out everything that an update needs.

    Args:
        prompts: of this process.
        kl_coef: weight of the KL penalty in this rollout.
        normalizer: of the scores; it may learn from them.
        reduce: sums over all processes.
        eos_token_id: the id or ids that end a response.
        device: of the models.
        seed: of the draws.

    Returns:
        The rollout, what it took, and figures: those of the reward source, and the share of clipped scores.

    Raises:
        TrainingError: the reward source gave a number that is not finite.
    """
    started = clock()
    responses = engine.generate([prompt["prompt_ids"] for prompt in prompts], seed=seed)
    generated = clock()
    batch = TokenBatch.of([prompt["prompt_ids"] for prompt in prompts], responses, eos_token_id).to(device)
    chunk, mask = settings.rollout_forward_batch_size, batch.response_mask
    scored = reward(batch, prompts, responses)
    scores = finite_scores(scored)
    logprobs = roles.policy_logprobs(batch, settings.temperature, chunk)
    ref_logprobs = roles.reference_logprobs(batch, settings.temperature, chunk)
    values = roles.values(batch, chunk)
    normalized, clipped = normalizer(scores, batch.finished, reduce)
    rewards = token_rewards(normalized, k1(logprobs, ref_logprobs), mask, kl_coef)
    advantages, returns = advantages_and_returns(rewards, values, mask, settings.gamma, settings.lam)
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
    return rollout, Timing(generated - started, clock() - generated), figures
