"""The accuracy of a reward model on held-out pairs, and whether it is enough to optimize or to judge by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHANCE = 0.5
ENOUGH_PAIRS = 200
"""Held-out pairs from which on a verdict is possible: the interval of an accuracy of .57 or more lies above chance."""


@dataclass(frozen=True)
class PairAccuracy:
    """Share of held-out pairs that a reward model orders as they are.

    Attributes:
        value: the share.
        low: lower bound of its 95 % interval.
        high: upper bound.
        length: accuracy of always choosing the longer answer, or always the shorter one.
        pairs: number of pairs.
    """

    value: float
    low: float
    high: float
    length: float
    pairs: int

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> PairAccuracy | None:
        """Read it from the final metrics of a reward stage; None: no pairs were held out.

        A pointwise model has it where comparisons were held out.
        """
        prefix = "heldout_pair" if "heldout_pair_accuracy_after" in metrics else "heldout"
        names = ("accuracy", "accuracy_low", "accuracy_high", "length_accuracy", "pairs")
        values: list[Any] = [metrics.get(f"{prefix}_{name}_after") for name in names]
        return None if None in values else cls(*values)

    @property
    def faults(self) -> list[str]:
        """Reasons not to trust the model: it may be guessing, or it only measures length. Empty: there is none."""
        faults = []
        if self.low <= CHANCE:
            faults.append("its interval reaches chance (.5)")
        if self.value <= self.length:
            faults.append(f"choosing by length alone is right on {self.length:.3f}")
        return faults

    def __str__(self) -> str:
        return f"held-out accuracy {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.pairs} pairs"
