"""Rows of public preference data, several answers with verdicts, as tasks and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.data.formats.verdict import TwoAnswers
from pipelines.data.rows import check_dialogue
from pipelines.labels.exchange.foreign_task import ForeignTask, UnusableTask
from pipelines.labels.exchange.gather import LabelCollection
from pipelines.labels.exchange.verdicts import Verdict
from pipelines.labels.label_types import Answer, Task

QUESTION = "overall"


def is_judged_row(row: Mapping[str, Any]) -> bool:
    """Whether the row has answers and a verdict on them."""
    return TwoAnswers.likeness(row) == 0


def read_judged_row(row: Mapping[str, Any], place: str, collection: LabelCollection) -> None:
    """Add the task of a row, and a label of every annotator.

    Raises:
        UnusableTask: the prompt or an answer is missing or blank.
        ValueError: a verdict does not say which answer it means.
    """
    renamed = {own: row[theirs] for own, theirs in collection.reading.columns.items() if theirs in row}
    layout = TwoAnswers.settled((), collection.reading.choices)
    try:
        judged = layout.judged({**row, **renamed})  # type: ignore[attr-defined]
        check_dialogue(judged.prompt)
    except ValueError as error:
        if "--verdicts" in str(error) or "verdict" in str(error):
            raise ValueError(str(error).replace("--verdicts", "--value")) from error
        raise UnusableTask(str(error)) from error
    task = Task(judged.prompt, tuple(map(Answer, judged.answers)), source=row.get("source"))
    size = len(judged.answers)
    foreign = collection.add_task(ForeignTask(task, tuple(map(str, range(1, size + 1))), tuple(range(size))))
    for opinion in judged.opinions:
        levels = sorted(set(opinion.scores), reverse=True)
        verdict = Verdict(foreign, opinion.annotator or collection.nobody(foreign), place, collection.notes)
        ranks = tuple(levels.index(score) + 1 for score in opinion.scores)
        verdict.values[QUESTION] = ("pairwise" if size == 2 else "ranking", ranks)
        collection.verdicts.append(verdict)
