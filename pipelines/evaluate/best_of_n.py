"""Best-of-n sampling, the simplest rival of PPO: of n answers of the baseline the one that PPO's reward prefers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.report.bootstrap import estimate
from pipelines.scorers import Completion


@dataclass(frozen=True)
class Candidates:
    """Answers of the baseline to choose from.

    Attributes:
        answers: [n, prompts] answers.
        scores: [n, prompts] their scores by PPO's reward.
    """

    answers: Sequence[Sequence[Completion]]
    scores: Sequence[Sequence[float]]

    def best(self) -> list[Completion]:
        """Return for each prompt the answer with the highest score, the first of equal ones."""
        numbers, places = range(len(self.answers)), range(len(self.answers[0]))
        return [self.answers[max(numbers, key=lambda n: self.scores[n][place])][place] for place in places]

    def curve(self, judged: Mapping[str, Sequence[Sequence[float]]], samples: int) -> dict[str, Any]:
        """Estimate what the best of 1, 2, 4 ... answers is worth, all from the same candidates.

        Of N candidates every subset of n is one draw of best-of-n; the mean over all of them is an unbiased estimate of
        far less variance than one draw. The candidate of the i-th lowest score is the best of C(i - 1, n - 1) of the
        C(N, n) subsets (Nakano et al. 2021, arXiv:2112.09332, appendix I).

        Args:
            judged: by the name of a judge [n, prompts] its scores of the candidates.
            samples: number of bootstrap samples.

        Returns:
            ``prompts``, their number, and ``points``, one an n: ``n``; ``kl`` in nats, see `best_of_n_kl`; the
            ``optimized`` and ``judged`` means with their 95 % intervals by prompt.
        """
        drawn, places = len(self.answers), range(len(self.answers[0]))
        ranked = [sorted(range(drawn), key=lambda n: self.scores[n][place]) for place in places]

        def mean(scores: Sequence[Sequence[float]], size: int) -> dict[str, Any]:
            shares = [math.comb(rank, size - 1) / math.comb(drawn, size) for rank in range(drawn)]
            by_prompt = [
                sum(share * scores[n][place] for share, n in zip(shares, ranked[place], strict=True))
                for place in places
            ]
            return estimate(by_prompt, samples).as_dict()

        points = [
            {
                "n": size,
                "kl": {"value": best_of_n_kl(size)},
                "optimized": mean(self.scores, size),
                "judged": {name: mean(scores, size) for name, scores in judged.items()},
            }
            for size in sizes(drawn)
        ]
        return {"prompts": len(places), "points": points}


def named_candidates(answers: Sequence[Sequence[Completion]]) -> dict[str, Sequence[Completion]]:
    """Return [n, prompts] answers under n names, as scorers take them."""
    return {f"bon {number}": completions for number, completions in enumerate(answers)}


def sizes(most: int) -> list[int]:
    """Return 1, 2, 4 ... and `most`."""
    return [*(2**power for power in range((most - 1).bit_length())), most]


def best_of_n_kl(n: int) -> float:
    """KL divergence in nats of best-of-n sampling from the policy that it samples from, where scores are never equal.

    An upper bound where they may be (Beirami et al. 2024, arXiv:2401.01879).
    """
    return math.log(n) - (n - 1) / n
