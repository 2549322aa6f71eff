"""What moves from update to update beside the models: the KL coefficient and the learning rates. Without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from pipelines.config.ppo_section import PpoSection
from pipelines.data.encode import EncodedPrompt


class PromptStream:
    """Prompts without end: every pass over them in a new order, given by the seed and the number of the pass.

    Args:
        prompts: those of all processes.
        seed: of the orders.
        rank: which process this is.
        world: how many there are; together they draw the same prompts as one would.
    """

    def __init__(self, prompts: Sequence[EncodedPrompt], seed: int, rank: int = 0, world: int = 1) -> None:
        self.prompts, self.seed, self.rank, self.world = prompts, seed, rank, world
        self.position = 0
        self._pass, self._order = -1, torch.empty(0)

    def take(self, count: int) -> list[EncodedPrompt]:
        """The next `count` prompts of this process."""
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
        """For a checkpoint."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        self.position = state["position"]


LARGEST_ERROR = 0.2
"""Bound of the relative error of the KL that one step of the controller answers to."""


class KlController:
    """The weight of the KL penalty: fixed, or adaptive where `kl_target` is set (Ziegler et al. 2019, section 2.2).

    Attributes:
        coef: the weight of the coming rollout.
    """

    def __init__(self, settings: PpoSection) -> None:
        self.coef = settings.kl_coef
        self._target, self._horizon = settings.kl_target, settings.kl_horizon

    def update(self, kl: float, episodes: int) -> None:
        """Answer to a rollout.

        Args:
            kl: its mean KL per response in nats, over all processes.
            episodes: its responses, over all processes.
        """
        if self._target is None:
            return
        error = min(max(kl / self._target - 1, -LARGEST_ERROR), LARGEST_ERROR)
        self.coef *= 1 + error * episodes / self._horizon

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        self.coef = state["coef"]


def learning_rate_factor(settings: PpoSection, update: int) -> float:
    """What both learning rates are multiplied by in an update.

    Not one of transformers' schedules: their warm-up gives the first update a rate of 0, which wastes a whole rollout.

    Args:
        update: counted from 0.
    """
    warmup, updates = settings.warmup_updates, settings.num_updates
    if update < warmup:
        return (update + 1) / (warmup + 1)
    done = min((update - warmup) / (updates - warmup), 1.0)
    if settings.lr_scheduler_type == "linear":
        return 1.0 - done
    if settings.lr_scheduler_type == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0
