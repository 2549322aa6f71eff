"""Normalization of scores to unit scale, less the penalties for a missing EOS and for length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.objective import Reduce, length_penalties, normalized_scores
from pipelines.ppo.types import Normalization

SMALLEST_DEVIATION = 1e-6
"""Below it all scores so far count as equal, and are only shifted."""


class Normalizer:
    """Turns scores into rewards: shifts, scales and clips them, and takes off the penalties.

    There is a penalty on responses that did not finish, and one on long ones.

    With `reward_normalization: running` mean and deviation are those of all scores of all processes since the start,
    the batch at hand included (Welford 1962; batches merged as in Chan et al. 1979). They are taken before the penalty.
    """

    def __init__(self, settings: PpoSection, stored: Normalization) -> None:
        """Start without any scores.

        Args:
            stored: normalization used by `model`: that of the run's reward model, or `AS_IT_IS` for any other source.
        """
        self._settings = settings
        self._fixed = stored if settings.normalization == "model" else Normalization()
        self._count, self._mean, self._squares = 0.0, 0.0, 0.0

    def __call__(self, scores: Tensor, finished: Tensor, lengths: Tensor, reduce: Reduce) -> tuple[Tensor, float]:
        """Return the rewards of a batch, whose scores count from now on.

        Args:
            scores: [B], scores of this process, as the source gave them.
            finished: [B] bool.
            lengths: [B] response tokens.
            reduce: sums over all processes.

        Returns:
            [B] normalized scores, less the penalties, and the share of clipped scores over all processes.
        """
        if self._settings.normalization == "running":
            self._add(scores, reduce)
        normalized, clipped = self.rewards(scores, finished, lengths)
        counts = reduce(torch.stack([clipped.sum(), clipped.new_tensor(len(clipped), dtype=torch.long)]))
        return normalized, float(counts[0] / counts[1])

    def rewards(self, scores: Tensor, finished: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the [B] rewards that these scores would have now, and which of them are clipped.

        Before the first batch the scores at hand give the running mean and deviation.
        """
        settings, scale = self._settings, self._scale(scores)
        normalized, clipped = normalized_scores(
            scores,
            finished,
            mean=scale.mean,
            std=scale.std,
            clip=settings.reward_clip,
            missing_eos_penalty=settings.missing_eos_penalty,
        )
        if settings.length_penalty:
            start, limit = settings.penalized_from, settings.response_length
            normalized = normalized - length_penalties(
                lengths, start=start, limit=limit, penalty=settings.length_penalty
            )
        return normalized, clipped

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"count": self._count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._count, self._mean, self._squares = state["count"], state["mean"], state["squares"]

    def _scale(self, scores: Tensor) -> Normalization:
        if self._settings.normalization != "running":
            return self._fixed
        if self._count:
            mean, deviation = self._mean, (self._squares / self._count) ** 0.5
        else:
            mean, deviation = float(scores.mean()), float(scores.std(correction=0))
        return Normalization(mean, deviation if deviation > SMALLEST_DEVIATION else 1.0)

    def _add(self, scores: Tensor, reduce: Reduce) -> None:
        count, total = reduce(torch.stack([scores.new_tensor(float(len(scores))), scores.sum()])).tolist()
        mean = total / count
        squares = float(reduce(((scores - mean) ** 2).sum()))
        difference, before = mean - self._mean, self._count
        self._count = before + count
        self._mean += difference * count / self._count
        self._squares += squares + difference**2 * before * count / self._count
