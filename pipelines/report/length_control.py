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
    rates = []
    for _ in range(min(samples, MOST_SAMPLES)):
        drawn = random.integers(len(won), size=len(won))
        rates.append(_rate_at_equal_length(won[drawn], feature[drawn]))
    low, high = np.quantile(rates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(_rate_at_equal_length(won, feature), float(low), float(high), len(won))


def _rate_at_equal_length(won: Any, feature: Any) -> float:
    """Sigmoid of the intercept; the plain share where all are won or lost."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    if won.min() == won.max() and won[0] in (0.0, 1.0):
        return float(won[0])
    rows, outcomes = np.concatenate([feature, feature])[:, None], np.repeat([1, 0], len(won))
    weights = np.concatenate([won, 1 - won])
    fitted = LogisticRegression(C=1.0, solver="newton-cholesky").fit(rows, outcomes, sample_weight=weights)
    return float(1 / (1 + np.exp(-fitted.intercept_[0])))
