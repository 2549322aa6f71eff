"""Training rows for other programs, with counts of what a format has no place for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data.canonical import to_line
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement
from pipelines.data.sources.registry import FILE_NAME
from pipelines.errors import DataError, UsageError
from pipelines.labels.exchange import layouts
from pipelines.labels.exchange.layouts import DoesNotFit, Lost
from pipelines.run.disk import disk_errors, write_atomic

Layout = Callable[[CanonicalRow, Lost], dict[str, Any]]


@dataclass(frozen=True)
class OutFormat:
    """A format that training rows can be written in.

    Attributes:
        name: what ``--format`` of a command calls it.
        about: what it looks like, in one line.
        kinds: the kinds of row that it can hold.
        layout: a row as the file has it; None: the canonical row itself.
        formatting: of a data set in LLaMA-Factory's register; None: the format needs no entry there.
    """

    name: str
    about: str
    kinds: tuple[type[CanonicalRow], ...]
    layout: Layout | None = None
    formatting: str | None = None

    def write(self, path: Path, rows: Iterable[CanonicalRow]) -> dict[str, int]:
        """Write rows of one kind, whole or not at all: JSON lines, or one array where the name ends in ``.json``.

        Returns:
            What the format could not hold and how often: parts of rows by their name, such as ``margin``, and rows
            that had no place at all as ``rows left out: <reason>``. Empty: nothing is lost.

        Raises:
            UsageError: the name of the file ends in something else, or the rows are of a kind that the format does
                not hold.
            DataError: the rows are of several kinds, or none of them can be written.
            DiskError: it cannot be written.
        """
        if path.suffix not in (".json", ".jsonl"):
            raise UsageError(
                f"rows are written as .jsonl or .json, not as `{path.suffix or path.name}`", where=str(path)
            )
        lost: Lost = Counter()
        kind: type[CanonicalRow] | None = None
        called = ""
        lines = []
        for row in rows:
            if kind is None:
                kind, called = self._checked_kind(type(row), path), _called(row)
            elif _called(row) != called:
                raise DataError(
                    f"the rows are of several kinds: {_called(row)} and {called}",
                    where=str(path),
                    hint="write each kind to its own file",
                )
            try:
                lines.append(self._line(row, lost))
            except DoesNotFit as reason:
                lost[f"rows left out: {reason}"] += 1
        told = {name: count for name, count in lost.items() if count}
        if not lines or kind is None:
            reasons = "; ".join(f"{count} {name}" for name, count in told.items()) or "there are no rows"
            raise DataError(f"there is nothing to write: {reasons}", where=str(path))
        as_array = path.suffix == ".json"
        text = "[\n" + ",\n".join(lines) + "\n]\n" if as_array else "".join(line + "\n" for line in lines)
        register = self._registered(path, kind) if self.formatting else None
        with disk_errors(path.absolute().parent):
            write_atomic(path, text)
            if register is not None:
                write_atomic(path.with_name(FILE_NAME), register)
        return told

    def _checked_kind(self, kind: type[CanonicalRow], path: Path) -> type[CanonicalRow]:
        if kind not in self.kinds:
            held = " or ".join(f"{one.__name__.lower()}s" for one in self.kinds)
            others = [other.name for other in OUT_FORMATS.values() if kind in other.kinds]
            raise UsageError(
                f"format `{self.name}` holds {held}, and the rows are {kind.__name__.lower()}s",
                where=str(path),
                hint=f"these can be written as {', '.join(others)}" if others else None,
            )
        return kind

    def _line(self, row: CanonicalRow, lost: Lost) -> str:
        if self.layout is None:
            return to_line(row)
        # What a row that has no place would have lost is not lost besides.
        own: Lost = Counter()
        line = json.dumps(self.layout(row, own), ensure_ascii=False, allow_nan=False)
        lost.update(own)
        return line

    def _registered(self, path: Path, kind: type[CanonicalRow]) -> str:
        """The register beside the file with an entry for it, all other entries as they were."""
        register = path.with_name(FILE_NAME)
        entries: Any = {}
        if register.exists():
            try:
                entries = json.loads(register.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError, RecursionError) as error:
                raise DataError(f"the register of data sets cannot be read: {error}", where=str(register)) from error
            if not isinstance(entries, dict):
                raise DataError("a register of data sets must be an object", where=str(register))
        entries[path.stem] = self._entry(path.name, kind)
        return json.dumps(entries, ensure_ascii=False, indent=2) + "\n"

    def _entry(self, file_name: str, kind: type[CanonicalRow]) -> dict[str, Any]:
        if self.formatting == "alpaca":
            columns = {"prompt": "instruction", "query": "input", "system": "system", "history": "history"}
        else:
            columns = {"messages": "conversations", "system": "system", "tools": "tools"}
        if kind is Comparison:
            columns |= {"chosen": "chosen", "rejected": "rejected"}
        elif self.formatting == "alpaca":
            columns["response"] = "output"
        if kind is Judgement:
            columns["kto_tag"] = "label"
        entry: dict[str, Any] = {"file_name": file_name, "formatting": self.formatting}
        return entry | ({"ranking": True} if kind is Comparison else {}) | {"columns": columns}


def _called(row: CanonicalRow) -> str:
    """Name the kind of rows that can be in one file."""
    as_it_is = isinstance(row, Demonstration) and row.text is not None
    return "texts" if as_it_is else f"{type(row).__name__.lower()}s"


_ALL = (Comparison, Judgement, Demonstration)

OUT_FORMATS: dict[str, OutFormat] = {
    layout.name: layout
    for layout in (
        OutFormat("rlhf", "this program's own rows; they lose nothing", _ALL),
        OutFormat(
            "trl", "TRL: prompt, chosen, rejected as lists of turns; margin", (Comparison, Demonstration), layouts.trl
        ),
        OutFormat(
            "trl-implicit", "TRL: chosen and rejected as whole dialogues; margin", (Comparison,), layouts.trl_implicit
        ),
        OutFormat(
            "llama-factory-alpaca",
            "LLaMA-Factory: instruction, input, output; an entry in dataset_info.json",
            _ALL,
            layouts.alpaca,
            "alpaca",
        ),
        OutFormat(
            "llama-factory-sharegpt",
            "LLaMA-Factory: conversations; an entry in dataset_info.json",
            _ALL,
            layouts.sharegpt,
            "sharegpt",
        ),
        OutFormat("hh", "two transcripts with Human: and Assistant:", (Comparison,), layouts.hh),
        OutFormat("kto", "TRL's KTO: prompt, completion, label true or false", (Judgement,), layouts.trl),
    )
}
"""By name."""
