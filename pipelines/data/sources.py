"""A data file as a stream of JSON objects, each with the place it stands at.

What is wrong with one row comes out as that row's fault; what makes the rest of the file unreadable is raised.
A further kind of file is one more function in `READERS`.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.data.faults import Fault, type_name
from pipelines.errors import DataError

MAX_ROW_SIZE = 10_000_000
MAX_DEPTH = 100

_BLANKS = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Record:
    """One row as it stands in a file.

    Attributes:
        place: ``path:line``, or ``path:row N`` in a JSON array.
        text: the row as it was written.
        row: its columns; empty where there is a fault.
        fault: why it could not be read.
    """

    place: str
    text: str
    row: dict[str, Any]
    fault: Fault | None = None


def read_records(path: Path) -> Iterator[Record]:
    """Read a file row by row.

    Raises:
        DataError: there is no such file, it is empty or of an unknown kind, or it cannot be read to its end.
    """
    empty = True
    try:
        reader = _reader_for(path)
        with path.open("rb") as file:
            for record in reader(file, str(path)):
                empty = False
                yield record
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error
    if empty:
        raise DataError("the file holds no rows", where=str(path))


def _reader_for(path: Path) -> Reader:
    if path.is_dir():
        raise DataError("this is a directory, not a data file", where=str(path))
    if not path.exists():
        hint = None if path.is_absolute() else f"the path is relative to {Path.cwd()}"
        raise DataError("no such data file", where=str(path), hint=hint)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        ending = f"the ending `{path.suffix}` is unknown" if path.suffix else "the file name has no ending"
        raise DataError(f"{ending}; data files end in {', '.join(READERS)}", where=str(path))
    return reader


def _json_lines(file: BinaryIO, name: str) -> Iterator[Record]:
    for place, text, fault in _lines(file, name):
        row: dict[str, Any] = {}
        if fault is None:
            row, fault = _parse_line(text)
        yield Record(place, text, row, fault)


def _text_lines(file: BinaryIO, name: str) -> Iterator[Record]:
    for place, text, fault in _lines(file, name):
        yield Record(place, text, {} if fault else {"prompt": text}, fault)


def _json_array(file: BinaryIO, name: str) -> Iterator[Record]:
    text = _decode_whole(file.read(), name)
    position = _skip_blanks(text, 0)
    if position == len(text):
        return
    if text[position] != "[":
        hint = "where every line is one object, name the file .jsonl" if text[position] == "{" else None
        raise DataError("a .json file must be one array of objects", where=f"{name}:1", hint=hint)
    position = _skip_blanks(text, position + 1)
    closed = text[position : position + 1] == "]"
    decoder, number = _StrictDecoder(), 0
    while not closed:
        number += 1
        place, start = f"{name}:row {number}", position
        decoder.duplicates.clear()
        try:
            value, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            raise _broken(name, text, error.pos, error.msg) from error
        except RecursionError as error:
            raise DataError("nested too deeply", where=place) from error
        except ValueError as error:
            raise DataError(f"not valid JSON: {error}", where=place) from error
        yield _checked(place, text[start:position], value, decoder.duplicates)
        position = _skip_blanks(text, position)
        closed = text[position : position + 1] == "]"
        if not closed:
            if text[position : position + 1] != ",":
                raise _broken(name, text, position, "Expecting ',' or ']'")
            position = _skip_blanks(text, position + 1)
    end = _skip_blanks(text, position + 1)
    if end != len(text):
        raise _broken(name, text, end, "Text after the end of the array")


Reader = Callable[[BinaryIO, str], Iterator[Record]]
READERS: dict[str, Reader] = {".json": _json_array, ".jsonl": _json_lines, ".txt": _text_lines}


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[str, str, Fault | None]]:
    """Place and text of every line that is not blank; lines are cut at newlines only."""
    number = 0
    while raw := file.readline(MAX_ROW_SIZE + 2):
        number += 1
        place = f"{name}:{number}"
        if number == 1:
            raw = _without_bom(raw, name)
        if len(raw.rstrip(b"\r\n")) > MAX_ROW_SIZE:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_ROW_SIZE)
            yield place, "", Fault("", f"the line is longer than {MAX_ROW_SIZE // 1_000_000} MB")
            continue
        try:
            text = raw.decode("utf-8").strip("\r\n")
        except UnicodeDecodeError as error:
            yield place, raw.decode("utf-8", "replace").strip("\r\n"), _not_utf8(raw, error)
            continue
        if "\0" in text:
            yield place, text, Fault("", "NUL character")
        elif text.strip():
            yield place, text, None


def _parse_line(text: str) -> tuple[dict[str, Any], Fault | None]:
    decoder = _StrictDecoder()
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        return {}, Fault("", "not valid JSON", f"column {error.colno}: {error.msg}")
    except RecursionError:
        return {}, Fault("", "nested too deeply")
    except ValueError as error:
        return {}, Fault("", "not valid JSON", str(error))
    record = _checked("", text, value, decoder.duplicates)
    return record.row, record.fault


class _StrictDecoder(json.JSONDecoder):
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


def _checked(place: str, text: str, value: Any, duplicates: list[str]) -> Record:
    fault: Fault | None
    if not isinstance(value, dict):
        fault = Fault("", f"must be an object, not {type_name(value)}")
    elif len(text) > MAX_ROW_SIZE:
        fault = Fault("", f"the row is longer than {MAX_ROW_SIZE // 1_000_000} MB")
    else:
        fault = _value_fault(value)
        if fault is None and duplicates:
            fault = Fault(duplicates[0], "the key stands twice")
    return Record(place, text, value if fault is None else {}, fault)


def _value_fault(row: dict[str, Any]) -> Fault | None:
    """What JSON lets through and no text or number may hold; without recursion, for rows nested on purpose."""
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


def _decode_whole(data: bytes, name: str) -> str:
    data = _without_bom(data, name)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(str(_not_utf8(data, error)), where=f"{name}:{line}", hint="save the file as UTF-8") from error


def _without_bom(data: bytes, name: str) -> bytes:
    if data.startswith(_UTF16):
        raise DataError("the file is UTF-16", where=f"{name}:1", hint="save the file as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)


def _not_utf8(data: bytes, error: UnicodeDecodeError) -> Fault:
    return Fault("", "not UTF-8", f"byte 0x{data[error.start]:02x} at offset {error.start}")


def _broken(name: str, text: str, position: int, message: str) -> DataError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return DataError(f"not valid JSON: column {column}: {message}", where=f"{name}:{line}")


def _skip_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position
