"""Labels from any file (label store, tasks file, export of another program, rows with verdicts), and its summary."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

from pipelines.config.data_section import Source
from pipelines.data.canonical import prompt_of
from pipelines.data.formats.verdict import TwoAnswers
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison
from pipelines.data.sources.files import COLUMNAR, READERS, ending, open_text
from pipelines.data.sources.json_files import json_rows
from pipelines.data.sources.record import Record, StrictDecoder, json_record
from pipelines.errors import ArtifactError, DataError
from pipelines.labels.exchange import argilla, label_studio
from pipelines.labels.exchange.foreign_task import ForeignTask, UnusableTask
from pipelines.labels.exchange.gather import LabelCollection, ReadingOptions
from pipelines.labels.exchange.verdicts import Verdict
from pipelines.labels.label_types import Answer, Label, LabelSet, Task, is_unknown, question_dict
from pipelines.labels.tasks_file import TASKS, is_tasks_file, read_tasks
from pipelines.run.directory import RunDir, split_round
from pipelines.run.disk import is_sqlite


def labels_file(run: RunDir) -> Path:
    """Return the file of a run's labels: the store while a round waits for people, else that of the newest round.

    Raises:
        ArtifactError: there are none yet.
    """
    published, store = run.newest("labels") / TASKS, run.label_store
    waits = any(split_round(stage)[0] == "labels" for stage in run.waiting())
    for path in (store, published) if waits else (published, store):
        if path.is_file():
            return path
    raise ArtifactError(
        "this run has no labels yet",
        where=str(run.root),
        hint=f"`rlhf label --run-dir {run.root}` opens the label page; or name a file of labels",
    )


_SHOWN = 12


def summary(collection: LabelSet) -> dict[str, Any]:
    """Return the questions, and the numbers of tasks, labels and notes; a skipped task does not count as a label."""
    counts = [len(task.answers) for task in collection.tasks.values()]
    by_annotator: dict[str, list[Label]] = {}
    for label in collection.labels:
        if not is_unknown(label.annotator):
            by_annotator.setdefault(label.annotator, []).append(label)
    return {
        "questions": [question_dict(question) for question in collection.questions],
        "tasks": len(collection.tasks),
        "controls": sum(task.control is not None for task in collection.tasks.values()),
        "answers": [min(counts, default=0), max(counts, default=0)],
        "labels": sum(not label.skipped for label in collection.labels),
        "skipped": sum(label.skipped for label in collection.labels),
        "simulated": sum(label.simulated for label in collection.labels),
        "tasks_with_labels": len({label.task for label in collection.labels if not label.skipped}),
        "of_unknown_annotators": sum(is_unknown(label.annotator) for label in collection.labels),
        "annotators": {name: _of_one(labels) for name, labels in by_annotator.items()},
        "notes": collection.notes,
    }


def _of_one(labels: Sequence[Label]) -> dict[str, Any]:
    seconds = [label.seconds for label in labels if label.seconds is not None]
    return {
        "labels": sum(not label.skipped for label in labels),
        "skipped": sum(label.skipped for label in labels),
        "flagged": sum(label.flagged for label in labels),
        "comments": sum(bool(label.comment) for label in labels),
        "median_seconds": median(seconds) if seconds else None,
    }


def lines(told: dict[str, Any]) -> list[str]:
    """Return a summary as lines of text."""
    asked = [_question(question) for question in told["questions"]]
    low, high = told["answers"]
    answers = f"{low} answers each" if low == high else f"{low} to {high} answers each"
    controls = f", {told['controls']} of them controls" if told["controls"] else ""
    notes = counted("of note", told["notes"])
    nothing = (
        "none: the label page will ask for a ranking (of two answers: the better one), or for what --question says"
    )
    text = [f"  questions   {'; '.join(asked) or nothing}", f"  tasks       {told['tasks']}{controls}, {answers}"]
    if not told["labels"] and not told["skipped"]:
        return [*text, "  labels      none yet: `rlhf label FILE` opens the label page", *notes]
    text.append(
        f"  labels      {told['labels']} of {told['tasks_with_labels']} tasks, by {len(told['annotators'])} annotators"
        + (f"; {told['skipped']} skipped" if told["skipped"] else "")
        + (f"; {told['simulated']} of them simulated" if told["simulated"] else "")
    )
    if told["of_unknown_annotators"]:
        text.append(f"    of annotators without a name: {told['of_unknown_annotators']}")
    everybody = list(told["annotators"].items())
    for name, one in everybody[:_SHOWN]:
        beside = [f"{one[key]} {key}" for key in ("skipped", "flagged") if one[key]]
        beside += [f"{one['comments']} with a comment"] if one["comments"] else []
        beside += [f"{one['median_seconds']:.1f} s at the median"] if one["median_seconds"] is not None else []
        text.append(f"    {name}: {', '.join([str(one['labels']), *beside])}")
    if len(everybody) > _SHOWN:
        text.append(f"    and {len(everybody) - _SHOWN} more")
    return text + notes


def counted(head: str, notes: dict[str, int]) -> list[str]:
    """Return the head and a line for each count; empty: there are none."""
    return [f"  {head}", *(f"    {count} x {words}" for words, count in notes.items())] if notes else []


def _question(question: dict[str, Any]) -> str:
    points = f" from 1 to {question['points']}" if question["kind"] == "scale" else ""
    return f"{question['name']} ({question['kind']}{points})"


ACCEPTED = (
    "a label store of `rlhf label`, a tasks file, an export of Label Studio (JSON, JSON_MIN or CSV), "
    "records of Argilla (to_list as JSON, or the server's), or rows of several answers with a verdict"
)
_Reader = Callable[[Mapping[str, Any], str, LabelCollection], None]


def read_labels(path: Path, reading: ReadingOptions | None = None) -> LabelSet:
    """Read questions, tasks and labels from a file, whose kind its content tells.

    Raises:
        DataError: the file cannot be read, is of no known kind, or has an invalid record.
    """
    try:
        if is_sqlite(path):
            from pipelines.labels.store.store import LabelStore

            with LabelStore.open(path) as store:
                return store.snapshot()
    except OSError as error:
        raise DataError(f"the labels cannot be read: {error.strerror or error}", where=str(path)) from error
    reading = reading or ReadingOptions()
    if ending(path) in COLUMNAR:
        return read_judged_rows(path, reading)
    with open_text(path) as file:
        label_set = _of_text(path, file, reading)
    return label_set if label_set is not None else read_judged_rows(path, reading)


def _of_text(path: Path, file: BinaryIO, reading: ReadingOptions) -> LabelSet | None:
    """Read a tasks file, or one of a program for labels; None: the file holds rows of data with verdicts."""
    records = _records(path, file)
    first = next(records, None)
    if first is None:
        raise DataError("the file holds nothing", where=str(path), hint=f"a file of labels is {ACCEPTED}")
    if first.any_fault is None and is_tasks_file(first.row):
        return read_tasks(path)
    if first.any_fault is None and _known_reader(first.row) is None and is_judged_row(first.row, reading.columns):
        return None
    collection = LabelCollection(reading)
    reader: _Reader | None = None
    for record in chain([first], records):
        if record.any_fault is not None:
            raise DataError(str(record.any_fault), where=record.place)
        reader = reader or _reader(record)
        if _reader(record) is not reader:
            raise DataError("the record is of another kind than the first one", where=record.place)
        try:
            reader(record.row, record.place, collection)
        except UnusableTask as error:
            collection.leave_out(str(error), record.place)
        except ValueError as error:
            raise DataError(str(error), where=record.place) from error
    return collection.finish(str(path))


def _reader(record: Record) -> _Reader:
    reader = _known_reader(record.row)
    if reader is not None:
        return reader
    raise DataError(
        f"this is no file of labels; the first record has {', '.join(list(record.row)[:12]) or 'nothing'}",
        where=record.place,
        hint=f"a file of labels is {ACCEPTED}",
    )


def _known_reader(row: Mapping[str, Any]) -> _Reader | None:
    if label_studio.is_task(row):
        return label_studio.read_task
    if argilla.is_record(row):
        return argilla.read_record
    return label_studio.read_minimal if label_studio.is_minimal(row) else None


def _records(path: Path, file: BinaryIO) -> Iterator[Record]:
    """Yield rows of a table, or objects of an array, of lines, or of the list `items` in a server's response."""
    if ending(path) in (".csv", ".tsv"):
        yield from map(_of_cells, READERS[ending(path)](file, str(path)))
        return
    rows = json_rows(file, str(path))
    try:
        first = next(rows, None)
    except DataError:
        file.seek(0)
        first = _whole(path, file)
        if first is None:
            raise
        rows = iter(())
    if first is None:
        return
    items = first.row.get("items")
    if isinstance(items, list) and not {"data", "fields"} & first.row.keys() and "annotation_id" not in first.row:
        for number, item in enumerate(items, 1):
            yield json_record(f"{path}:items {number}", "", item, [])
        return
    yield first
    yield from rows


