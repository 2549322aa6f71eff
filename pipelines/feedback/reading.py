"""Labels from any file that holds some: the label store, our tasks file, Label Studio's exports, Argilla's records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.data.sources.json_file import json_rows
from pipelines.data.sources.record import Record, StrictDecoder, checked
from pipelines.disk import is_sqlite
from pipelines.errors import DataError
from pipelines.feedback.exchange import argilla, label_studio
from pipelines.feedback.exchange.gather import Gathered, Reading
from pipelines.feedback.tasks_file import is_tasks_file, read_tasks
from pipelines.feedback.types import LabelSet

ACCEPTED = (
    "a label store of `rlhf label`, a tasks file, an export of Label Studio (JSON or JSON_MIN), "
    "or records of Argilla (to_list as JSON, or the server's)"
)
_Reader = Callable[[Mapping[str, Any], str, Gathered], None]


def read_labels(path: Path, reading: Reading | None = None) -> LabelSet:
    """Read questions, tasks and labels; what kind of file it is, its content tells.

    Args:
        path: the file.
        reading: how files of other programs are to be read; None: as they are.

    Raises:
        DataError: there is no such file, it is none of these kinds, or a record of it is not what it should be; with
            file and record.
    """
    try:
        if is_sqlite(path):
            from pipelines.feedback.store import LabelStore

            with LabelStore.open(path) as store:
                return store.snapshot()
        with path.open("rb") as file:
            return _of_text(path, file, reading or Reading())
    except OSError as error:
        raise DataError(f"the labels cannot be read: {error.strerror or error}", where=str(path)) from error


def _of_text(path: Path, file: BinaryIO, reading: Reading) -> LabelSet:
    records = _records(path, file)
    first = next(records, None)
    if first is None:
        raise DataError("the file holds nothing", where=str(path), hint=f"a file of labels is {ACCEPTED}")
    if first.fault is None and is_tasks_file(first.row):
        return read_tasks(path)
    found = Gathered(reading)
    reader: _Reader | None = None
    for record in chain([first], records):
        if record.fault is not None:
            raise DataError(str(record.fault), where=record.place)
        reader = reader or _reader(record)
        if _reader(record) is not reader:
            raise DataError("the record is of another kind than the first one", where=record.place)
        try:
            reader(record.row, record.place, found)
        except ValueError as error:
            raise DataError(str(error), where=record.place) from error
    return found.finish(str(path))


def _reader(record: Record) -> _Reader:
    if label_studio.is_task(record.row):
        return label_studio.read_task
    if argilla.is_record(record.row):
        return argilla.read_record
    if label_studio.is_minimal(record.row):
        return label_studio.read_minimal
    raise DataError(
        f"this is no file of labels; the first record has {', '.join(list(record.row)[:12]) or 'nothing'}",
        where=record.place,
        hint=f"a file of labels is {ACCEPTED}",
    )


def _records(path: Path, file: BinaryIO) -> Iterator[Record]:
    """The objects of an array, of lines, or of the list `items` of the one object that the server answers with."""
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
            yield Record(f"{path}:items {number}", "", *checked("", item, []))
        return
    yield first
    yield from rows


def _whole(path: Path, file: BinaryIO) -> Record | None:
    """One object that goes over several lines; None: the file is something else."""
    decoder = StrictDecoder()
    try:
        text = file.read().decode("utf-8-sig")
        value = decoder.decode(text)
    except (ValueError, RecursionError):
        return None
    return Record(f"{path}:row 1", text, *checked("", value, decoder.duplicates)) if isinstance(value, dict) else None
