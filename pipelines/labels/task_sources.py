"""Tasks for `rlhf label`, and control tasks with known answers, from a tasks file or from rows of any format."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.config.data_section import OnBadRow, Source
from pipelines.data.canonical import prompt_of, to_kind
from pipelines.data.read import good_rows
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Prompt
from pipelines.data.sources.files import open_text
from pipelines.errors import DataError
from pipelines.labels.label_types import Answer, Kind, LabelSet, Question, Task, task_id
from pipelines.labels.questions import default_question, in_short
from pipelines.labels.store.coding import check_task
from pipelines.labels.tasks_file import is_tasks_file, read_controls, read_tasks
from pipelines.run.reporting import Reporter, SilentReporter


def open_source(
    source: Source, *, seed: int = 0, on_bad_row: OnBadRow = "fail", reporter: Reporter | None = None
) -> LabelSet:
    """The tasks that a file holds, and what to ask about them: its own questions, else one that suits the tasks.

    A comparison becomes a task of two answers in an order that does not tell which one is chosen, a judgement a task
    of one answer, a prompt one that is to be answered, a demonstration one whose answer is to be edited.

    `seed` decides the order of the answers; `on_bad_row`: drop leaves out rows that are bad or give no task, with a
    warning.

    Raises:
        DataError: the file cannot be read, a row is bad, or there is none.
        UsageError: the source names an unknown format or column.
    """
    path = Path(source.path)
    if holds_tasks(path):
        label_set = read_tasks(path)
    else:
        label_set = _of_rows(source, seed, on_bad_row, reporter or SilentReporter())
    if not label_set.tasks:
        raise DataError("the file holds no task", where=source.path)
    if not label_set.questions:
        label_set.questions = (_suiting({len(task.answers) for task in label_set.tasks.values()}),)
    return label_set


def comparison_task(row: Comparison, seed: int) -> Task:
    """The two answers of a comparison as a task, in an order that does not tell which one is chosen."""
    texts = sorted((row.chosen, row.rejected))
    # by its own text, so that the order of one task does not hang on the rows before it
    random.Random(f"{seed}\n{texts[0]}\n{texts[1]}").shuffle(texts)
    return Task(row.prompt, tuple(Answer(text) for text in texts), source=row.source)


def _of_rows(source: Source, seed: int, on_bad_row: OnBadRow, reporter: Reporter) -> LabelSet:
    label_set = LabelSet((), {}, [])

    def take(row: CanonicalRow, place: str) -> None:
        task = _task(row, seed, place)
        label_set.tasks.setdefault(task.id, task)
        if isinstance(row, Demonstration):  # its one answer is a draft, not something to judge
            label_set.questions = (_suiting({0}),)

    for _ in good_rows(source, None, reporter, take, on_bad_row=on_bad_row):
        pass
    return label_set


def _task(row: CanonicalRow, seed: int, place: str) -> Task:
    if isinstance(row, Comparison):
        return comparison_task(row, seed)
    if isinstance(row, Judgement):
        return Task(row.prompt, (Answer(row.completion),), source=row.source)
    if isinstance(row, Demonstration) and row.text is None:
        prompt, answers = prompt_of(row), row.messages[len(prompt_of(row)) :]
        if len(answers) > 1 or answers[0].tool_calls:
            raise DataError("a dialogue whose last answer has tool calls cannot be edited here", where=place)
        return Task(prompt, (Answer(answers[0].content),))
    try:
        return Task(to_kind(row, Prompt).prompt, ())
    except DataError as error:
        raise DataError(error.message, where=place, hint=error.hint) from error


def _suiting(sizes: set[int]) -> Question:
    """The question for tasks that bring none, by the numbers of answers that they have."""
    kind: Kind
    if 0 in sizes:
        kind = "demonstration"
    elif sizes == {1}:
        kind = "binary"
    else:
        kind = "pairwise" if sizes == {2} else "ranking"
    return default_question("overall", kind)


def holds_tasks(path: Path) -> bool:
    """Whether the first line of a file is the header of a tasks file."""
    try:
        with open_text(path) as file:
            first = json.loads(file.readline(100_000).decode("utf-8-sig"))
    except (DataError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and is_tasks_file(first)


_COMPARING = ("ranking", "pairwise")


def control_tasks(path: Path, questions: Sequence[Question], *, seed: int = 0) -> list[Task]:
    """The control tasks that a file holds, or that its rows make.

    Of a tasks file they are the tasks with a `control`; the others are left out. A comparison becomes a task of two
    answers, in an order that `seed` and the task decide: every ranking or pairwise question has the chosen answer
    first. A judgement becomes a task of one answer: a label that is true or false answers the binary questions, a
    number the scales or, where there is none, the binary questions as 0 or 1.

    Raises:
        DataError: the file cannot be read, a row is bad, or what it knows does not answer the questions; with place.
    """
    tasks: dict[str, Task] = {}
    for place, source in (
        _controls_of_tasks(path, questions) if holds_tasks(path) else _controls_of_rows(path, questions, seed)
    ):
        # another id than an ordinary task of the same answers has, and one that does not show what it is
        known_by = task_id(source.prompt, [answer.text for answer in source.answers])
        own_id = hashlib.sha256(f"control\n{known_by}".encode()).hexdigest()[:16]
        task = Task(source.prompt, source.answers, source.control, "control", own_id)
        try:
            check_task(task, tuple(questions))
        except DataError as error:
            raise DataError(error.message, where=place, hint=f"what is asked: {in_short(questions)}") from error
        if tasks.setdefault(task.id, task).control != task.control:
            raise DataError("the same task stood there before, with another known answer", where=place)
    if not tasks:
        raise DataError(
            "the file of controls holds none",
            where=str(path),
            hint='a control of a tasks file has what is known of its answers: "control": {"overall": [2, 1, 3]}',
        )
    return list(tasks.values())


def _controls_of_tasks(path: Path, questions: Sequence[Question]) -> Iterator[tuple[str, Task]]:
    there, controls = read_controls(path)
    asked = {question.name: question for question in questions}
    for one in there:
        if one.name in asked and _meaning(one) != _meaning(asked[one.name]):
            raise DataError(
                f"the file asks {in_short([one])}, another thing than is asked now: {in_short([asked[one.name]])}",
                where=f"{path}:1",
                hint="the numbers of a control would mean something else; give controls for the question as it is now",
            )
    yield from controls


def _meaning(question: Question) -> tuple[str, int]:
    """Return the fields by which two questions of the same name give a number the same meaning."""
    return ("ranking", 0) if question.kind in _COMPARING else (question.kind, question.points)


def _controls_of_rows(path: Path, questions: Sequence[Question], seed: int) -> Iterator[tuple[str, Task]]:
    def with_place(row: CanonicalRow, place: str) -> tuple[str, Task]:
        return place, _control(row, questions, seed, place)

    yield from good_rows(Source(path=str(path)), None, SilentReporter(), with_place)


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
            hint="controls are comparisons (chosen is the better one), judgements (a completion and its label) or the "
            "tasks with a `control` of a tasks file",
        )
    if not known:
        raise DataError(
            f"this {type(row).__name__.lower()} answers none of the questions: {in_short(questions)}",
            where=place,
            hint="a comparison answers ranking and pairwise questions, a judgement binary ones and scales",
        )
    return Task(task.prompt, task.answers, known)


def _judged(row: Judgement, question: Question, place: str) -> tuple[int, ...]:
    value = (int(row.label),)
    fault = question.fault(value, 1) if float(row.label).is_integer() else "it must be a whole number"
    if fault:
        raise DataError(f"the label {row.label} does not answer `{question.name}`: {fault}", where=place)
    return value
