"""Tasks and their labels on disk: JSON lines, the questions first, then one task a line with the labels it got.

``rlhf sample`` writes it without labels, the labels stage with them; every command of the human loop reads it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.config.data_section import DataSection
from pipelines.data.faults import fault_of
from pipelines.data.rows import Message, as_dict, check_dialogue
from pipelines.data.sources.files import open_text
from pipelines.data.split import is_held_out, prompt_key
from pipelines.errors import ArtifactError, DataError
from pipelines.labels.label_types import Answer, Label, LabelSet, Question, Task, Value, question_dict, values_fault
from pipelines.run.disk import write_atomic

MAGIC = "tasks"
TASKS = "tasks.jsonl"
"""Name of the file in the artifacts of the stages `sample` and `labels`."""


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


_Found = TypeVar("_Found", bound=_Row)


class _Header(_Row):
    rlhf: Literal["tasks"]
    version: Literal[1]
    questions: tuple[Question, ...] = ()


class _LabelRow(_Row):
    annotator: str = Field(min_length=1)
    values: dict[str, Value] = {}
    order: tuple[int, ...] = ()
    seconds: float | None = Field(None, ge=0)
    skipped: bool = False
    flagged: bool = False
    comment: str = ""
    time: str | None = None
    simulated: bool = False


class _TaskRow(_Row):
    id: str = ""
    prompt: tuple[Message, ...] = Field(min_length=1)
    answers: tuple[Answer, ...] = ()
    control: dict[str, tuple[int, ...]] | None = None
    source: str | None = None
    labels: list[_LabelRow] = []


def write_tasks(path: Path, label_set: LabelSet) -> None:
    """Write everything that `label_set` holds, tasks in their order; whole or not at all.

    Raises:
        DiskError: it cannot be written.
    """
    write_atomic(path, "".join(task_lines(label_set)))


def task_lines(label_set: LabelSet) -> Iterator[str]:
    """The lines of the file, each with its end."""
    labels: dict[str, list[Label]] = {}
    for label in label_set.labels:
        labels.setdefault(label.task, []).append(label)
    header = {"rlhf": MAGIC, "version": 1, "questions": [question_dict(question) for question in label_set.questions]}
    rows = (task_dict(task, labels.get(task.id, ())) for task in label_set.tasks.values())
    for row in (header, *rows):
        yield json.dumps(row, ensure_ascii=False) + "\n"


def task_dict(task: Task, labels: Iterable[Label] = ()) -> dict[str, Any]:
    """A task and its labels as plain data; what is unset is left out."""
    plain: dict[str, Any] = {
        "id": task.id,
        "prompt": [as_dict(turn) for turn in task.prompt],
        "answers": [
            {"text": answer.text} | ({"model": answer.model} if answer.model else {}) for answer in task.answers
        ],
    }
    if task.control is not None:
        plain["control"] = {name: list(value) for name, value in task.control.items()}
    if task.source:
        plain["source"] = task.source
    if given_labels := [_label_dict(label) for label in labels]:
        plain["labels"] = given_labels
    return plain


def _label_dict(label: Label) -> dict[str, Any]:
    values = {name: value if isinstance(value, str) else list(value) for name, value in label.values.items()}
    plain: dict[str, Any] = {"annotator": label.annotator, "values": values}
    plain |= {"order": list(label.order)} if label.order else {}
    set_ones = ("seconds", "skipped", "flagged", "comment", "time", "simulated")
    return plain | {key: getattr(label, key) for key in set_ones if getattr(label, key) not in (None, False, "")}


def read_tasks(path: Path) -> LabelSet:
    """Read what `write_tasks` wrote.

    Raises:
        DataError: the file is missing, or a line is not what it should be; with its place.
    """
    lines = _lines(path)
    place, questions = _header(path, lines)
    label_set = LabelSet(questions, {}, [])
    if len({question.name for question in questions}) < len(questions):
        raise DataError("two questions have the same name", where=place)
    for place, line in lines:
        row = _checked(_TaskRow, line, place)
        task = _task(row, place)
        if task.id in label_set.tasks:
            raise DataError(f"the task {task.id} stands there twice", where=place)
        label_set.tasks[task.id] = task
        known = _LabelRow(annotator="control", values=dict(row.control or {}))
        for row_label in (known, *row.labels):
            _check_values(row_label, questions, len(task.answers), place)
        label_set.labels += [Label(task.id, **dict(row_label)) for row_label in row.labels]
        if len({row_label.annotator for row_label in row.labels}) < len(row.labels):
            raise DataError("one annotator has two labels for the same task", where=place)
    return label_set


def read_controls(path: Path) -> tuple[tuple[Question, ...], list[tuple[str, Task]]]:
    """The questions of a file that `write_tasks` wrote, and its control tasks, each with its place.

    Whether the known values answer the questions is not looked at, nor what anybody said of the tasks.

    Raises:
        DataError: the file is missing, or a line is not what it should be; with its place.
    """
    lines = _lines(path)
    _, questions = _header(path, lines)
    rows = ((place, _checked(_TaskRow, line, place)) for place, line in lines)
    return questions, [(place, _task(row, place)) for place, row in rows if row.control is not None]


def is_tasks_file(first: Mapping[str, Any]) -> bool:
    """Whether the first record of a file is the header that `write_tasks` writes."""
    return first.get("rlhf") == MAGIC


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, with its place."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield f"{path}:{number}", line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"the tasks cannot be read: {error}", where=f"{path}:{number}") from error


def _header(path: Path, lines: Iterator[tuple[str, str]]) -> tuple[str, tuple[Question, ...]]:
    """Return the place of the header and its questions."""
    place, line = next(lines, (str(path), "{}"))
    return place, _checked(_Header, line, place).questions


def _task(row: _TaskRow, place: str) -> Task:
    try:
        check_dialogue(row.prompt)
    except ValueError as error:
        raise DataError(f"prompt: {error}", where=place) from error
    return Task(row.prompt, row.answers, row.control, row.source, row.id)


def _check_values(row_label: _LabelRow, questions: Sequence[Question], answers: int, place: str) -> None:
    if fault := values_fault(row_label.values, questions, answers):
        raise DataError(f"labels: {row_label.annotator}'s answers: {fault}", where=place)
    if row_label.order and sorted(row_label.order) != list(range(answers)):
        raise DataError(f"labels: the order {row_label.order} is not one of {answers} answers", where=place)


def _checked(kind: type[_Found], line: str, place: str) -> _Found:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise DataError(str(fault_of(error)), where=place) from error


SIDES = "sides.json"
TRAIN, HELDOUT = "train", "heldout"


def write_sides(directory: Path, tasks: Iterable[Task], heldout: Iterable[tuple[Message, ...]]) -> None:
    """Write the side of every task in the directory of the tasks; one of a prompt among `heldout` is held out.

    Raises:
        DiskError: it cannot be written.
    """
    kept = {prompt_key(prompt) for prompt in heldout}
    _write(directory, {task.id: HELDOUT if prompt_key(task.prompt) in kept else TRAIN for task in tasks})


def copy_sides(source: Path, target: Path) -> None:
    """Copy the sides of `source` to `target`; nothing where they are not known.

    Raises:
        ArtifactError, DiskError: they cannot be read or written.
    """
    if sides := _read(source):
        _write(target, sides)


def heldout_prompts(directory: Path, tasks: Collection[Task], data: DataSection) -> set[int]:
    """The `prompt_key` of every prompt that has a held-out task.

    Where the directory of the tasks does not hold the side of one, its prompt decides by `data` as everywhere else.

    Raises:
        ArtifactError: the sides cannot be read.
    """
    sides = _read(directory)

    def held_out(task: Task) -> bool:
        known = sides.get(task.id)
        return is_held_out(task.prompt, data.eval_fraction, data.split_by) if known is None else known == HELDOUT

    return {prompt_key(task.prompt) for task in filter(held_out, tasks)}


def _write(directory: Path, sides: Mapping[str, str]) -> None:
    write_atomic(directory / SIDES, json.dumps(sides, indent=0) + "\n")


def _read(directory: Path) -> dict[str, str]:
    path = directory / SIDES
    try:
        sides = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the sides of the tasks cannot be read: {error}", where=str(path)) from error
    if not isinstance(sides, dict) or not {*sides.values()} <= {TRAIN, HELDOUT}:
        raise ArtifactError(f"the sides of the tasks are not {TRAIN} or {HELDOUT} each", where=str(path))
    return sides
