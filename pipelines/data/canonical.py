"""Canonical rows on disk: one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from pipelines.data.convert import Kind
from pipelines.data.faults import fault_of
from pipelines.data.rows import CanonicalRow
from pipelines.errors import ArtifactError


def to_line(row: CanonicalRow) -> str:
    """The row as one line of JSON, without its end; fields that are not set are left out."""
    return row.model_dump_json(exclude_none=True)


def write_rows(path: Path, rows: Iterable[CanonicalRow]) -> int:
    """Write rows and return their number."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(to_line(row) + "\n")
            count += 1
    return count


def read_rows(path: Path, kind: type[Kind]) -> Iterator[Kind]:
    """Read what `write_rows` wrote.

    Raises:
        ArtifactError: the file is missing, or a line is not a row of this kind.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield cast(Kind, kind.model_validate_json(line))
                except ValidationError as error:
                    raise ArtifactError(
                        f"not a {kind.__name__.lower()}: {fault_of(error)}", where=f"{path}:{number}"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the rows cannot be read: {error}", where=str(path)) from error
