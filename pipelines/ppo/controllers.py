"""What moves from update to update beside the models: the KL coefficient and the learning rates. Without torch."""

from __future__ import annotations

import math
from typing import Any

from pipelines.config.ppo import PpoSection

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
