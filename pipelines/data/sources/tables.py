"""Tables: .csv and .tsv as text with a header line, .parquet, .arrow and .feather in batches."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.data.faults import Fault
from pipelines.data.sources import record as limits
from pipelines.data.sources.record import Record, value_fault, without_bom
from pipelines.errors import DataError

_BAD_BYTE = re.compile("[\udc80-\udcff]")
_NO_END = ("unexpected end of data", "field larger than field limit")


def csv_rows(file: BinaryIO, name: str) -> Iterator[Record]:
    """Rows of a comma-separated file; a row is named by the line that it begins on."""
    return _table(file, name, ",")


def tsv_rows(file: BinaryIO, name: str) -> Iterator[Record]:
    """Rows of a tab-separated file; a row is named by the line that it begins on."""
    return _table(file, name, "\t")


def _table(file: BinaryIO, name: str, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(limits.MAX_ROW_SIZE)
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
                raise DataError(f"not a valid table: {error}", where=feed.place, hint=_HINT) from error
            fault = Fault("", "not a valid row of the table", str(error))
        place, text = feed.take()
        if not cells and fault is None:
            continue  # A blank line.
        if header is None:
            header = _checked_header(cells, place)
            if delimiter == "," and len(header) == 1 and (other := re.search("[;\t]", header[0])):
                raise DataError(
                    f"the first line has {other.group()!r} between the columns, where a .csv file has commas",
                    where=place,
                    hint="save the table with commas; with tabs it is a .tsv file",
                )
            continue
        fault = fault or _row_fault(header, cells) or _swallowed(text, delimiter, len(header))
        row = {} if fault else dict(zip(header, cells, strict=True))
        yield Record(place, text, row, fault or value_fault(row), typed=False)


def _swallowed(text: str, delimiter: str, width: int) -> Fault | None:
    """A row over lines that are rows too: in a .tsv file, the quote at the start of a cell may be no more than that."""
    if delimiter == "\t" and "\n" in text and all(line.count("\t") + 1 == width > 1 for line in text.split("\n")):
        return Fault("", "a cell in quotes runs over lines that look like rows", 'a `"` that opens no cell is doubled')
    return None


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
            raw = without_bom(raw, self._name)
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
        problem = "blank" if not name.strip() else "there twice" if names.count(name) > 1 else None
        if problem or _BAD_BYTE.search(name) or "\0" in name:
            raise DataError(
                f"the first line must hold the names of the columns, but {name!r} is {problem or 'not UTF-8 text'}",
                where=place,
            )
    return names


def _row_fault(header: list[str], cells: list[str]) -> Fault | None:
    if len(cells) != len(header):
        return Fault("", "the row has another number of cells than the header", f"{len(cells)}, not {len(header)}")
    for name, cell in zip(header, cells, strict=True):
        match = None if cell.isascii() else _BAD_BYTE.search(cell)
        if match:
            return Fault(name, "not UTF-8", f"byte 0x{ord(match.group()) - 0xDC00:02x}")
    return None


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
        fault = value_fault(row)
        text = json.dumps(row, ensure_ascii=fault is not None, default=str)
        yield Record(f"{name}:row {number}", text, {} if fault else row, fault)


def columnar_error(error: Exception, path: Path) -> DataError:
    """Turn pyarrow's message about a broken file into a DataError of one line."""
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"not a valid {path.suffix.lstrip('.')} file: {first_line}", where=str(path))
