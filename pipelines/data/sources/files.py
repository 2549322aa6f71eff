"""A data file of any kind as a stream of records. A further kind is one more line in `READERS`."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from pipelines.data.sources.json_files import json_lines, json_rows, text_lines
from pipelines.data.sources.record import Record
from pipelines.data.sources.tables import arrow_rows, csv_rows, parquet_rows
from pipelines.errors import DataError, first_line

READERS: dict[str, Callable[[BinaryIO, str], Iterator[Record]]] = {
    ".json": json_rows,
    ".jsonl": json_lines,
    ".txt": text_lines,
    ".csv": csv_rows,
    ".tsv": partial(csv_rows, usual="\t"),
}
"""Readers of text, by ending; each of these may be packed once more (.gz)."""
COLUMNAR: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
    ".feather": arrow_rows,
}


def read_records(path: Path) -> Iterator[Record]:
    """Read a file row by row.

    Raises:
        DataError: there is no such file, it is empty or of an unknown kind, or it cannot be read to its end.
    """
    empty = True
    for record in _records(path, ending(path)):
        empty = False
        yield record
    if empty:
        raise DataError("the file holds no rows", where=str(path))


def _records(path: Path, kind: str) -> Iterator[Record]:
    _check_there(path, kind)
    if kind in COLUMNAR:
        yield from _columnar(path, COLUMNAR[kind])
        return
    with open_text(path) as file:
        yield from READERS[kind](file, str(path))


@contextmanager
def open_text(path: Path) -> Iterator[BinaryIO]:
    """A file of text as UTF-8 bytes, unpacked where its name ends in .gz, and recoded where it is UTF-16.

    Raises:
        DataError: it cannot be opened, or breaks off while it is read.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        with cast(BinaryIO, gzip.open(path)) if packed else path.open("rb") as file:
            start = file.read(8)
            encoding = _wide_encoding(start[:4])
            file.seek(0)
            if start.startswith(_WORKBOOKS):
                raise DataError(
                    "the file is no text but a workbook of Excel, or packed", where=str(path), hint=_SAVE_SHEET
                )
            if encoding is None:
                yield file
                return
            with _recoded(file, encoding, path) as text:
                yield text
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"the file cannot be unpacked: {error}", where=str(path)) from error
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error


def _wide_encoding(start: bytes) -> str | None:
    """The encoding of a file whose first bytes are those of UTF-16 or UTF-32; None: another one, such as UTF-8."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(start) == 4 and start[1] == start[3] == 0 != start[0]:
        return "utf-16-le"
    if len(start) == 4 and start[0] == start[2] == 0 != start[1]:
        return "utf-16-be"
    return None


_CHUNK = 1 << 20


def _recoded(file: BinaryIO, encoding: str, path: Path) -> BinaryIO:
    """The text of a file as UTF-8, in a temporary file where it is long."""
    decoder = codecs.getincrementaldecoder(encoding)()
    plain = cast(BinaryIO, SpooledTemporaryFile(max_size=64 * _CHUNK))  # noqa: SIM115
    ended = False
    while not ended:
        data = file.read(_CHUNK)
        ended = not data
        try:
            plain.write(decoder.decode(data, final=ended).encode())
        except UnicodeError as error:
            problem = f"the file begins as {encoding.upper()} and does not go on so"
            raise DataError(problem, where=str(path), hint="save it as UTF-8") from error
    plain.seek(0)
    return plain


def _columnar(path: Path, reader: Callable[[Path], Iterator[Record]]) -> Iterator[Record]:
    import pyarrow

    try:
        yield from reader(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = path.suffix.lstrip(".")
        raise DataError(f"not a valid {kind} file: {first_line(error)}", where=str(path)) from error


def ending(path: Path) -> str:
    """Return the ending that tells the kind of a file, without `.gz`; empty: it cannot be read."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = suffixes[-1:] == [".gz"]
    suffix = suffixes[-2] if packed and len(suffixes) == 2 else "" if packed else "".join(suffixes[-1:])
    return suffix if suffix in READERS or (suffix in COLUMNAR and not packed) else ""


def endings() -> str:
    """The endings of data files, for messages."""
    return f"{', '.join((*READERS, *COLUMNAR))}; text files also with .gz"


def _check_there(path: Path, kind: str) -> None:
    if path.is_dir():
        raise DataError("this is a directory, not a data file", where=str(path))
    if not path.exists():
        hint = None if path.is_absolute() else f"the path is relative to {Path.cwd()}"
        raise DataError("no such data file", where=str(path), hint=hint)
    if not path.is_file():
        raise DataError("this is no regular file but a pipe or a device", where=str(path), hint="save it as a file")
    if not kind:
        named = f"the ending `{path.suffix}` is unknown" if path.suffix else "the file name has no ending"
        raise DataError(
            f"{named}; data files end in {endings()}", where=str(path), hint=_WAYS_OUT.get(path.suffix.lower())
        )


_SAVE_SHEET = "save the sheet as a .csv file (in Excel: CSV UTF-8) and name that"
_WORKBOOKS = (b"PK\3\4", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""First bytes of .xlsx, which is a zip file, and of .xls."""
_WAYS_OUT = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), _SAVE_SHEET),
    **dict.fromkeys((".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz"), "unpack it and name the file inside"),
    **dict.fromkeys((".ndjson", ".jsonlines"), "one object a line: rename it to .jsonl"),
}
