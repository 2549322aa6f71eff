"""Estimates with their intervals, and their text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the estimate; None: it is not defined.
        low: lower bound of the interval; None: there is no interval.
        high: upper bound of the interval.
        n: number of observations.
        reason: reason why there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None

    @classmethod
    def none(cls, reason: str) -> Estimate:
        """Return an estimate that is not defined."""
        return cls(None, reason=reason)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Estimate:
        """Return the estimate that `as_dict` made, also from a file.

        Raises:
            KeyError: a part is missing.
            TypeError: a part is no number.
            ValueError: a part is no number.
        """
        return cls(float(entry["value"]), float(entry["low"]), float(entry["high"]), int(entry["n"]))

    def as_dict(self) -> dict[str, float | int | None]:
        """Return value, bounds and n, as results.json holds them."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}

    def text(self, *, percent: bool = False) -> str:
        """Return ``.61 [.55, .67]``, ``61 % [55, 67]``, or ``n/a: reason``."""
        if self.value is None:
            return f"n/a: {self.reason}"
        if percent:
            bounds = "" if self.low is None or self.high is None else f" [{100 * self.low:.0f}, {100 * self.high:.0f}]"
            return f"{100 * self.value:.0f} %{bounds}"
        interval = "" if self.low is None or self.high is None else f" [{short(self.low)}, {short(self.high)}]"
        return short(self.value) + interval


def short(number: float) -> str:
    """Round to two decimals without the zero before the point: ``.61``, ``-.08``, ``1.00``."""
    text = f"{round(number, 2) + 0.0:.2f}"  # adding 0 turns -0.0 into 0.0
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def many(count: int, what: str) -> str:
    """Return ``1 task`` or ``2 tasks``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
