"""Order of the prompts, KL coefficient and learning rates over the updates of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from pipelines.config.ppo_section import PpoSection
from pipelines.data.encode import EncodedPrompt


class PromptStream:
    """Endless stream of prompts: every pass over them has its own order, set by the seed and the pass number.

    Args:
        prompts: prompts of all processes.
        seed: seed of the orders.
        rank: number of this process.
        world: number of processes; together they draw the same prompts as one would.
    """

    def __init__(self, prompts: Sequence[EncodedPrompt], seed: int, rank: int = 0, world: int = 1) -> None:
        self.prompts, self.seed, self.rank, self.world = prompts, seed, rank, world
        self.position = 0
        self._pass, self._order = -1, torch.empty(0)

    def take(self, count: int) -> list[EncodedPrompt]:
        """Return the next `count` prompts of this process."""
        start = self.position + self.rank * count
        self.position += self.world * count
        return [self.prompts[self._index(position)] for position in range(start, start + count)]

    def _index(self, position: int) -> int:
        number, index = divmod(position, len(self.prompts))
        if number != self._pass:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            self._pass, self._order = number, torch.randperm(len(self.prompts), generator=generator)
        return int(self._order[index])

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.position = state["position"]


LARGEST_ERROR = 0.2
"""Bound on the relative error of the KL in one step of the controller."""


class KlController:
    """The weight of the KL penalty: fixed, or adaptive where `kl_target` is set (Ziegler et al. 2019, section 2.2).

    Attributes:
        coef: weight in the next rollout.
    """

    def __init__(self, settings: PpoSection) -> None:
        self.coef = settings.kl_coef
        self._target, self._horizon = settings.kl_target, settings.kl_horizon

    def update(self, kl: float, episodes: int) -> None:
        """Move the coefficient toward the target after a rollout; a fixed one stays.

        Args:
            kl: mean KL of the rollout in nats per response, over all processes.
            episodes: number of its responses, over all processes.
        """
        if self._target is None:
            return
        error = min(max(kl / self._target - 1, -LARGEST_ERROR), LARGEST_ERROR)
        self.coef *= 1 + error * episodes / self._horizon

    def strengthen(self, factor: float, least: float) -> None:
        """Multiply the coefficient by `factor`, and raise it to `least` where it is lower."""
        self.coef = max(self.coef * factor, least)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.coef = state["coef"]


def learning_rate_factor(settings: PpoSection, update: int) -> float:
    """Factor of both learning rates in an update.

    Not one of transformers' schedules: their warm-up gives the first update a rate of 0, which wastes a whole rollout.

    Args:
        update: number of the update, counted from 0.
    """
    warmup, updates = settings.warmup, settings.num_updates
    if update < warmup:
        return (update + 1) / (warmup + 1)
    progress = min((update - warmup) / (updates - warmup), 1.0)
    if settings.lr_scheduler_type == "linear":
        return 1.0 - progress
    if settings.lr_scheduler_type == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
