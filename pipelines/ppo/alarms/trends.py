"""Trend of a metric over the updates of a run: its start, its level and its noise. Pure Python.

Rollouts are small (16 to 64 rows) and a single update says little. So means over several updates are compared, and
their difference is measured in units of the noise from update to update.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from statistics import fmean, median, stdev

START = 3
"""Updates whose mean is the start: the first samples the untrained policy; by the next two it has hardly moved."""
WINDOW = 5
"""Updates whose mean is a level: 80 to 320 responses."""
LONG_WINDOW = 10
"""Updates for metrics that scatter around 0: KL and explained variance."""
NOISE_WINDOW = 20
"""Last updates that are kept, and that the noise is measured over."""
MEDIAN_STEP = 0.954
"""Median of |a - b| for two draws of a normal distribution with deviation 1: .6745 times the root of 2."""


@dataclass
class MetricSeries:
    """One metric over the updates: the first values and the last.

    Attributes:
        first: the first `START` values.
        last: the last `NOISE_WINDOW` values.
        count: values so far.
    """

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, value: float) -> None:
        """Add the value of one more update."""
        self.count += 1
        if len(self.first) < START:
            self.first.append(value)
        self.last = [*self.last, value][-NOISE_WINDOW:]

    @property
    def start(self) -> float:
        """Mean of the first values."""
        return fmean(self.first)

    def level(self, window: int = WINDOW) -> float:
        """Mean of the last `window` values, or of as many as there are."""
        return fmean(self.last[-window:])

    def error(self, window: int) -> float:
        """Standard error of the mean of the last `window` values, of which there are at least two."""
        return stdev(self.last[-window:]) / math.sqrt(window)

    def rise(self) -> float:
        """Level minus start, in standard errors; 0 while the two have an update in common.

        The noise of one update is estimated from the differences of neighbors, which a trend hardly changes. Their
        median is taken, so that a single jump, as of a policy that breaks in its first update, does not count as noise.
        """
        if self.count < START + WINDOW:
            return 0.0
        steps = [abs(b - a) for values in (self.first, self.last) for a, b in itertools.pairwise(values)]
        error = median(steps) / MEDIAN_STEP * math.sqrt(1 / START + 1 / WINDOW)
        difference = self.level() - self.start
        return difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0


@dataclass
class RunningCorrelation:
    """Correlation of two metrics over all updates so far (Welford's running moments)."""

    count: int = 0
    mean_x: float = 0.0
    mean_y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        """Add one more pair."""
        self.count += 1
        from_x, from_y = x - self.mean_x, y - self.mean_y
        self.mean_x += from_x / self.count
        self.mean_y += from_y / self.count
        self.xx += from_x * (x - self.mean_x)
        self.yy += from_y * (y - self.mean_y)
        self.xy += from_x * (y - self.mean_y)

    @property
    def correlation(self) -> float:
        """Pearson correlation; 0 where one of the two does not vary."""
        scale = math.sqrt(self.xx * self.yy)
        return self.xy / scale if scale > 0 else 0.0
