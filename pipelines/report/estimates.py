"""A number with its interval, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """An estimate.

    Attributes:
        value: None where it is not defined.
        low: lower bound of the 95 % interval; None: there is no interval.
        high: upper bound.
        n: how many things it rests on.
        reason: why there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None

    @classmethod
    def none(cls, reason: str) -> Figure:
        """One that is not defined."""
        return cls(None, reason=reason)

    def text(self, *, percent: bool = False) -> str:
        """``.61 [.55, .67]``, ``61 % [55, 67]``, or ``n/a: reason``."""
        if self.value is None:
            return f"n/a: {self.reason}"
        if percent:
            bounds = "" if self.low is None or self.high is None else f" [{100 * self.low:.0f}, {100 * self.high:.0f}]"
            return f"{100 * self.value:.0f} %{bounds}"
        interval = "" if self.low is None or self.high is None else f" [{short(self.low)}, {short(self.high)}]"
        return short(self.value) + interval


def short(number: float) -> str:
    """Two decimals without the zero before the point: ``.61``, ``-.08``, ``1.00``."""
    text = f"{round(number, 2) + 0.0:.2f}"  # adding 0 turns -0.0 into 0.0
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def many(count: int, what: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
