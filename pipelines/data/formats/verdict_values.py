"""Verdicts as rows hold them: numbers and their scales, objects of annotators, scores; one or several as an opinion."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from pipelines.data.formats.answer_columns import (
    SIGNED,
    AnswerColumns,
    answer_columns,
    is_one_hot,
    is_rank,
    plain_name,
)
from pipelines.data.formats.unread_columns import is_set, naming
from pipelines.errors import DataError
from pipelines.report.statistics import ranks

Scale = Literal["from_0", "from_1", "from_1_or_tie", "first_better", "strength"]
"""The numbers of verdicts: the place of the better answer counted from 0 or from 1 (and 0 for a tie), 1 for the first
answer and 0 for the second, or a strength that is below 0 where the first answer is better."""
Scales: TypeAlias = Mapping[str, Scale]
"""By column."""
_VALUES = (
    *("score", "strength", "preference", "label", "verdict", "vote", "winner", "choice", "value", "rating"),
    *("overall_preference", "better", "best"),
)
_PEOPLE = ("annotator", "annotator_id", "worker", "worker_id", "rater", "judge", "user", "name", "id")
ITEM_SCORES = ("score", "overall_score", "rating", "pm_score", "reward", "rank")
"""Keys of a score that stands in one object with its answer."""


class Opinion(NamedTuple):
    """One annotator's verdict.

    Attributes:
        annotator: the name; None: not known.
        worth: [K] of each answer, higher is better.
        measured: differences of worth say by how much an answer is better; otherwise they only say which is.
    """

    annotator: str | None
    worth: tuple[float, ...]
    measured: bool


def opinion_by_scores(name: str, scores: Sequence[float | None], who: str | None) -> Opinion:
    """The verdict that scores of the [K] answers give; `name` is that of their column or key.

    Raises:
        DataError: a score is missing.
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        raise DataError("a score is missing, or is not a number", where=name)
    sign = -1 if is_rank(name) or name == "rank" else 1
    return Opinion(who, tuple(sign * score for score in known), measured=not is_one_hot(name))


def worth_of_best(place: int, count: int) -> tuple[float, ...]:
    """[count] 1 for the answer at this place, 0 for the others; at no place (-1) all are tied."""
    return tuple(float(index == place) for index in range(count))


def common_opinion(opinions: Sequence[Opinion]) -> Opinion:
    """Several verdicts as one: the mean of the ranks."""
    if len(opinions) == 1:
        return opinions[0]
    by_place = zip(*(ranks(opinion.worth) for opinion in opinions), strict=True)
    worth = tuple(sum(places) / len(opinions) for places in by_place)
    return Opinion(f"{len(opinions)} annotators", worth, measured=True)


def has_verdict(row: Mapping[str, Any], parts: AnswerColumns) -> bool:
    """Whether somebody has judged the answers: by a verdict, by scores of them or by a score inside each."""
    if parts.verdicts or parts.scores or parts.persons or parts.several or parts.other_verdict is not None:
        return True
    return item_score_key(row, parts) is not None


def item_score_key(row: Mapping[str, Any], parts: AnswerColumns) -> str | None:
    """The key of the score that each answer of a list has."""
    items = row[parts.listed] if parts.listed is not None else []
    if len(items) < 2 or not all(isinstance(item, dict) for item in items):
        return None
    return next((key for key in ITEM_SCORES if all(number_of(item.get(key)) is not None for item in items)), None)


def _judging(row: Mapping[str, Any], parts: AnswerColumns) -> list[tuple[str, Any]]:
    """Every single verdict of a row, with its column."""
    told = [(name, row[name]) for name in (*parts.verdicts, *parts.persons)]
    told += [(name, value) for name in parts.several for _, value in single_verdicts(row[name])]
    return [(name, person_and_verdict(value)[1] if isinstance(value, dict) else value) for name, value in told]


def single_verdicts(value: Any) -> list[tuple[str | None, Any]]:
    """The verdicts of a list, or of an object by annotator."""
    if isinstance(value, dict):
        return [(str(who), verdict) for who, verdict in value.items()]
    return [(None, verdict) for verdict in value]


