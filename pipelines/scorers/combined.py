"""Several scorers as one: a weighted sum, or the careful mean of an ensemble. Every part stays visible."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipelines.scorers.protocol import Completion, Dialogue, Progress, Scorer, ScorerWithParts, counts_of

Combine = Callable[[Sequence[float]], float]
"""From the scores of one answer, one a part, to its score."""
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Part:
    """A scorer in a combination, and what brings its scores to unit scale before they are combined."""

    scorer: Scorer
    mean: float = 0.0
    std: float = 1.0


class CombinedScorer:
    """Asks every part about all rows and combines the answers row by row.

    Attributes:
        name: what tables call it.
    """

    def __init__(self, name: str, parts: Sequence[Part], combine: Combine) -> None:
        self.name = name
        self._parts = parts
        self._combine = combine

    @property
    def truncated(self) -> int:
        """Texts that were too long for a part and were cut so far."""
        return sum(getattr(part.scorer, "truncated", 0) for part in self._parts)

    @property
    def num_parameters(self) -> int:
        """Of the models among the parts."""
        return sum(getattr(part.scorer, "num_parameters", 0) for part in self._parts)

    @property
    def counts(self) -> dict[str, float]:
        """What the parts counted so far."""
        return _by_part({part.scorer.name: counts_of(part.scorer) for part in self._parts})

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The combined scores."""
        return self.with_parts(prompts, completions)[0]

    def with_parts(
        self, prompts: Sequence[Dialogue], completions: Sequence[Completion]
    ) -> tuple[list[float], dict[str, list[float]]]:
        """The combined scores, and those of the parts: at unit scale where they were brought to it, without weight."""
        own: list[list[float]] = []
        below: dict[str, dict[str, list[float]]] = {}
        for part in self._parts:
            name = part.scorer.name
            if isinstance(part.scorer, ScorerWithParts):
                scores, below[name] = part.scorer.with_parts(prompts, completions)
            else:
                scores = part.scorer(prompts, completions)
            own.append([(score - part.mean) / part.std for score in scores])
        named = {part.scorer.name: scores for part, scores in zip(self._parts, own, strict=True)}
        return [self._combine(row) for row in zip(*own, strict=True)], named | _by_part(below)


def weighted_sum(weights: Sequence[float]) -> Combine:
    """The sum of the scores, each times its weight."""
    return lambda scores: sum(weight * score for weight, score in zip(weights, scores, strict=True))


def careful_mean(deviations: float) -> Combine:
    """The mean less so many standard deviations (population) between the parts: where they disagree, the score drops.

    Coste et al. 2023, "Reward Model Ensembles Help Mitigate Overoptimization", uncertainty-weighted optimization, with
    the deviation in place of the variance.
    """
    return lambda scores: statistics.fmean(scores) - deviations * statistics.pstdev(scores)


def shared(progress: Progress | None, parts: int) -> Progress | None:
    """Progress for `parts` scorers that each go over all rows: a row is told once all of them together did as much."""
    if progress is None:
        return None
    done = 0

    def tell(rows: int) -> None:
        nonlocal done
        before, done = done // parts, done + rows
        if done // parts > before:
            progress(done // parts - before)

    return tell


def _by_part(found: Mapping[str, Mapping[str, _Value]]) -> dict[str, _Value]:
    """``part/name`` for what each part has by name."""
    return {f"{part}/{name}": value for part, values in found.items() for name, value in values.items()}
