"""Several scorers as one: a weighted sum, or the careful mean of an ensemble. Every part is reported too."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipelines.scorers.protocol import Completion, Dialogue, Progress, Scorer, ScorerWithParts, counts_of

Combine = Callable[[Sequence[float]], float]
"""Combines the scores of one answer, one a part, to its score."""
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Part:
    """A scorer in a combination, with the mean and deviation that bring its scores to unit scale."""

    scorer: Scorer
    mean: float = 0.0
    std: float = 1.0


class CombinedScorer:
    """Scores all rows by every part, and combines the scores row by row."""

    def __init__(self, name: str, parts: Sequence[Part], combine: Combine) -> None:
        self.name = name
        self._parts = parts
        self._combine = combine

    @property
    def truncated(self) -> int:
        """Number of texts so far that were too long for a part and were cut."""
        return sum(getattr(part.scorer, "truncated", 0) for part in self._parts)

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the models among the parts."""
        return sum(getattr(part.scorer, "num_parameters", 0) for part in self._parts)

    @property
    def counts(self) -> dict[str, float]:
        """Counts of the parts so far."""
        return _by_part({part.scorer.name: counts_of(part.scorer) for part in self._parts})

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The combined scores."""
        return self.with_parts(prompts, completions)[0]

    def with_parts(
        self, prompts: Sequence[Dialogue], completions: Sequence[Completion]
    ) -> tuple[list[float], dict[str, list[float]]]:
        """The combined scores, and those of the parts: at unit scale where they have one, without weights."""
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
    """The mean minus `deviations` (population) standard deviations between the parts: disagreement lowers the score.

    Coste et al. 2023, "Reward Model Ensembles Help Mitigate Overoptimization", uncertainty-weighted optimization, with
    the deviation instead of the variance.
    """
    return lambda scores: statistics.fmean(scores) - deviations * statistics.pstdev(scores)


def shared(progress: Progress | None, parts: int) -> Progress | None:
    """Progress for `parts` scorers that each score all rows: a row counts once `parts` scores have been made."""
    if progress is None:
        return None
    completed = 0

    def advance(rows: int) -> None:
        nonlocal completed
        before, completed = completed // parts, completed + rows
        if completed // parts > before:
            progress(completed // parts - before)

    return advance


def _by_part(parts: Mapping[str, Mapping[str, _Value]]) -> dict[str, _Value]:
    """Values of each part under ``part/name``."""
    return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
