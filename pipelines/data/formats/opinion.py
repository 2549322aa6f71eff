"""One annotator's verdict on several answers, and the common verdict of several annotators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from pipelines.data.formats.answer_columns import is_one_hot, is_rank
from pipelines.errors import DataError
from pipelines.report.statistics import ranks

Worth: TypeAlias = tuple[float, ...]
"""[K] of each answer, higher is better."""


class Opinion(NamedTuple):
    """One annotator's verdict.

    Attributes:
        annotator: the name; None: not known.
        worth: [K] of each answer.
        measured: differences of worth say by how much an answer is better; otherwise they only say which is.
    """

    annotator: str | None
    worth: Worth
    measured: bool


def opinion_by_scores(name: str, scores: Sequence[float | None], who: str | None) -> Opinion:
    """The verdict that scores of the answers give.

    Args:
        name: of the column or key with the scores, which says whether they are ranks.
        scores: [K], one of each answer.
        who: the annotator; None: not known.

    Raises:
        DataError: a score is missing.
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        raise DataError("a score is missing, or is not a number", where=name)
    sign = -1 if is_rank(name) or name == "rank" else 1
    return Opinion(who, tuple(sign * score for score in known), measured=not is_one_hot(name))


def worth_of_best(place: int, count: int) -> Worth:
    """[count] 1 for the answer at this place, 0 for the others; at no place (-1) all are tied."""
    return tuple(float(index == place) for index in range(count))


def common_opinion(opinions: Sequence[Opinion]) -> Opinion:
    """Several verdicts as one: the mean of the ranks."""
    if len(opinions) == 1:
        return opinions[0]
    by_place = zip(*(ranks(opinion.worth) for opinion in opinions), strict=True)
    return Opinion(
        f"{len(opinions)} annotators", tuple(sum(places) / len(opinions) for places in by_place), measured=True
    )
