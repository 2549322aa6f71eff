"""What the reward source says of itself, over all processes and over interruptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pipelines.ppo.objective import Reduce

COUNTED = "reward/"
"""Figures under it were counted since the source was made: they go on where an interrupted run had come to."""
AVERAGED = "scores/"
"""Figures under it are means over the rows of a process, of which all have as many."""


class Counts:
    """Adds to what a source counted what was counted before it was made anew."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._now: dict[str, float] = {}

    def over_all(self, figures: Mapping[str, float], reduce: Reduce, processes: int) -> dict[str, float]:
        """The figures of one rollout: counts are summed over the processes, parts of the score averaged.

        Args:
            figures: of this process; every process has the same names.
            reduce: sums over all processes.
            processes: how many there are.
        """
        names = [name for name in figures if name.startswith((COUNTED, AVERAGED))]
        sums = reduce(torch.tensor([figures[name] for name in names], dtype=torch.float64)).tolist() if names else []
        shared = dict(figures)
        for name, total in zip(names, sums, strict=True):
            if name.startswith(COUNTED):
                self._now[name] = shared[name] = self._before.get(name, 0.0) + total
            else:
                shared[name] = total / processes
        return shared

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(self._now)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._before, self._now = dict(state), dict(state)