def person_and_verdict(value: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The annotator and the verdict in an object."""
    who = next((value[key] for key in _PEOPLE if is_set(value.get(key)) and type(value[key]) in (str, int)), None)
    return None if who is None else str(who), next((value[key] for key in _VALUES if key in value), None)


def number_of(value: Any) -> float | None:
    """A number, or a text that is one."""
    if isinstance(value, str) and not re.fullmatch(r"\s*[-+]?\d+(\.\d+)?\s*", value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def scales_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Scale]:
    """Return the scale of each column with numbers among its verdicts; those of which nothing tells it are left out."""
    numbers: dict[str, set[float]] = {}
    first: dict[str, tuple[Mapping[str, Any], AnswerColumns]] = {}
    for row in rows:
        parts = answer_columns(row)
        for name, value in _judging(row, parts) if parts is not None else ():
            number = number_of(value)
            if number is not None and parts is not None:
                numbers.setdefault(name, set()).add(number)
                first.setdefault(name, (row, parts))
    scales = {name: _scale(name, some, *first[name]) for name, some in numbers.items()}
    return {name: scale for name, scale in scales.items() if scale is not None}


def _scale(name: str, numbers: set[float], row: Mapping[str, Any], parts: AnswerColumns) -> Scale | None:
    """The scale of the numbers in a column, by the names of the answers and the numbers; None: nothing tells it."""
    known = _known_scale(name, parts)
    if known is not None:
        return known
    if min(numbers) < 0 or any(isinstance(value, bool) for column, value in _judging(row, parts) if column == name):
        return None
    count = len(row[parts.listed]) if parts.listed is not None else len(parts.answers)
    beyond = max(numbers) > count - 1  # counted from 0, there is no such answer
    if parts.numbered_from == 0:
        return None if beyond and 0 not in numbers else "from_0"
    if parts.numbered_from == 1:
        # with a 0 and without the last number, they may count from 0 in spite of the names
        return "from_1_or_tie" if beyond else "from_1" if min(numbers) >= 1 else None
    return "from_1" if beyond and min(numbers) >= 1 else None


def _known_scale(name: str, parts: AnswerColumns) -> Scale | None:
    """The scale that a column has by its name alone, beside answers of these names."""
    usual, answers = plain_name(name), tuple(plain_name(answer) for answer in parts.answers)
    if usual == "labels" and answers == ("human_ref_a", "human_ref_b"):  # SHP
        return "first_better"
    if usual in SIGNED:
        return "strength"
    if usual == "choice" and parts.listed == "summaries":  # OpenAI's summaries
        return "from_0"
    alpaca_eval = usual == "preference" and answers == ("output_1", "output_2")
    if parts.numbered_from == 1 and (alpaca_eval or name in parts.persons):  # PandaLM
        return "from_1_or_tie"
    return None


def place_by_number(number: float, scale: Scale | None, count: int) -> int | None:
    """The place of the answer that a number means; -1: a tie; None: it means neither.

    Between the numbers of two answers, the nearer one counts, and the middle is a tie, as in alpaca_eval.
    """
    if scale == "first_better":
        return 1 - int(number) if number in (0, 1) and count == 2 else None
    if scale is None or scale == "strength":
        return None
    first = 0 if scale == "from_0" else 1
    if number == 0 and scale == "from_1_or_tie":
        return -1
    place = number - first
    if place == int(place):
        return int(place) if 0 <= place < count else None
    if count == 2 and 0 < place < 1:
        return -1 if place == 0.5 else round(place)
    return None


def no_such_place(name: str, told: str, scale: Scale | None, count: int) -> DataError:
    """The fault of a number that names no answer."""
    way = f"tell it by `--verdicts {told}=1` (the number of the answer, counted from 1; 0 is a tie)"
    if scale is not None:
        return DataError(f"is none of the {count} answers", where=name, hint=f"found {told}; {way}")
    signed = f", or by {naming(f'strength={name}')} where numbers below 0 prefer the first" if told[0] == "-" else ""
    return DataError("does not say which answer it means", where=name, hint=f"found {told}; {way}{signed}")
