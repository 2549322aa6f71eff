"""The win rate with the effect of the answers' length taken out.

Judges, and people, prefer longer answers. The length-controlled win rate (Dubois et al. 2024, arXiv:2404.04475) is what
a logistic regression of the wins expects where both answers are equally long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.report.bootstrap import BOOTSTRAP_SEED, CONFIDENCE
from pipelines.report.estimates import Estimate

MOST_SAMPLES = 200
"""Bootstrap samples at most: each is a regression."""
_NEWTON_STEPS = 20
"""From no effect at all the steps fall short, never beyond; half as many reach one win among a thousand."""


def length_controlled_win_rate(
    wins: Sequence[float], lengths: Sequence[float], baseline_lengths: Sequence[float], samples: int
) -> Estimate:
    """Estimate the share of wins at equal length, with its percentile bootstrap interval by prompt.

    The regression has an intercept and the hyperbolic tangent of the difference in length by its standard deviation.
    The slope is shrunk (L2, C = 1), so that it stays finite where length tells wins and losses apart.

    Args:
        wins: [n], 1, 0, or .5 at a tie, which counts as half a win and half a loss.
        lengths: [n] lengths of the answers in tokens.
        baseline_lengths: [n] lengths of the answers that they are compared with.
        samples: number of bootstrap samples; `MOST_SAMPLES` at most.

    Returns:
        None as the value where all prompts are won or all are lost: nothing is left to regress.
    """
    import numpy as np

    won = np.asarray(wins, dtype=float)
    if set(wins) in ({0.0}, {1.0}):
        return Estimate.none("every prompt is won, or every one lost")
    difference = np.asarray(lengths, dtype=float) - np.asarray(baseline_lengths, dtype=float)
    spread = difference.std()
    feature = np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)
    random = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = [random.integers(len(won), size=len(won)) for _ in range(min(samples, MOST_SAMPLES))]
    rates = _rates_at_equal_length(won[np.stack(drawn)], feature[np.stack(drawn)])
    low, high = np.quantile(rates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(_rates_at_equal_length(won, feature)), float(low), float(high), len(won))


def _rates_at_equal_length(won: Any, feature: Any) -> Any:
    """Sigmoid of the intercept, by Newton's method; the plain share where all are won or lost.

    Args:
        won: [..., n], a regression each.
        feature: [..., n].
    """
    import numpy as np

    same = (won == won[..., :1]).all(-1) & np.isin(won[..., 0], (0, 1))
    outcomes = np.where(same[..., None], 0.5, won)
    intercept = slope = np.zeros_like(won[..., 0])
    for _ in range(_NEWTON_STEPS):
        expected = 1 / (1 + np.exp(-intercept[..., None] - slope[..., None] * feature))
        missing, weight = outcomes - expected, expected * (1 - expected)
        gradient, along = missing.sum(-1), (missing * feature).sum(-1) - slope
        curvature, across = weight.sum(-1), (weight * feature).sum(-1)
        steep = (weight * feature**2).sum(-1) + 1
        determinant = curvature * steep - across**2
        intercept = intercept + (steep * gradient - across * along) / determinant
        slope = slope + (curvature * along - across * gradient) / determinant
    return np.where(same, won[..., 0], 1 / (1 + np.exp(-intercept)))
