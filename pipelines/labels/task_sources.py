"""Tasks for `rlhf label`, from a tasks file or from rows of any accepted format."""

from __future__ import annotations

import json
import random
from pathlib import Path

from pipelines.config.data_section import OnBadRow, Source
from pipelines.data.canonical import prompt_of, to_kind
from pipelines.data.read import good_rows
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Prompt
from pipelines.data.sources.files import open_text
from pipelines.errors import DataError
from pipelines.labels.label_types import Answer, Kind, LabelSet, Question, Task
from pipelines.labels.questions import default_question
from pipelines.labels.tasks_file import is_tasks_file, read_tasks
from pipelines.run.reporting import Reporter, SilentReporter


def open_source(
    source: Source, *, seed: int = 0, on_bad_row: OnBadRow = "fail", reporter: Reporter | None = None
) -> LabelSet:
    """The tasks that a file holds, and what to ask about them: its own questions, else one that suits the tasks.

    A comparison becomes a task of two answers in an order that does not tell which one is chosen, a judgement a task
    of one answer, a prompt one that is to be answered, a demonstration one whose answer is to be edited.

    Args:
        source: of a tasks file, or of rows.
        seed: of the order of the answers.
        on_bad_row: drop leaves out rows that are bad or give no task.
        reporter: warns of these.

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
