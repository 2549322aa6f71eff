"""The bootstrap: resampled statistics, means with their intervals by prompt, and win rates. Numbers in, numbers out.

The percentile bootstrap (Efron 1979): prompts are drawn with replacement as often as there are prompts, the mean is
taken, and the middle 95 % of many such means are the interval. All quantities of one prompt are drawn together, so a
difference between two policies is a paired one. The draws depend on the number of prompts and on a fixed seed, never on
the training seed. Two things it cannot do: with few prompts (under about 20) intervals are too narrow, and where all
values are equal the interval has no width (a policy that wins everywhere: see `win_rate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipelines.report.estimates import Estimate
from pipelines.report.statistics import wilson

Floats: TypeAlias = NDArray[np.float64]
CONFIDENCE = 0.95
BOOTSTRAP_SEED = 20261121
_CELLS_AT_ONCE = 5_000_000
"""Drawn counts held in memory at a time: 40 MB."""


def resample(by_unit: Floats, statistic: Callable[[Floats], Floats], *, seed: int, samples: int) -> Floats:
    """Compute a statistic of sums over units that are drawn with replacement, as often as there are units.

    Args:
        by_unit: [N, C], what each unit adds to the C sums.
        statistic: [B, C] sums -> [B].
        seed: of the draws, which depend on it and on N alone.
        samples: how often the N units are drawn.

    Returns:
        [samples]; drawn in chunks that fit into memory.
    """
    rng, units = np.random.default_rng(seed), len(by_unit)
    at_once = max(1, _CELLS_AT_ONCE // units)
    statistics = []
    for start in range(0, samples, at_once):
        size = min(at_once, samples - start)
        drawn = rng.integers(units, size=(size, units)) + np.arange(size)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units)
        statistics.append(statistic(counts.astype(np.float64) @ by_unit))
    return np.concatenate(statistics)


def estimate(values: Sequence[float], samples: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """Estimate a mean over prompts with its percentile bootstrap interval.

    The draws depend on n alone, so that estimates over the same prompts can be compared.

    Args:
        values: [n], n at least 1, finite.
        samples: number of bootstrap means.
        confidence: probability that the interval is to cover the truth with.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("there is nothing to estimate a mean from")
    data = np.asarray(values, dtype=np.float64)
    means = resample(data[:, None], lambda sums: sums[:, 0] / len(data), seed=BOOTSTRAP_SEED, samples=samples)
    # rounding must not carry the quantiles past the values themselves
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).clip(data.min(), data.max()).tolist()
    return Estimate(float(data.mean()), low, high, len(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float], samples: int) -> Estimate:
    """Estimate a ratio of sums over prompts, such as the share of constraints followed where prompts have several.

    There may be few of these, so the tails that are cut off are as much smaller as those of Student's t (the expanded
    percentile interval of Hesterberg 2015, "What Teachers Should Know About the Bootstrap").

    Args:
        numerators: [n], n at least 1, finite.
        denominators: [n], above 0.
        samples: number of bootstrap ratios.
    """
    from scipy.special import ndtr, stdtrit  # with scikit-learn

    sums = np.array([numerators, denominators], dtype=np.float64).T
    ratios = resample(sums, lambda drawn: drawn[:, 0] / drawn[:, 1], seed=BOOTSTRAP_SEED, samples=samples)
    n = len(sums)
    tail = ndtr(-stdtrit(n - 1, (1 + CONFIDENCE) / 2) * (n / (n - 1)) ** 0.5) if n > 1 else 0.0
    low, high = np.quantile(ratios, [tail, 1 - tail]).tolist()
    total = sums.sum(axis=0)
    return Estimate(float(total[0] / total[1]), low, high, n)


def differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """First minus second, prompt by prompt: what a paired comparison takes the mean of."""
    return [a - b for a, b in zip(first, second, strict=True)]


def wins(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """1 where the first is higher, 0 where the second is, one half at a tie; its mean is the win rate."""
    return [0.5 if a == b else float(a > b) for a, b in zip(first, second, strict=True)]


def win_rate(values: Sequence[float], samples: int) -> Estimate:
    """Estimate the mean of `wins`: as `estimate`, or with the Wilson interval where all are won or all lost.

    Args:
        values: [n], each 0, .5 or 1.
        samples: number of bootstrap means.

    Raises:
        ValueError: there is no value.
    """
    estimated = estimate(values, samples)
    if set(values) not in ({0.0}, {1.0}):
        return estimated
    low, high = wilson(sum(values), len(values))
    return replace(estimated, low=low, high=high)
