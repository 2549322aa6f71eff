"""Reading of one source of the configuration, record by record, as canonical rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from pydantic import ValidationError

from pipelines.config.data_section import OnBadRow, Source
from pipelines.data.canonical import FOR_A_CLASSIFIER, Kind, can_serve, to_kind
from pipelines.data.faults import Fault, FaultLog, fault_of
from pipelines.data.formats import FORMATS, detect_format, known_columns, named_format, refusal
from pipelines.data.formats.answer_columns import may_be_ignored
from pipelines.data.formats.format import Format, column_names
from pipelines.data.formats.sharegpt import TurnRewriter
from pipelines.data.formats.unread_columns import VERDICTS, names_a_medium, way_out
from pipelines.data.formats.unrecognized import column_map
from pipelines.data.formats.verdict import TwoAnswers
from pipelines.data.rows import CanonicalRow, Comparison, Prompt
from pipelines.data.sources import find_source
from pipelines.data.sources.files import READERS, ending
from pipelines.data.sources.record import Record
from pipelines.data.sources.tables import for_detection, typed_cells
from pipelines.errors import DataError, UsageError, nearest_name
from pipelines.run.reporting import Reporter

Used = TypeVar("Used")
SAMPLE_SEED = 0
FIRST_ROWS = 20
"""What the format and the columns of a source are told from."""
_MEGABYTE = 1_000_000
_BIG_FILE = 20 * _MEGABYTE


class Outcome(NamedTuple, Generic[Kind]):
    """Result of one record: canonical rows, or its fault.

    Attributes:
        rows: one, except in formats that hold a list of answers; none where there is a fault.
        fitted: the row in its format, as the rows were made of it; None: there is a fault, or they were made fast.
    """

    record: Record
    rows: tuple[Kind, ...]
    fault: Fault | None
    fitted: Format | None = None

    @property
    def row(self) -> Kind | None:
        """The first row, where there is one: all there is in most formats."""
        return self.rows[0] if self.rows else None


_Named = tuple[Record, dict[str, Any], Fault | None]


class SourceReader(Generic[Kind]):
    """Iterate over it once.

    `kind` is what is needed; None: every row as the richest kind that it holds.

    Attributes:
        path: the local file or directory; None for a hub data set.
        format: known after the first row: the format that the source names, or the one that its first rows show.
        reason: why it is that format.
        commit: of the hub data set, known once reading has begun.

    Raises:
        UsageError: the source names an unknown format, maps a column that the format does not read, or cannot be found
            in the register.
        DataError: the file cannot be read, has no such column, its format is not recognized, or it cannot serve as
            this kind.
        HubError: the hub data set could not be had.
    """

    def __init__(self, source: Source, kind: type[Kind] | None = None) -> None:
        self._found = find_source(source)
        self._source = self._found.source
        if self._found.registry is not None and self._source.format == "text" and kind is Prompt:
            # An entry that names a prompt column alone is plain text; where prompts are needed, one to be answered.
            columns = {"prompt": self._source.columns["text"]}
            self._source = self._source.model_copy(update={"format": "prompt", "columns": columns})
        if self._source.format == "text" and self._found.path is not None and ending(self._found.path) == ".txt":
            self._source = self._source.model_copy(update={"columns": {"text": "prompt"}})
        self.path: Path | None = self._found.path
        self.format: type[Format] | None = None
        self.reason = ""
        self.commit: str | None = None
        self._kind = kind
        self._turns = TurnRewriter(self._source.tags) if self._source.tags else None
        check_column_names(self._source)
        if self._source.format is not None:
            by = f"entry `{source.name}` of {self._found.registry}" if self._found.registry else "the configuration"
            self._take(named_format(self._source.format), source.path, f"named by {by}")

    def __iter__(self) -> Iterator[Outcome[Kind]]:
        records, self.commit = self._found.open()
        records = islice(records, self._source.limit)
        if self._source.sample is not None:
            records = iter(sampled(records, self._source.sample))
        for record, row, fault in self._settled(map(self._under_our_names, records)):
            if fault is not None:
                yield Outcome(record, (), fault)
                continue
            yield self._convert(record, row)

    def _settled(self, rows: Iterator[_Named]) -> Iterator[_Named]:
        """The same rows; before the first good one comes, the format is known."""
        good: list[tuple[Record, dict[str, Any]]] = []
        while not good:
            first, rows = _first(rows)
            if not first:
                break
            able = [(record, row) for record, row, fault in first if fault is None]
            good = [(record, row) for record, row in able if not record.column_faults] or able
            if good:
                self._settle(good)
            yield from first
        yield from rows

    def _under_our_names(self, record: Record) -> _Named:
        """The record with its row under canonical names, or why it has none."""
        if record.fault is not None:
            return record, {}, record.fault
        row, fault = record.row, None
        columns, registry = self._source.columns, self._found.registry
        if columns or registry is not None:
            row = _rename(row, columns, only=registry is not None)
        if self._turns is not None:
            row, fault = self._turns.rewrite(row)
        return record, row, None if fault is None else _in_file(fault, columns)

    def _convert(self, record: Record, row: dict[str, Any]) -> Outcome[Kind]:
        columns, layout = self._source.columns, cast("type[Format]", self.format)
        if record.column_faults:
            for name, found in _rename(record.column_faults, columns, only=self._found.registry is not None).items():
                if name in column_names(layout):
                    return Outcome(record, (), found)
        fault = layout.unread(row)
        if fault is not None:
            return Outcome(record, (), fault)
        if not record.typed:
            row, fault = typed_cells(row, layout)
            if fault is not None:
                return Outcome(record, (), _in_file(fault, columns))
        try:
            quick = layout.quick(row)
            if quick is not None:
                return Outcome(record, self._of_kind((quick,)), None)
            fitted = layout.model_validate(row)
            rows = fitted.prompts() if self._kind is Prompt else fitted.rows()
            return Outcome(record, self._of_kind(rows), None, fitted)
        except ValidationError as error:
            fault = fault_of(error, columns)
            return Outcome(record, (), fault if self._turns is None else self._turns.named(fault))
        except ValueError as error:
            return Outcome(record, (), Fault("", str(error)))
        except DataError as error:
            return Outcome(record, (), _in_file(Fault(error.where or "", error.message, error.hint or ""), columns))

    def _of_kind(self, rows: tuple[CanonicalRow, ...]) -> tuple[Kind, ...]:
        if self._kind is None or all(type(row) is self._kind for row in rows):
            return cast("tuple[Kind, ...]", rows)
        return tuple(to_kind(row, self._kind) for row in rows)

    def _settle(self, first: Sequence[tuple[Record, dict[str, Any]]]) -> None:
        """Look at the first good rows: whether they have the mapped columns, and of what format they are."""
        _check_columns_are_there([record for record, _ in first], self._source.columns)
        rows = [row if record.typed else for_detection(row) for record, row in first]
        if self.format is not None:
            self.format = self.format.settled(rows, self._meanings())
            return
        place = first[0][0].place
        serving = [candidate for candidate in FORMATS.values() if self._serves(candidate)]
        if self._kind is Prompt:  # verdicts are of no use here, and need not be understood
            serving.sort(key=lambda candidate: candidate is TwoAnswers)
        layout = detect_format(rows, place, serving)
        hint = None
        if tuple(layout.holds) == (Prompt,) and self._kind is not Prompt:
            hint = refusal(rows, judged=self._kind is None)
            hint = hint or (column_map(rows, serving, by_name=True) if self._kind is not None else None)
        if hint is not None:
            raise DataError("the answers beside the prompt are not read", where=place, hint=hint)
        seen = layout.seen_in(next((row for row in rows if layout.likeness(row) > 0), rows[0]))
        self._take(layout.settled(rows, self._meanings()), place, f"seen in the columns {seen}")

    def _meanings(self) -> dict[str, int]:
        """Return the meanings of verdicts: what the source says, and mapped answers by their names in the file."""
        numbers = {name.removeprefix("answer_"): named for name, named in self._source.columns.items()}
        mapped = {named: int(number) for number, named in numbers.items() if number.isdecimal() and named}
        first = min(mapped.values(), default=1)
        return {named: number + 1 - first for named, number in mapped.items()} | self._source.verdicts

    def _serves(self, layout: type[Format]) -> bool:
        return self._kind is None or any(can_serve(candidate, self._kind) for candidate in layout.holds)

    def _way_out(self, verdict: str | None, *, prompts_only: bool) -> str | None:
        """Return the hint for judged answers, or prompts, where other rows are needed."""
        if verdict is not None and self._kind is Comparison:
            return FOR_A_CLASSIFIER
        if prompts_only:
            return "name it under data.prompts; answers that were sampled and judged become rows by `rlhf pairs FILE`"
        return way_out(verdict) if verdict else None

    def _take(self, layout: type[Format], where: str, reason: str) -> None:
        if self._kind is not None and not self._serves(layout):
            verdict = next((name for name in VERDICTS if name in layout.shape), None)
            held = " or ".join(f"{kind.__name__.lower()}s" for kind in layout.holds)
            raise DataError(
                f"format `{layout.name}` holds {held}, but {self._kind.__name__.lower()}s are needed",
                where=where,
                hint=self._way_out(verdict, prompts_only=tuple(layout.holds) == (Prompt,)),
            )
        for name, named in self._source.columns.items():
            if named and name not in column_names(layout):
                raise UsageError(
                    f"`columns` maps `{named}` to `{name}`, which format `{layout.name}` does not read",
                    where=self._source.path,
                    hint=f"it reads {', '.join(sorted(column_names(layout)))}",
                )
        self.format, self.reason = layout, reason


def _first(rows: Iterator[_Named]) -> tuple[list[_Named], Iterator[_Named]]:
    """The next `FIRST_ROWS` rows, and those behind them; where the file breaks off earlier, it does so behind them."""
    first: list[_Named] = []
    try:
        first.extend(islice(rows, FIRST_ROWS))
    except DataError as error:
        return first, _broken(error)
    return first, rows


def _broken(error: DataError) -> Iterator[_Named]:
    raise error
    yield


def with_progress(reader: SourceReader[Kind], reporter: Reporter) -> Iterator[Outcome[Kind]]:
    """The same outcomes; a big file of text shows how many of its megabytes are read."""
    path = reader.path
    plain_text = path is not None and path.is_file() and path.suffix.lower() in READERS
    size = path.stat().st_size if path is not None and plain_text else 0
    if path is None or size < _BIG_FILE:
        yield from reader
        return
    with reporter.task(f"reading {path.name} (MB)", size // _MEGABYTE) as task:
        unreported = 0
        for outcome in reader:
            unreported += len(outcome.record.text)
            if unreported >= _MEGABYTE:
                task.advance(unreported // _MEGABYTE)
                unreported %= _MEGABYTE
            yield outcome


def good_rows(
    source: Source,
    kind: type[Kind] | None,
    reporter: Reporter,
    use: Callable[[Kind, str], Used],
    *,
    on_bad_row: OnBadRow | None = None,
) -> Iterator[Used]:
    """Result of a command on every row of a source.

    Args:
        use: makes something of a row and its place, or says by a DataError that the row is bad for it.
        on_bad_row: fail raises once all rows are read; drop leaves bad rows out. None: fail, where there is no choice.

    Raises:
        DataError: rows are bad; see also `SourceReader`.
    """
    faults, rows_read = FaultLog(), 0
    for outcome in with_progress(SourceReader(source, kind), reporter):
        rows_read += 1
        if outcome.fault is not None:
            faults.add(outcome.record.place, outcome.fault)
        for row in outcome.rows:
            try:
                used = use(row, outcome.record.place)
            except DataError as error:
                faults.add(outcome.record.place, Fault("", error.message, error.hint or ""))
                continue
            yield used
    if faults.count and on_bad_row != "drop":
        choice = ", or give --on-bad-row drop to leave them out" if on_bad_row else ""
        raise faults.error(rows_read, f"correct the rows{choice}")
    if faults.count:
        reporter.warn(f"{faults.count} of {rows_read} rows of {source.path} are left out: {faults.summary()}")


def sampled(records: Iterator[Record], count: int) -> list[Record]:
    """Draw `count` records with equal chances, always the same ones, in their order."""
    chance = random.Random(SAMPLE_SEED)
    kept: list[tuple[int, Record]] = []
    for index, record in enumerate(records):
        if index < count:
            kept.append((index, record))
            continue
        place = chance.randrange(index + 1)
        if place < count:
            kept[place] = (index, record)
    return [record for _, record in sorted(kept, key=lambda pair: pair[0])]


def _rename(row: Mapping[str, Any], columns: dict[str, str], *, only: bool) -> dict[str, Any]:
    """The row under canonical names; a mapped column hides one of that name. `only`: leave out all others."""
    mapped = {name: row[named] for name, named in columns.items() if named in row}
    if only:
        return mapped
    return {name: value for name, value in row.items() if name not in columns.values() and name not in columns} | mapped


def _in_file(fault: Fault, columns: dict[str, str]) -> Fault:
    """The fault with the name that the column has in the file."""
    head = fault.field.split("[")[0].split(".")[0]
    if head not in columns or columns[head] == head:
        return fault
    note = f"column `{columns[head]}` of the file"
    return replace(fault, detail=f"{fault.detail}; {note}" if fault.detail else note)


def _check_columns_are_there(first: Sequence[Record], columns: dict[str, str]) -> None:
    there = dict.fromkeys(name for record in first for name in record.row)
    for name, named in columns.items():
        if named and named not in there:
            otherwise = (
                f"`columns` maps `{name}` to the name in the file; a column that few rows have stands in one of the "
                f"first {FIRST_ROWS}, as null where it holds nothing"
            )
            message = f"there is no column `{named}`; the first rows have {', '.join(there) or 'none'}"
            raise DataError(message, where=first[0].place, hint=nearest_name(named, there, otherwise))


def check_column_names(source: Source) -> None:
    """Refuse a column map that maps to what is a column of no format.

    Raises:
        UsageError: with the nearest column as a hint.
    """
    known = known_columns()
    for name, named in source.columns.items():
        if name not in known and (named or not (names_a_medium(name) or may_be_ignored(name))):
            hint = nearest_name(name, known, f"known columns: {', '.join(known)}")
            raise UsageError(f"`columns` maps to `{name}`, which no format has", where=source.path, hint=hint)
