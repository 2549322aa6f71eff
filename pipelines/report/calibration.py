"""Probabilities compared with the truth: reliability, calibration error, and the temperature that would mend it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

BINS = 10
COLDEST, HOTTEST = 0.01, 100.0
"""Range in which a temperature is sought; the loss has one minimum in it, or falls towards an end."""


@dataclass(frozen=True)
class Bin:
    """Rows of similar probability.

    Attributes:
        n: number of rows.
        probability: mean probability by the model.
        good: mean target; the same for a calibrated model.
    """

    n: int
    probability: float
    good: float


def reliability(probabilities: Sequence[float], targets: Sequence[float]) -> list[Bin]:
    """Group the rows by probability, in up to `BINS` groups of nearly equal size.

    Equal probabilities stay together, so that a constant is one group and not one for every order of the rows.
    """
    rows = sorted(zip(probabilities, targets, strict=True), key=lambda row: row[0])
    bins, start = [], 0
    for number in range(1, BINS + 1):
        stop = round(len(rows) * number / BINS)
        while 0 < stop < len(rows) and rows[stop][0] == rows[stop - 1][0]:
            stop += 1
        if stop > start:
            part = rows[start:stop]
            bins.append(Bin(len(part), fmean(p for p, _ in part), fmean(target for _, target in part)))
            start = stop
    return bins


def calibration_figures(logits: Sequence[float], targets: Sequence[float]) -> dict[str, float]:
    """Measure how well the sigmoid of logits, as a probability, agrees with targets.

    Args:
        logits: at least one.
        targets: in [0, 1].

    Returns:
        ``brier``, the mean squared error of the probability (Brier 1950), ``loss``, the mean cross entropy in nats, and
        ``calibration_error``, the mean distance of probability and truth over `reliability`'s bins (ECE; Naeini et al.
        2015, with bins of equal mass).
    """
    probabilities = [probability(logit) for logit in logits]
    bins = reliability(probabilities, targets)
    return {
        "brier": fmean((p - target) ** 2 for p, target in zip(probabilities, targets, strict=True)),
        "loss": fmean(_softplus(logit) - target * logit for logit, target in zip(logits, targets, strict=True)),
        "calibration_error": sum(b.n * abs(b.probability - b.good) for b in bins) / len(logits),
    }


def best_temperature(logits: Sequence[float], targets: Sequence[float]) -> float:
    """Find the number that divides all logits for the smallest cross entropy (Guo et al. 2017).

    Above 1 the model is too sure of itself, below 1 too unsure. The loss is convex in 1 / temperature, so that a
    bisection of its slope finds the minimum; without one it ends at `COLDEST` or `HOTTEST`.
    """

    def slope(inverse: float) -> float:
        return sum((probability(inverse * z) - target) * z for z, target in zip(logits, targets, strict=True))

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def probability(logit: float) -> float:
    """Sigmoid of a logit."""
    return math.exp(-_softplus(-logit))


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
