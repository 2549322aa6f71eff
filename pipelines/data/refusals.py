"""Rows that the model's chat template or tokenizer refuses: bad rows, found by the first stage that encodes them."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.config import Config
from pipelines.data.canonical import to_line
from pipelines.data.faults import BadRow, Fault, FaultLog
from pipelines.data.prepare import KINDS, effective_sources
from pipelines.data.read import SourceReader
from pipelines.data.rows import CanonicalRow
from pipelines.errors import DataError, RlhfError
from pipelines.run.stage import StageContext


class RefusedRows:
    """Refused rows of a stage: with `data.on_bad_row: fail` they end it, with `drop` they are left out and listed.

    They are named by the file and line of the user. The files are read again for that, and only where a row is refused.
    """

    def __init__(self, ctx: StageContext) -> None:
        self._ctx = ctx
        self._rows: list[tuple[str, CanonicalRow, DataError]] = []

    def add(self, name: str, number: int, row: CanonicalRow, error: DataError) -> None:
        """Take note of the row of this number, counted from 1, of the rows called `name`."""
        self._rows.append((f"{name}:{number}", row, error))

    def settle(self, total: int) -> None:
        """Raise or report what was refused among so many rows since the last call.

        Raises:
            DataError: rows were refused, and are not to be dropped.
        """
        refused, self._rows = self._rows, []
        if not refused:
            return
        ctx, log = self._ctx, FaultLog()
        places = _places(ctx.config, [row for _, row, _ in refused])
        entries = []
        for place, row, error in refused:
            fault = error.fault if isinstance(error, BadRow) else Fault("", error.message)
            place = places.get(to_line(row), place)
            log.add(place, fault)
            entries.append({"place": place, "reason": fault.reason, "detail": fault.detail, "text": to_line(row)})
        hint = refused[0][2].hint or "correct the rows"
        if ctx.config.data.on_bad_row == "fail":
            raise log.error(total, f"{hint}; data.on_bad_row: drop leaves such rows out and lists them")
        for entry in entries:
            ctx.log("rejects", entry)
        ctx.reporter.warn(
            f"{len(refused)} of {total} rows cannot be written for this model and are in rejects.jsonl: "
            f"{log.summary()}; the first is {log.first_place}\n  {hint}"
        )


def _places(config: Config, rows: Iterable[CanonicalRow]) -> dict[str, str]:
    """File and line of rows by `to_line`; those that a task or people made have none."""
    places: dict[str, str] = {}
    names = {kind: name for name, kind in KINDS.items()}
    wanted: dict[type[CanonicalRow], set[str]] = {}
    for row in rows:
        wanted.setdefault(type(row), set()).add(to_line(row))
    for kind, lines in wanted.items():
        try:
            for source in effective_sources(config, names[kind]):
                for outcome in SourceReader(source, kind):
                    for line in lines.intersection(map(to_line, outcome.rows)):
                        places.setdefault(line, outcome.record.place)
                    if lines <= places.keys():
                        break
        except RlhfError:  # a file that is no longer there
            continue
    return places
