"""How a metric goes over the updates of a run: what it was, what it is, and how far it scatters. Pure Python.

Rollouts are small (16 to 64 rows): a single update says little, so that means over some updates are compared, and a
difference is measured by the noise from update to update.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from statistics import fmean, median, stdev

START = 3
"""Updates whose mean is the start: the first samples from the untrained policy, the next two have hardly moved."""
WINDOW = 5
"""Updates whose mean is a level: 80 to 320 responses."""
LONG_WINDOW = 10
"""Updates for metrics that scatter around 0: KL and explained variance."""
KEPT = 20
"""Updates that the noise is measured over."""
MEDIAN_STEP = 0.954
"""Median of |a - b| for two draws of a normal distribution with deviation 1: .6745 times the root of 2."""


@dataclass
class Series:
    """One metric over the updates: the first values and the last.

    Attributes:
        first: the first `START` values.
        last: the last `KEPT` values.
        count: values so far.
    """

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, value: float) -> None:
        """Take in the value of one more update."""
        self.count += 1
        if len(self.first) < START:
            self.first.append(value)
        self.last = [*self.last, value][-KEPT:]

    @property
    def start(self) -> float:
        """What it was."""
        return fmean(self.first)

    def level(self, window: int = WINDOW) -> float:
        """What it is: the mean of the last `window` values, or of as many as there are."""
        return fmean(self.last[-window:])

    def error(self, window: int) -> float:
        """Standard error of the mean of the last `window` values, of which there are at least two."""
        return stdev(self.last[-window:]) / math.sqrt(window)

    def rise(self) -> float:
        """Level minus start, in standard errors; 0 until the two have no update in common.

        The noise of one update comes from the differences of neighbors, in which a trend hardly counts; from their
        median, so that one jump, as of a policy that breaks in its first update, is no noise.
        """
        if self.count < START + WINDOW:
            return 0.0
        steps = [abs(b - a) for values in (self.first, self.last) for a, b in itertools.pairwise(values)]
        error = median(steps) / MEDIAN_STEP * math.sqrt(1 / START + 1 / WINDOW)
        difference = self.level() - self.start
        return difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0


@dataclass
class Together:
    """Correlation of two metrics over all updates so far (Welford's running moments)."""

    count: int = 0
    mean_x: float = 0.0
    mean_y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        """Take in one more pair."""
        self.count += 1
        from_x, from_y = x - self.mean_x, y - self.mean_y
        self.mean_x += from_x / self.count
        self.mean_y += from_y / self.count
        self.xx += from_x * (x - self.mean_x)
        self.yy += from_y * (y - self.mean_y)
        self.xy += from_x * (y - self.mean_y)

    @property
    def correlation(self) -> float:
        """Pearson's; 0 where one of the two does not vary."""
        scale = math.sqrt(self.xx * self.yy)
        return self.xy / scale if scale > 0 else 0.0
