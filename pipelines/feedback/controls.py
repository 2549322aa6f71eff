"""Control tasks: comparisons and judgements whose answer is known, mixed in to see who pays attention."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pipelines.config.data import Source
from pipelines.data.rows import CanonicalRow, Comparison, Judgement
from pipelines.errors import DataError
from pipelines.feedback.source import comparison_task, good_rows
from pipelines.feedback.types import Answer, Question, Task

_COMPARING = ("ranking", "pairwise")


def control_tasks(path: Path, questions: Sequence[Question], *, seed: int = 0) -> list[Task]:
    """The control tasks that the rows of a file make.

    A comparison becomes a task of two answers, in an order that `seed` and the task decide: every ranking or pairwise
    question has the chosen answer first. A judgement becomes a task of one answer: a label that is true or false
    answers the binary questions, a number the scales or, where there is none, the binary questions as 0 or 1.

    Raises:
        DataError: the file cannot be read, a row is bad, or no question is asked that its rows could answer.
    """
    tasks: dict[str, Task] = {}
    for place, row in good_rows(Source(path=str(path))):
        task = _control(row, questions, seed, place)
        tasks.setdefault(task.id, task)
    if not tasks:
        raise DataError("the file of controls holds no row", where=str(path))
    return list(tasks.values())


def _control(row: CanonicalRow, questions: Sequence[Question], seed: int, place: str) -> Task:
    if isinstance(row, Comparison):
        if row.chosen == row.rejected:
            raise DataError("chosen and rejected are the same text: neither is better", where=place)
        task = comparison_task(row, seed)
        ranks = (1, 2) if task.answers[0].text == row.chosen else (2, 1)
        known: dict[str, tuple[int, ...]] = {one.name: ranks for one in questions if one.kind in _COMPARING}
    elif isinstance(row, Judgement):
        task = Task(row.prompt, (Answer(row.completion),))
        scales = [one for one in questions if one.kind == "scale" and not isinstance(row.label, bool)]
        asked = scales or [one for one in questions if one.kind == "binary"]
        known = {one.name: _judged(row, one, place) for one in asked}
    else:
        raise DataError(
            f"a {type(row).__name__.lower()} does not say which answer is right",
            where=place,
            hint="controls are comparisons (chosen is the better one) or judgements (a completion and its label)",
        )
    if not known:
        names = ", ".join(f"{question.name} ({question.kind})" for question in questions)
        raise DataError(
            f"this {type(row).__name__.lower()} answers none of the questions: {names}",
            where=place,
            hint="a comparison answers ranking and pairwise questions, a judgement binary ones and scales",
        )
    # another id than an ordinary task of the same answers has, and one that does not show what it is
    own_id = hashlib.sha256(f"control\n{task.id}".encode()).hexdigest()[:16]
    return Task(task.prompt, task.answers, known, "control", own_id)


def _judged(row: Judgement, question: Question, place: str) -> tuple[int, ...]:
    value = (int(row.label),)
    fault = question.fault(value, 1) if float(row.label).is_integer() else "it must be a whole number"
    if fault:
        raise DataError(f"the label {row.label} does not answer `{question.name}`: {fault}", where=place)
    return value
