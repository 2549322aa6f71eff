"""Wilson interval, ranks, area under the curve, and quantiles."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): unlike the normal one it stays within [0, 1].

    Args:
        successes: how many of `n` succeeded; a tie is half a success.
        n: at least 1.
    """
    z = 1.959964  # quantile .975 of the normal distribution
    share = successes / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


def clustered_wilson(successes: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """The 95 % interval of a share whose trials come in clusters, such as several pairs of one prompt.

    Wilson's, with the number of independent trials that would give the same variance as the clusters do (Korn and
    Graubard 1998), at most the number of trials. Where all trials end alike, every cluster counts once.

    Args:
        successes: 1, 0 or .5 for each trial, at least one.
        clusters: the cluster of each trial.
    """
    n, share = len(successes), sum(successes) / len(successes)
    residuals: dict[Hashable, float] = defaultdict(float)
    for success, cluster in zip(successes, clusters, strict=True):
        residuals[cluster] += success - share
    count = len(residuals)
    variance = sum(residual**2 for residual in residuals.values()) * count / max(count - 1, 1) / n**2
    independent = float(count)
    if variance > 0 and 0 < share < 1:
        independent = min(float(n), share * (1 - share) / variance)
    return wilson(share * independent, independent)


def ranks(values: Sequence[float]) -> list[float]:
    """The place of each value from 1 on; equal values share the mean of their places."""
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [0.0] * len(values)
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or values[order[stop]] != values[order[start]]:
            for index in order[start:stop]:
                places[index] = (start + 1 + stop) / 2
            start = stop
    return places


def auc(good: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Area under the ROC curve: how often a good row scores above a bad one, a tie being half (Mann, Whitney 1947).

    None where there is no good row, or no bad one.
    """
    positive = sum(good)
    negative = len(good) - positive
    if not positive or not negative:
        return None
    above = sum(rank for rank, is_good in zip(ranks(scores), good, strict=True) if is_good)
    return (above - positive * (positive + 1) / 2) / (positive * negative)


BARS = 12


@dataclass(frozen=True)
class Spread:
    """Quantiles and a small histogram of numbers.

    Attributes:
        low: 5 % of them lie below; `median` and `high` stand for 50 % and 95 %. Each is one of the numbers.
        most: the largest.
        bars: how many fall into each of `BARS` equal steps from 0 to `high`; the last one holds what lies above, too.
    """

    low: float
    median: float
    high: float
    most: float
    bars: tuple[int, ...]


def spread(numbers: Sequence[float] | array[int] | array[float]) -> Spread | None:
    """The spread of numbers; None where there are none."""
    import numpy as np

    if not len(numbers):
        return None
    values = np.asarray(numbers)
    low, median, high, most = (
        quantile.item() for quantile in np.quantile(values, [0.05, 0.5, 0.95, 1.0], method="inverted_cdf")
    )
    bottom = min(0.0, float(values.min()))
    top = high if high > bottom else bottom + 1
    counts, _ = np.histogram(np.minimum(values, top), bins=BARS, range=(bottom, top))
    return Spread(low, median, high, most, tuple(counts.tolist()))
