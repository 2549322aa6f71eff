"""Tables: .csv and .tsv as text, whose cells become numbers and truth values; .parquet, .arrow, .feather in batches."""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, Union, get_args, get_origin

from pipelines.data.faults import OTHER_ENCODING, Fault, shorten
from pipelines.data.formats import FORMATS
from pipelines.data.formats.format import Format
from pipelines.data.sources import record as limits
from pipelines.data.sources.record import Record, checked_record
from pipelines.errors import DataError

_BAD_BYTE = re.compile("[\udc80-\udcff]")
_NO_END = ("unexpected end of data", "field larger than field limit")


def csv_rows(file: BinaryIO, name: str, usual: str = ",") -> Iterator[Record]:
    """Rows of a table with the usual delimiter, or that of its first line; a row is named by the line it begins on."""
    csv.field_size_limit(limits.MAX_ROW_SIZE)
    delimiter = _delimiter(file, usual)
    feed = _Feed(file, name)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        fault: Fault | None = None
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error).startswith(_NO_END) or header is None:
                hint = _BARE_CR if str(error).startswith("new-line character") else _HINT
                raise DataError(f"not a valid table: {error}", where=feed.place, hint=hint) from error
            fault = Fault("", "not a valid row of the table", str(error))
        place, text = feed.take()
        if not cells and fault is None:
            continue  # A blank line.
        if header is None:
            if not _SEPARATOR.fullmatch(text):
                header = _checked_header([name.strip() for name in cells], place)
            continue
        cells = _as_wide(cells, header)
        width = None if len(cells) == len(header) else f"{len(cells)}, not {len(header)}"
        if width and fault is None:
            fault = Fault("", "the row has another number of cells than the header", width)
        fault = fault or _swallowed(text, delimiter, len(header))
        if fault is not None:
            yield Record(place, text, {}, fault, typed=False)
            continue
        # A column without a name, such as the index that pandas writes, can be read by nobody.
        row = {column: cell for column, cell in zip(header, cells, strict=True) if column}
        yield checked_record(place, text, row, typed=False, column_faults=_not_utf8(row))


_SEPARATOR = re.compile('"?sep=(.)"?', re.IGNORECASE)
"""The line by which a file tells Excel its delimiter."""


def _delimiter(file: BinaryIO, usual: str) -> str:
    """Return the delimiter of the first line. The file is back at its start."""
    raw = file.readline(limits.MAX_ROW_SIZE).removeprefix(codecs.BOM_UTF8)
    while raw and not raw.strip():
        raw = file.readline(limits.MAX_ROW_SIZE)
    file.seek(0)
    line = raw.decode("utf-8", "replace").strip("\r\n").partition("\r")[0]
    if told := _SEPARATOR.fullmatch(line):
        return str(told.group(1))
    # Of equals, the first one counts.
    marks: tuple[str, ...] = (usual, *",;\t|")
    return max(marks, key=lambda mark: len(next(csv.reader([line], delimiter=mark), [])))


def _as_wide(cells: list[str], header: list[str]) -> list[str]:
    """The cells of a row without empty ones behind the header, and with the empty ones that Excel leaves out."""
    cut = len(header)
    if not any(cells[cut:]):
        cells = cells[:cut]
    missing = header[len(cells) :]
    return cells if any(missing) else cells + [""] * len(missing)


def _swallowed(text: str, delimiter: str, width: int) -> Fault | None:
    """A row over lines that are rows too: in a .tsv file, the quote at the start of a cell may be no more than that."""
    if delimiter == "\t" and "\n" in text and all(line.count("\t") + 1 == width > 1 for line in text.split("\n")):
        return Fault("", "a cell in quotes runs over lines that look like rows", 'a `"` that opens no cell is doubled')
    return None


_BARE_CR = "the lines may end as on an old Macintosh: save the table as CSV UTF-8"
_HINT = 'a cell that holds a comma, a quote or a newline stands in quotes, with quotes in it doubled: "say ""yes"""'


