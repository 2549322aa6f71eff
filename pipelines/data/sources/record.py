"""One row as a file holds it, and the values that no row may hold."""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any, NamedTuple

from pipelines.data.faults import Fault, type_name
from pipelines.errors import DataError

MAX_ROW_SIZE = 10_000_000
MAX_DEPTH = 100

_SURROGATE = re.compile("[\ud800-\udfff]")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Record(NamedTuple):  # made a million times: a frozen dataclass takes three times as long
    """One row as it stands in a file.

    Attributes:
        place: ``path:line``, or ``path:row N`` where a file has no lines.
        text: the row as it was written; in a columnar file, as JSON.
        row: its columns; empty where there is a fault.
        fault: why it could not be read.
        typed: whether the values have types; in a table of text (.csv, .tsv) all of them are text.
    """

    place: str
    text: str
    row: dict[str, Any]
    fault: Fault | None = None
    typed: bool = True


class StrictDecoder(json.JSONDecoder):
    """Takes note of keys that stand twice in one object, which JSON readers otherwise drop silently."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.duplicates: list[str] = []

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            keys = [key for key, _ in pairs]
            self.duplicates += [key for key in result if keys.count(key) > 1]
        return result


def checked(text: str, value: Any, duplicates: list[str]) -> tuple[dict[str, Any], Fault | None]:
    """A decoded JSON value as a row; an empty one and a fault where it is none, or holds what no row may hold."""
    fault: Fault | None
    if not isinstance(value, dict):
        fault = Fault("", f"must be an object, not {type_name(value)}")
    elif len(text) > MAX_ROW_SIZE:
        fault = too_long("row")
    else:
        fault = value_fault(value)
        if fault is None and duplicates:
            fault = Fault(duplicates[0], "the key stands twice")
    return (value, None) if fault is None else ({}, fault)


def value_fault(row: dict[str, Any]) -> Fault | None:
    """Return the fault of a value that JSON allows and no row may hold. Without recursion, for deeply nested rows."""
    for key, value in row.items():
        if type(value) is not str or not value.isascii() or "\0" in value or not key.isascii() or "\0" in key:
            break
    else:
        return None  # What most rows are; the walk below takes as long as decoding them.
    return _walk(row)


def _walk(row: dict[str, Any]) -> Fault | None:
    stack: list[tuple[str, Any, int]] = [("", row, 0)]
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
            if isinstance(value, dict):
                for key, item in value.items():
                    reason = _text_fault(key)
                    if reason:
                        return Fault("", f"{reason} in a key")
                    stack.append((f"{field}.{key}" if field else key, item, depth + 1))
            else:
                stack.extend((f"{field}[{index}]", item, depth + 1) for index, item in enumerate(value))
    return None


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
    """The fault of bytes that are no text.

    Args:
        data: what was to be decoded.
        start: index of the bad byte in it.
        offset: where `data` begins in its line or file, which the message counts from.
    """
    return Fault("", "not UTF-8", f"byte 0x{data[start]:02x} at offset {offset + start}")


def without_bom(data: bytes, name: str) -> bytes:
    """The beginning of a file without its byte order mark.

    Raises:
        DataError: the mark is that of UTF-16.
    """
    if data.startswith(_UTF16):
        raise DataError("the file is UTF-16", where=f"{name}:1", hint="save the file as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)
