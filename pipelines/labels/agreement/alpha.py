"""Krippendorff's alpha with a bootstrap interval, from sums of coincidences by task."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Literal

import numpy as np

from pipelines.labels.votes import Floats, Votes
from pipelines.report.bootstrap import resample

Level = Literal["nominal", "ordinal"]
"""How far two values are apart: equal or not, or by how many values lie between them."""


def value_counts(votes: Votes) -> tuple[Floats, Floats]:
    """[T, K, V] counts of how often each unit, one answer of one task, got each value; and the V values, rising.

    Of a ranking its value is its mid-rank among the answers of the task.
    """
    domain = np.unique(votes.value[~np.isnan(votes.value)])
    counts = [votes.by_task(votes.value == value) for value in domain]
    return np.stack(counts, axis=-1).astype(np.float64), domain


def coincidences(counts: Floats) -> Floats:
    """[T, K, V] counts -> [T, V, V] coincidences of values, summed over the units of each task.

    A unit with m values adds 1 / (m - 1) for each ordered pair of them; one with a single value adds nothing
    (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C).
    """
    share = 1 / (np.maximum(counts.sum(axis=-1), 2) - 1)
    together = np.einsum("tkv,tkw,tk->tvw", counts, counts, share)
    sums: Floats = together - np.einsum("tkv,tk->tv", counts, share)[..., None] * np.eye(counts.shape[-1])
    return sums


def alphas_of(together: Floats, level: Level) -> Floats:
    """[B, V, V] sums of coincidences -> [B] alphas; NaN where all values that can be compared are equal.

    Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C. The ordinal distance of two values is the
    number of values between their middles, squared, so that it is a difference of positions.
    """
    of_value = together.sum(axis=-1)
    total = of_value.sum(axis=-1)
    size = together.shape[-1]
    if level == "ordinal":
        middle = np.cumsum(of_value, axis=-1) - of_value / 2
        distance = (middle[:, :, None] - middle[:, None, :]) ** 2
    else:
        distance = np.broadcast_to(1 - np.eye(size), together.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        # the diagonal of the coincidences expected by chance is left out: its distance is 0
        expected = of_value[:, :, None] * of_value[:, None, :] / (total - 1)[:, None, None]
        values = 1 - (together * distance).sum(axis=(1, 2)) / (expected * distance).sum(axis=(1, 2))
    return np.where(np.isfinite(values), values, np.nan)


def interval(
    by_task: Floats, statistic: Callable[[Floats], Floats], *, seed: int, samples: int
) -> tuple[float, float] | None:
    """The 95 % expanded percentile bootstrap interval (Hesterberg 2015, section 4.6) of a statistic of sums over tasks.

    Tasks are drawn, not labels: what different people say of one task goes together. Plain percentiles are too narrow
    where there are few tasks; they are taken further out, by what the t distribution is wider than the normal one.

    Args:
        by_task: [T, C], what each task adds to the C sums.
        statistic: [B, C] sums -> [B].
        seed: of the draws.
        samples: B; None is returned for none, for fewer than two tasks, and where most draws leave it undefined.
    """
    tasks = len(by_task)
    if tasks < 2 or samples < 1:
        return None
    values = resample(by_task, statistic, seed=seed, samples=samples)
    if np.isnan(values).mean() > 0.5:
        return None
    tail = tail_of(tasks)
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def tail_of(tasks: int) -> float:
    """The quantile at which a 95 % interval of so many tasks ends: 0.025 for many, less for few.

    The quantile of the t distribution with tasks - 1 degrees of freedom is Fisher's expansion, to the second order.
    """
    z, free = 1.959964, tasks - 1
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return NormalDist().cdf(-math.sqrt(tasks / free) * t)