class _Feed:
    """Lines for the csv reader, and which of them make the row that it reads."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._number = 0
        self._first = 1
        self._lines: list[str] = []
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(limits.MAX_ROW_SIZE + 1)
        if not raw:
            raise StopIteration
        self._number += 1
        if self._number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        self._size += len(raw)
        if self._size > limits.MAX_ROW_SIZE:
            size = limits.MAX_ROW_SIZE // 1_000_000
            raise DataError(f"the row is longer than {size} MB; a quote may be left open", where=self.place)
        # Bytes that are no text come through as half surrogates, so that they cost one row and not the file.
        self._lines.append(raw.decode("utf-8", "surrogateescape"))
        return self._lines[-1]

    @property
    def place(self) -> str:
        """Place of the row being read: the line on which it begins."""
        return f"{self._name}:{self._first}"

    def take(self) -> tuple[str, str]:
        """Place and text of the row just read."""
        place, text = self.place, "".join(self._lines).strip("\r\n")
        self._first, self._size = self._number + 1, 0
        self._lines.clear()
        return place, text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _checked_header(names: list[str], place: str) -> list[str]:
    for name in names:
        foreign = bool(_BAD_BYTE.search(name))
        twice = bool(name) and names.count(name) > 1
        if foreign or twice or "\0" in name:
            raise DataError(
                f"the first line must hold the names of the columns, but {_shown(name)!r} is "
                f"{'there twice' if twice else 'not UTF-8 text'}",
                where=place,
                hint=OTHER_ENCODING if foreign else None,
            )
    if not any(names):
        raise DataError("the first line must hold the names of the columns, but it is blank", where=place)
    return names


def _shown(name: str) -> str:
    """A name for a message; bytes that are not UTF-8 as Windows-1252 has them."""
    return name.encode("utf-8", "surrogateescape").decode("cp1252", "replace") if _BAD_BYTE.search(name) else name


def _not_utf8(row: dict[str, str]) -> dict[str, Fault]:
    """The columns of a row that hold bytes that are no text."""
    return {
        name: Fault(name, "not UTF-8", f"byte 0x{ord(match.group()) - 0xDC00:02x}")
        for name, cell in row.items()
        if not cell.isascii() and (match := _BAD_BYTE.search(cell))
    }


BATCH = 1000


def parquet_rows(path: Path) -> Iterator[Record]:
    """Rows of a Parquet file."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        yield from object_rows((row for batch in file.iter_batches(BATCH) for row in batch.to_pylist()), str(path))


def arrow_rows(path: Path) -> Iterator[Record]:
    """Rows of an Arrow file, be it of the kind for random access (Feather too) or a stream, as `datasets` writes."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            file = pyarrow.ipc.open_file(source)
            batches: Iterator[Any] = (file.get_batch(index) for index in range(file.num_record_batches))
        except pyarrow.ArrowInvalid:
            source.seek(0)
            batches = iter(pyarrow.ipc.open_stream(source))
        rows = (
            row
            for batch in batches
            for start in range(0, batch.num_rows, BATCH)
            for row in batch.slice(start, BATCH).to_pylist()
        )
        yield from object_rows(rows, str(path))


def object_rows(rows: Iterator[dict[str, Any]], name: str) -> Iterator[Record]:
    """Rows that come as objects and not as text. Their values are left as they are: the format checks the types."""
    for number, row in enumerate(rows, 1):
        record = checked_record(f"{name}:row {number}", "", row)
        yield record._replace(text=json.dumps(row, ensure_ascii=record.any_fault is not None, default=str))


_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def for_detection(row: Mapping[str, str]) -> dict[str, Any]:
    """The row with what can be parsed in the columns that are numbers or truth values wherever a format has them."""
    kinds = _unambiguous()
    return {name: _parsed(cell, kinds[name])[0] if name in kinds else cell for name, cell in row.items()}


def typed_cells(row: Mapping[str, str], layout: type[Format]) -> tuple[dict[str, Any], Fault | None]:
    """The row as the format wants it: empty cells are not there, numbers and truth values are parsed."""
    kinds = _kinds(layout)
    result: dict[str, Any] = {}
    for name, cell in row.items():
        if cell == "":
            continue
        result[name] = cell
        if name in kinds:
            result[name], good = _parsed(cell, kinds[name])
            if not good:
                wanted = " or ".join(_WORDS[kind] for kind in (bool, float) if kind in kinds[name])
                comma = "; write it with a decimal point" if _DECIMAL_COMMA.fullmatch(cell) else ""
                return {}, Fault(name, f"must be {wanted}", f"found {shorten(cell)}{comma}")
    return result, None


_WORDS = {bool: "true, false, 1 or 0", float: "a number"}


def _parsed(cell: str, kinds: frozenset[type]) -> tuple[Any, bool]:
    """The value, and whether the cell is one; a cell that is none stays text."""
    if bool in kinds and cell.strip().lower() in _TRUTH:
        return _TRUTH[cell.strip().lower()], True
    if float in kinds:
        try:
            number = float(cell)
        except ValueError:
            return cell, False
        if math.isfinite(number):
            return number, True
    return cell, False


@cache
def _kinds(layout: type[Format]) -> dict[str, frozenset[type]]:
    """The columns of a format that hold numbers or truth values and never text."""
    parsed = {}
    for name, field in layout.model_fields.items():
        kinds = frozenset(_types_of(field.annotation))
        if kinds & {bool, float} and str not in kinds:
            parsed[field.alias or name] = kinds & {bool, float}
    return parsed


@cache
def _unambiguous() -> dict[str, frozenset[type]]:
    """The same for all formats together, without columns that hold text in one of them."""
    kinds: dict[str, frozenset[type]] = {}
    text: set[str] = set()
    for layout in FORMATS.values():
        own = _kinds(layout)
        kinds |= {name: kinds.get(name, frozenset()) | types for name, types in own.items()}
        text |= {field.alias or name for name, field in layout.model_fields.items()} - set(own)
    return {name: types for name, types in kinds.items() if name not in text}


def _types_of(annotation: Any) -> set[type]:
    if get_origin(annotation) in (Union, UnionType):
        return {kind for part in get_args(annotation) for kind in _types_of(part)}
    return {annotation} if isinstance(annotation, type) else set()
