"""The last good state of a training, which it goes back to on an alarm. Part of every checkpoint.

It does not depend on when checkpoints are written, or a resumed training would go back to another state than one that
was never interrupted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipelines.ppo.alarms.actions import PROVEN_AFTER
from pipelines.ppo.checkpoint import Stateful, load_parameters, trained_parameters


@dataclass
class GoodState:
    """Copies of what a training is made of: the last good one, and a later one that is still on trial. On the CPU.

    Attributes:
        trained: PolicyAndValue, not wrapped.
        parts: parts of the training that go back with it, by name.
    """

    trained: nn.Module
    parts: Mapping[str, Stateful]
    _good: dict[str, Any] | None = None
    _trial: dict[str, Any] | None = None

    @property
    def update(self) -> int:
        """Number of the update that made the last good state; 0 is the start."""
        assert self._good is not None
        return int(self._good["update"])

    def begin(self) -> None:
        """Take the state before the first update for good: there is none better."""
        self._good = self._copy(0)

    def see(self, update: int, *, quiet: bool) -> None:
        """Take note of the state after an update.

        Args:
            update: number of the update.
            quiet: whether no alarm calls for an action; the state on trial is good after `PROVEN_AFTER` such updates.
        """
        if not quiet:
            self._trial = None
        elif self._trial is None:
            self._trial = self._copy(update)
        elif update - self._trial["update"] >= PROVEN_AFTER:
            self._good, self._trial = self._trial, self._copy(update)

    def restore(self) -> int:
        """Set weights and parts to the last good state; return the number of the update that made it."""
        assert self._good is not None
        load_parameters(self.trained, self._good["weights"], "the last good state")
        for name, part in self.parts.items():
            part.load_state_dict(copy.deepcopy(self._good["parts"][name]))  # Adam goes on in what it is given
        self._trial = None
        return self.update

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"good": self._good, "trial": self._trial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._good, self._trial = state["good"], state["trial"]

    def _copy(self, update: int) -> dict[str, Any]:
        return {
            "update": update,
            "weights": {name: tensor.clone() for name, tensor in trained_parameters(self.trained).items()},
            "parts": {name: _on_cpu(part.state_dict()) for name, part in self.parts.items()},
        }


def _on_cpu(value: Any) -> Any:
    """Return a copy of tensors, numbers and containers of them, every tensor on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value
