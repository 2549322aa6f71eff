"""What a PPO training went through, as its manifest tells it. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STARTING_POINT = ("objective/kl", "objective/scores", "val/finished", "val/response_length")
"""Metrics of the first update that are kept beside those of the last."""


class Record:
    """Metrics of the first and the last update, the first and the last evaluation, and every alarm.

    Attributes:
        alarms: those that fired, in order, as JSON holds them.
    """

    def __init__(self) -> None:
        self.alarms: list[dict[str, Any]] = []
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._first_evaluation: dict[str, float] = {}
        self._last_evaluation: dict[str, float] = {}

    def see(self, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of an update."""
        self._last = dict(metrics)
        self._first = self._first or self._last

    def evaluated(self, figures: Mapping[str, float]) -> None:
        """Take in an evaluation on held-out prompts."""
        self._last_evaluation = dict(figures)
        self._first_evaluation = self._first_evaluation or self._last_evaluation

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last update and evaluation, some of the first under ``start/``, and the number of alarms."""
        start = {name: self._first[name] for name in STARTING_POINT} | self._first_evaluation
        return {
            **self._last,
            **self._last_evaluation,
            **{f"start/{name}": value for name, value in start.items()},
            "alarms": len(self.alarms),
        }

    def shown(self) -> dict[str, float]:
        """The figures beside the progress."""
        return {
            "kl": self._last["objective/kl"],
            "reward": self._last["objective/scores"],
            "tokens_per_second": self._last["time/tokens_per_second"],
        }

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "alarms": self.alarms,
            "first": self._first,
            "last": self._last,
            "first_evaluation": self._first_evaluation,
            "last_evaluation": self._last_evaluation,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        self.alarms = list(state["alarms"])
        self._first, self._last = state["first"], state["last"]
        self._first_evaluation, self._last_evaluation = state["first_evaluation"], state["last_evaluation"]
