"""One row as a file holds it, and the values that no row may hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipelines.data.faults import Fault, type_name

MAX_ROW_SIZE = 10_000_000
MAX_DEPTH = 100

_SURROGATE = re.compile("[\ud800-\udfff]")
_NONE: Mapping[str, Fault] = {}


class Record(NamedTuple):  # made a million times: a frozen dataclass takes three times as long
    """One row as it stands in a file.

    Attributes:
        place: ``path:line``, or ``path:row N`` where a file has no lines.
        text: the row as it was written; in a columnar file, as JSON.
        row: its columns; empty where there is a fault.
        fault: why it could not be read.
        typed: whether the values have types; in a table of text (.csv, .tsv) all of them are text.
        column_faults: the columns that hold what no row may hold, such as NaN; the row is bad if one of them is read.
    """

    place: str
    text: str
    row: dict[str, Any]
    fault: Fault | None = None
    typed: bool = True
    column_faults: Mapping[str, Fault] = _NONE

    @property
    def any_fault(self) -> Fault | None:
        """The fault of the row, or of any column of it, for a reader that knows not which columns count."""
        return self.fault or next(iter(self.column_faults.values()), None)


class StrictDecoder(json.JSONDecoder):
    """Takes note of keys that stand twice in one object, which JSON readers otherwise drop silently."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.duplicates: list[tuple[dict[str, Any], str]] = []
        """Objects with the key that stands twice in them."""

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            keys = [key for key, _ in pairs]
            self.duplicates += [(result, key) for key in result if keys.count(key) > 1]
        return result


def json_record(place: str, text: str, value: Any, duplicates: list[tuple[dict[str, Any], str]]) -> Record:
    """A decoded JSON value as a record; its fault says why it is no row. `duplicates` are the `StrictDecoder`'s."""
    if not isinstance(value, dict):
        detail = 'a row is {"column": value}, a list of turns {"messages": [...]}' if isinstance(value, list) else ""
        return Record(place, text, {}, Fault("", f"must be an object, not {type_name(value)}", detail))
    if len(text) > MAX_ROW_SIZE:
        return Record(place, text, {}, too_long("row"))
    return checked_record(place, text, value, duplicates=duplicates)


def checked_record(
    place: str,
    text: str,
    row: dict[str, Any],
    *,
    typed: bool = True,
    duplicates: list[tuple[dict[str, Any], str]] | None = None,
    column_faults: Mapping[str, Fault] = _NONE,
) -> Record:
    """A row as a record, its values checked column by column; `duplicates` and `column_faults` are known before."""
    for key, value in row.items():
        if type(value) is not str or not value.isascii() or "\0" in value or not key.isascii() or "\0" in key:
            break
    else:  # What most rows are; the walk below takes as long as decoding them.
        if not duplicates and not column_faults:
            return Record(place, text, row, None, typed)
    doubled = {id(holder): key for holder, key in duplicates} if duplicates else {}
    faults: dict[str, Fault] = {}
    for column, value in row.items():
        if reason := _text_fault(column):
            return Record(place, text, {}, Fault("", f"{reason} in a key"), typed)
        fault = column_faults.get(column)
        if fault is None and type(value) is str:  # what most values are
            reason = _text_fault(value)
            fault = Fault(column, reason) if reason else None
        elif fault is None:
            fault = _value_fault(column, value, doubled)
        if doubled and any(holder is row and key == column for holder, key in duplicates or ()):
            fault = Fault(column, "the key stands twice")
        if fault is not None:
            faults[column] = fault
    return Record(place, text, row, None, typed, faults or _NONE)


def _value_fault(column: str, value: Any, doubled: Mapping[int, str]) -> Fault | None:
    """Return the fault of a value that JSON allows and no row may hold. Without recursion, for deeply nested rows."""
    stack: list[tuple[str, Any, int]] = [(column, value, 1)]
    while stack:
        field, value, depth = stack.pop()
        if isinstance(value, str):
            reason = _text_fault(value)
            if reason:
                return Fault(field, reason)
        elif isinstance(value, float):
            if not math.isfinite(value):
                return Fault(field, "NaN or infinity is not a number in JSON", "write null, or leave it out")
        elif isinstance(value, dict | list):
            if depth == MAX_DEPTH:
                return Fault("", "nested too deeply", f"more than {MAX_DEPTH} levels")
            if id(value) in doubled:
                return Fault(doubled[id(value)], "the key stands twice")
            for name, item in _items(field, value):
                reason = _text_fault(name) if isinstance(value, dict) else None
                if reason:
                    return Fault("", f"{reason} in a key")
                stack.append((name, item, depth + 1))
    return None


def _items(field: str, value: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"{field}.{key}", item) for key, item in value.items())
    else:
        yield from ((f"{field}[{index}]", item) for index, item in enumerate(value))


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "NUL character"
    if not text.isascii() and _SURROGATE.search(text):
        return "half a surrogate pair (broken \\u escape)"
    return None


def too_long(what: str) -> Fault:
    """The fault of a line or row over the limit."""
    return Fault("", f"the {what} is longer than {MAX_ROW_SIZE // 1_000_000} MB")


def not_utf8(data: bytes, start: int, offset: int = 0) -> Fault:
    """The fault of bytes that are no text, the first at index `start` of `data`, which lies at `offset` in its file."""
    return Fault("", "not UTF-8", f"byte 0x{data[start]:02x} at offset {offset + start}")
