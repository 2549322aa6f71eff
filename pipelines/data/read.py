"""One source of the configuration, row by row, as canonical rows of the kind that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, Generic

from pydantic import ValidationError

from pipelines.config.data import Source
from pipelines.data.convert import Kind, can_serve, to_kind
from pipelines.data.faults import Fault, fault_of
from pipelines.data.formats import Format, detect_format, known_columns, named_format
from pipelines.data.sources import Record, read_records
from pipelines.errors import DataError, UsageError


@dataclass(frozen=True)
class Outcome(Generic[Kind]):
    """What became of one record: a canonical row, or what is wrong with it."""

    record: Record
    row: Kind | None
    fault: Fault | None


class SourceReader(Generic[Kind]):
    """Iterate over it once.

    Attributes:
        format: known after the first row: the format that the source names, or the one that its first row shows.

    Raises:
        UsageError: the source names an unknown format or column.
        DataError: the file cannot be read, its format is not recognized, or it cannot serve as this kind.
    """

    def __init__(self, source: Source, kind: type[Kind]) -> None:
        self.path = Path(source.path)
        self.format: type[Format] | None = None
        self._source = source
        self._kind = kind
        if source.format is not None:
            self._take(named_format(source.format), source.path)
        _check_column_names(source)

    def __iter__(self) -> Iterator[Outcome[Kind]]:
        for record in islice(read_records(self.path), self._source.limit):
            if record.fault:
                yield Outcome(record, None, record.fault)
                continue
            row, fault = self._convert(record)
            yield Outcome(record, row, fault)

    def _convert(self, record: Record) -> tuple[Kind | None, Fault | None]:
        columns = self._source.columns
        missing = [name for name in columns.values() if name not in record.row]
        if missing and self.format is None:
            raise DataError(
                f"there is no column `{missing[0]}`; the first row has {', '.join(record.row) or 'none'}",
                where=record.place,
                hint="`columns` maps the canonical name to the name in the file, e.g. {prompt: question}",
            )
        renamed = _rename(record.row, columns)
        layout = self.format or self._take(detect_format(renamed, record.place), record.place)
        try:
            return to_kind(layout.model_validate(renamed).canonical(), self._kind), None
        except ValidationError as error:
            return None, fault_of(error, columns)
        except ValueError as error:
            return None, Fault("", str(error))
        except DataError as error:
            return None, Fault("", error.message)

    def _take(self, layout: type[Format], where: str) -> type[Format]:
        if not any(can_serve(found, self._kind) for found in layout.holds):
            held = " or ".join(f"{kind.__name__.lower()}s" for kind in layout.holds)
            raise DataError(
                f"format `{layout.name}` holds {held}, but {self._kind.__name__.lower()}s are needed", where=where
            )
        self.format = layout
        return layout


def _rename(row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """The row under canonical names; a mapped column hides one that already has that name."""
    kept = {name: value for name, value in row.items() if name not in columns.values() and name not in columns}
    return kept | {name: row[named] for name, named in columns.items() if named in row}


def _check_column_names(source: Source) -> None:
    known = known_columns()
    for name in source.columns:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise UsageError(
                f"`columns` maps to `{name}`, which no format has",
                where=source.path,
                hint=f"did you mean `{near[0]}`?" if near else f"known columns: {', '.join(known)}",
            )
