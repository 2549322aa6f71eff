"""Best-of-n sampling, the simplest rival of PPO: of n answers of the baseline the one that PPO's reward prefers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipelines.scorers import Completion


def best_of(candidates: Sequence[Sequence[Completion]], scores: Sequence[Sequence[float]]) -> list[int]:
    """Choose a candidate for each prompt.

    Args:
        candidates: [n, prompts] answers.
        scores: [n, prompts] their scores.

    Returns:
        [prompts] numbers of the candidates with the highest scores, the first of equal ones.
    """
    numbers = range(len(candidates))
    return [max(numbers, key=lambda n: scores[n][place]) for place in range(len(candidates[0]))]


def best_of_n_kl(n: int) -> float:
    """KL divergence in nats of best-of-n sampling from the policy that it samples from, where scores are never equal.

    An upper bound where they may be (Beirami et al. 2024, arXiv:2401.01879).
    """
    return math.log(n) - (n - 1) / n
