"""JSON files, as an array decoded piece by piece or as JSON lines, and plain text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from pipelines.data.faults import OTHER_ENCODING, PANDAS, Fault
from pipelines.data.sources import record as limits
from pipelines.data.sources.record import Record, StrictDecoder, json_record, not_utf8, too_long
from pipelines.errors import DataError


def json_lines(file: BinaryIO, name: str) -> Iterator[Record]:
    """One object a line; blank lines are skipped. Lines that are texts are prompts, and one array is read as such."""
    if _holds_array(file):
        yield from json_rows(file, name)
        return
    decoder = StrictDecoder()  # One for all lines: to make one takes as long as to decode a short line.
    texts: bool | None = None
    for place, text, fault in _lines(file, name):
        if fault is not None:
            yield _despite(fault, place, text, decoder)
            continue
        texts = text.lstrip().startswith('"') if texts is None else texts
        yield _parse_line(place, text, decoder, texts=texts)


def _despite(fault: Fault, place: str, text: str, decoder: StrictDecoder) -> Record:
    """The record of a faulty line: where the columns can be told, bytes that are no text are the fault of theirs."""
    if fault.reason == too_long("line").reason:
        return Record(place, text, {}, replace(fault, detail=PANDAS))
    record = _parse_line(place, text, decoder, texts=False)
    there = [name for name, value in record.row.items() if _REPLACED in json.dumps(value, ensure_ascii=False)]
    if not there or "\0" in text:
        return Record(place, text, {}, fault)
    return record._replace(column_faults={**record.column_faults, **dict.fromkeys(there, fault)})


_REPLACED = "\N{REPLACEMENT CHARACTER}"
"""Characters that stand for bytes that are no text."""


def _holds_array(file: BinaryIO) -> bool:
    """Whether the whole file is one array of rows; lines that are lists are none. The file is back at its start."""
    line = file.readline(limits.MAX_ROW_SIZE).removeprefix(codecs.BOM_UTF8)
    while line and not line.strip():
        line = file.readline(limits.MAX_ROW_SIZE)
    ended = not file.read(1 << 16).strip()
    file.seek(0)
    opening = line.strip()
    if not re.match(rb'\[\s*([{"\]]|$)', opening):
        return False
    try:
        json.loads(opening)
    except (ValueError, RecursionError):
        return True
    return ended


def text_lines(file: BinaryIO, name: str) -> Iterator[Record]:
    """One prompt a line; blank lines are skipped."""
    for place, text, fault in _lines(file, name):
        yield Record(place, text, {} if fault else {"prompt": text}, fault)


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[str, str, Fault | None]]:
    """Place and text of every line that is not blank; lines are cut at newlines only."""
    number = 0
    while raw := file.readline(limits.MAX_ROW_SIZE + 2):
        number += 1
        place = f"{name}:{number}"
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if len(raw.rstrip(b"\r\n")) > limits.MAX_ROW_SIZE:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(limits.MAX_ROW_SIZE)
            yield place, "", too_long("line")
            continue
        try:
            text = raw.decode("utf-8").strip("\r\n")
        except UnicodeDecodeError as error:
            yield place, raw.decode("utf-8", "replace").strip("\r\n"), not_utf8(raw, error.start)
            continue
        if "\0" in text:
            yield place, text, Fault("", "NUL character")
        elif text.strip():
            yield place, text, None


def _parse_line(place: str, text: str, decoder: StrictDecoder, *, texts: bool) -> Record:
    decoder.duplicates.clear()
    try:
        value, end = decoder.raw_decode(text) if text[0] == "{" else (None, -1)
        if end != len(text):  # Blanks at an end, or no row: only then the slower call that skips blanks or says what.
            decoder.duplicates.clear()
            value = decoder.decode(text)
    except json.JSONDecodeError as error:
        opens = text.strip() == "{"
        detail = "the object goes over several lines, where each line is a row" if opens else error.msg
        return Record(place, text, {}, Fault("", "not valid JSON", f"column {error.colno}: {detail}"))
    except RecursionError:
        return Record(place, text, {}, Fault("", "nested too deeply"))
    except ValueError as error:
        return Record(place, text, {}, Fault("", "not valid JSON", str(error)))
    return json_record(place, text, _row_of(value, texts=texts), decoder.duplicates)


def _row_of(value: Any, *, texts: bool) -> Any:
    """The value itself, or the prompt that it is, in a file of texts."""
    return {"prompt": value} if texts and isinstance(value, str) else value


CHUNK = 1 << 16
_BLANKS = re.compile(r"[ \t\n\r]*")
_TAIL = 10  # A word or an escape that the end of the window cuts is shorter than this.


def json_rows(file: BinaryIO, name: str) -> Iterator[Record]:
    """The objects of one array. A file that opens with an object is read as JSON lines: hubs hold many of these."""
    window = _Window(file, name)
    first = window.next_char()
    if first in ("{", '"'):
        file.seek(0)
        return _as_lines(file, name)
    if first == "":
        return iter(())
    if first != "[":
        raise DataError("a .json file must be one array of objects, or one object a line", where=f"{name}:1")
    window.position += 1
    return _array(window, name)


def _as_lines(file: BinaryIO, name: str) -> Iterator[Record]:
    for number, record in enumerate(json_lines(file, name)):
        fault = record.fault
        if number == 0 and fault is not None and fault.reason in ("not valid JSON", too_long("line").reason):
            raise DataError(
                f"a .json file must be one array of objects, or one object a line; here: {fault}",
                where=record.place,
                hint=f'of rows wrapped like {{"data": [...]}}, save the inner list alone; {PANDAS}',
            )
        yield record


def _array(window: _Window, name: str) -> Iterator[Record]:
    number = 0
    first = window.next_char()
    closed, texts = first == "]", first == '"'
    while not closed:
        number += 1
        yield window.element(f"{name}:row {number}", texts=texts)
        closed = window.next_char() == "]"
        if not closed:  # `element` has seen to it that this is a comma.
            window.position += 1
            window.next_char()
    window.position += 1
    if window.next_char():
        raise window.broken(window.position, "Text after the end of the array")


class _Window:
    """The part of the file that is decoded but not yet used up: a row and what was read with it."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.position = 0
        self._text = ""
        self._file = file
        self._name = name
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._bytes = 0
        self._ended = False
        self._decoder = StrictDecoder()
        self._line, self._column = 1, 1  # Where the window begins in the file.

    def next_char(self) -> str:
        """Skip blanks; the character there, or nothing at the end of the file."""
        while True:
            blanks = _BLANKS.match(self._text, self.position)
            self.position = blanks.end() if blanks else self.position
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._more(CHUNK):
                return ""

    def element(self, place: str, *, texts: bool) -> Record:
        """Decode the value at the position and move behind it; a text of an array of `texts` is a prompt.

        Raises:
            DataError: it is no JSON, is followed by neither a comma nor the end of the array, or has no end.
        """
        while True:
            problem, value, end = self._decode(place)
            if problem is None:
                blanks = _BLANKS.match(self._text, end)
                after = blanks.end() if blanks else end
                if self._text[after : after + 1] in (",", "]") and after < len(self._text):
                    text = self._text[self.position : end]
                    self.position = after
                    return json_record(place, text, _row_of(value, texts=texts), self._decoder.duplicates)
                # A number may go on behind the window, so only the end of the file settles it.
                problem = (after, "Expecting ',' or ']'")
            if len(self._text) - self.position > 4 * limits.MAX_ROW_SIZE:
                size = 4 * limits.MAX_ROW_SIZE // 1_000_000
                raise DataError(f"the row has no end within {size} MB", where=place)
            # Doubling keeps the repeated decoding of a long row linear.
            if not self._cut(problem) or not self._more(max(CHUNK, len(self._text) - self.position)):
                raise self.broken(*problem)

    def _decode(self, place: str) -> tuple[tuple[int, str] | None, Any, int]:
        """Decode the value at a position: the value and its end, or a fault."""
        self._decoder.duplicates.clear()
        try:
            value, end = self._decoder.raw_decode(self._text, self.position)
        except json.JSONDecodeError as error:
            return (error.pos, error.msg), None, 0
        except RecursionError as error:
            raise DataError("nested too deeply", where=place) from error
        except ValueError as error:
            raise DataError(f"not valid JSON: {error}", where=place) from error
        return None, value, end

    def _cut(self, problem: tuple[int, str]) -> bool:
        """Whether the end of the window may be what is wrong."""
        position, message = problem
        return message.startswith("Unterminated string") or position >= len(self._text) - _TAIL

    def broken(self, position: int, message: str) -> DataError:
        """Return the fault of the file at a position of the window."""
        line, column = self._place_of(position)
        cut = self._ended and (message.startswith("Unterminated string") or not self._text[position:].strip())
        return DataError(
            f"not valid JSON: column {column}: {message.removesuffix(' starting at')}",
            where=f"{self._name}:{line}",
            hint="the file ends before its array does: it may be cut off" if cut else None,
        )

    def _place_of(self, position: int) -> tuple[int, int]:
        newlines = self._text.count("\n", 0, position)
        if not newlines:
            return self._line, self._column + position
        return self._line + newlines, position - self._text.rfind("\n", 0, position)

    def _more(self, size: int) -> bool:
        """Forget what is used up and read on; False at the end of the file."""
        if self._ended:
            return False
        self._line, self._column = self._place_of(self.position)
        self._text, self.position = self._text[self.position :], 0
        data = self._file.read(size)
        self._ended = not data
        if self._bytes == 0:
            plain = data.removeprefix(codecs.BOM_UTF8)
            self._bytes, data = len(data) - len(plain), plain
        before = self._bytes - len(self._utf8.getstate()[0])
        try:
            self._text += self._utf8.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            line = self._place_of(len(self._text))[0] + error.object.count(b"\n", 0, error.start)
            fault = not_utf8(error.object, error.start, before)
            raise DataError(str(fault), where=f"{self._name}:{line}", hint=OTHER_ENCODING) from error
        self._bytes += len(data)
        return True