def _whole(path: Path, file: BinaryIO) -> Record | None:
    """Read the file as one object over several lines; None: it is something else."""
    decoder = StrictDecoder()
    try:
        text = file.read().decode("utf-8-sig")
        value = decoder.decode(text)
    except (ValueError, RecursionError):
        return None
    return json_record(f"{path}:row 1", "", value, decoder.duplicates) if isinstance(value, dict) else None


def _of_cells(record: Record) -> Record:
    """A row of Label Studio's CSV export as JSON_MIN has it: lists and objects are written into the cells."""
    row: dict[str, Any] = {name: _value(cell) for name, cell in record.row.items() if cell}
    with contextlib.suppress(ValueError):  # of a cell that is no number, the reader says what it must be
        row |= {"lead_time": float(row["lead_time"])} if "lead_time" in row else {}
    return record._replace(row=row)


def _value(cell: str) -> Any:
    """The list or object of a cell, in JSON or as Python prints it; any other cell is text."""
    if not cell.startswith(("[", "{")):
        return cell
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return cell


QUESTION = "overall"
COLUMNS = ("verdict", "verdicts", "strength", "annotator", "source")
"""Columns that may have another name, beside those of all files of labels."""
GRADED = "verdicts with a score or a strength (read as which answer is better)"


def is_judged_row(row: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    """Whether the row, its columns renamed to ours, has answers and a verdict on them."""
    return TwoAnswers.likeness({**row, **{ours: row[theirs] for ours, theirs in columns.items() if theirs in row}}) > 0


def read_judged_rows(path: Path, reading: ReadingOptions) -> LabelSet:
    """Read a task of each row, and a label of each annotator, or the one of the row.

    A row that nobody could train on, or that nobody has judged, is left out and counted.

    Raises:
        DataError: the file cannot be read, a verdict does not say which answer it means, or no row is left.
        UsageError: there is no such column.
    """
    collection = LabelCollection(reading)
    source = Source(
        path=str(path), format=TwoAnswers.name, columns=dict(reading.columns), verdicts=dict(reading.choices)
    )
    for outcome in SourceReader(source, Comparison):
        place, row = outcome.record.place, outcome.fitted
        if outcome.fault is not None and outcome.fault.field:
            told = str(outcome.fault).replace("`--verdicts", f"`rlhf labels convert {path.name} --to tasks --value")
            raise DataError(told, where=place)
        if not isinstance(row, TwoAnswers):
            collection.leave_out(str(outcome.fault), place)
            continue
        _, answers = row.task()
        texts = tuple(Answer(answer.text, answer.model) for answer in answers)
        # nothing tells in which order the annotators saw the answers
        foreign = ForeignTask(
            Task(prompt_of(*row.prompts()), texts, source=row.source), tuple(map(str, range(1, len(texts) + 1))), ()
        )
        foreign = collection.add_task(foreign)
        for opinion in row.opinions(answers):
            collection.notes[GRADED] += opinion.measured
            levels = sorted(set(opinion.worth), reverse=True)
            verdict = Verdict(foreign, opinion.annotator or collection.nobody(foreign), place, collection.notes)
            ranks = tuple(levels.index(worth) + 1 for worth in opinion.worth)
            verdict.values[QUESTION] = ("pairwise" if len(texts) == 2 else "ranking", ranks)
            collection.verdicts.append(verdict)
    return collection.finish(str(path))
