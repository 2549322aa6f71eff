"""Many numbers as a few: quantiles and a small histogram."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

BARS = 12


@dataclass(frozen=True)
class Spread:
    """How numbers are spread.

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
        found.item() for found in np.quantile(values, [0.05, 0.5, 0.95, 1.0], method="inverted_cdf")
    )
    bottom = min(0.0, float(values.min()))
    top = high if high > bottom else bottom + 1
    counts, _ = np.histogram(np.minimum(values, top), bins=BARS, range=(bottom, top))
    return Spread(low, median, high, most, tuple(counts.tolist()))
