"""Files that hold a row a line: JSON lines and plain text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipelines.data.faults import Fault
from pipelines.data.sources import record as limits
from pipelines.data.sources.record import Record, StrictDecoder, checked, not_utf8, too_long, without_bom


def json_lines(file: BinaryIO, name: str) -> Iterator[Record]:
    """One object a line; blank lines are skipped."""
    decoder = StrictDecoder()  # One for all lines: to make one takes as long as to decode a short line.
    for place, text, fault in _lines(file, name):
        row: dict[str, Any] = {}
        if fault is None:
            row, fault = _parse_line(text, decoder)
        yield Record(place, text, row, fault)


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
            raw = without_bom(raw, name)
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


def _parse_line(text: str, decoder: StrictDecoder) -> tuple[dict[str, Any], Fault | None]:
    decoder.duplicates.clear()
    try:
        value, end = decoder.raw_decode(text) if text[0] == "{" else (None, -1)
        if end != len(text):  # Blanks at an end, or no row: only then the slower call that skips blanks or says what.
            decoder.duplicates.clear()
            value = decoder.decode(text)
    except json.JSONDecodeError as error:
        return {}, Fault("", "not valid JSON", f"column {error.colno}: {error.msg}")
    except RecursionError:
        return {}, Fault("", "nested too deeply")
    except ValueError as error:
        return {}, Fault("", "not valid JSON", str(error))
    return checked(text, value, decoder.duplicates)
