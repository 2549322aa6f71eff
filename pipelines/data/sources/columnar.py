"""Columnar files: .parquet, .arrow and .feather, read in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.data.sources.record import Record, value_fault
from pipelines.errors import DataError

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
    """What pyarrow says about a broken file, in one line."""
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"not a valid {path.suffix.lstrip('.')} file: {first_line}", where=str(path))
