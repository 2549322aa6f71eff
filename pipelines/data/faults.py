"""Faults of rows in words, and the log of all bad rows of a stage."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipelines.errors import DataError

SHOWN_PLACES = 20
SHOWN_KINDS = 10
SHOWN_CHARACTERS = 60
OTHER_ENCODING = (
    "text that is not UTF-8 may be Windows-1252, as Excel writes it: save it as UTF-8 (in Excel: CSV UTF-8), or "
    "convert it with `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`"
)
PANDAS = 'of a table of pandas, write df.to_json(path, orient="records", lines=True)'


@dataclass(frozen=True)
class Fault:
    """Fault of a row.

    Attributes:
        field: the column, with the path inside it (``messages[2].content``); empty for the row as a whole.
        reason: from a small set of phrases, so that faults can be counted by kind.
        detail: what is particular to this row.
    """

    field: str
    reason: str
    detail: str = ""

    @property
    def kind(self) -> str:
        """The fault without what is particular to one row."""
        field = re.sub(r"\[\d+\]", "", self.field)
        return f"{field}: {self.reason}" if field else self.reason

    def __str__(self) -> str:
        text = f"{self.field}: {self.reason}" if self.field else self.reason
        return f"{text} ({self.detail})" if self.detail else text


def fault_of(error: ValidationError, columns: dict[str, str] | None = None) -> Fault:
    """The first thing that pydantic found; `columns` is the column map of the source, to name the file's column too."""
    first = error.errors(include_url=False)[0]
    head = str(first["loc"][0]) if first["loc"] else ""
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    named = (columns or {}).get(head)
    detail = f"column `{named}` of the file" if named else ""
    kind = first["type"]
    if kind == "missing":
        return Fault(field, "missing", detail)
    if kind == "too_short" and first["ctx"]["actual_length"]:
        return Fault(field, f"must hold at least {first['ctx']['min_length']}", detail)
    if kind in ("string_pattern_mismatch", "string_too_short", "too_short"):
        return Fault(field, "blank", detail)
    if kind == "value_error":
        return Fault(field, str(first["msg"]).removeprefix("Value error, "), detail)
    if kind == "literal_error":
        return Fault(field, f"must be {first['ctx']['expected']}", f"found {shorten(first['input'])}")
    wanted = _WANTED.get(kind)
    if wanted:
        return Fault(field, f"must be {wanted}, not {type_name(first['input'])}", detail)
    return Fault(field, str(first["msg"]), detail)


_WANTED = {
    "string_type": "text",
    "list_type": "a list",
    "model_type": "an object",
    "dict_type": "an object",
    "float_type": "a number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "none_required": "null",
}


def type_name(value: Any) -> str:
    """Return the type of a JSON value in words."""
    if value is None:
        return "null"
    names = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def shorten(value: Any) -> str:
    """Describe a value in a message: text in quotes and cut, anything else by its type."""
    if not isinstance(value, str):
        return type_name(value)
    return repr(value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 3] + "...")


def remedies(kinds: Iterable[str]) -> str:
    """Return what else helps against faults of these kinds, each after a semicolon; empty where nothing does."""
    told = list(kinds)
    speakers = any(".role: must be" in kind for kind in told)
    foreign = any(kind.endswith("not UTF-8") for kind in told)
    return f"; {_SPEAKERS}" * speakers + f"; {OTHER_ENCODING}" * foreign


_SPEAKERS = (
    "speakers by other names are told with columns: {conversations: messages} and tags: {role_tag: role, "
    "content_tag: content, user_tag: <name>, assistant_tag: <name>}"
)


_DROP = "correct the rows, or set data.on_bad_row: drop to leave them out and list them in rejects.jsonl"


class BadRow(DataError):
    """A row that cannot be written for a model; its reason is from a small set of phrases, to be counted by kind."""

    def __init__(self, reason: str, detail: str, hint: str) -> None:
        self.fault = Fault("", reason, detail)
        super().__init__(str(self.fault), hint=hint)


class FaultLog:
    """All bad rows of a stage: how many, of what kind, and where the first ones are."""

    def __init__(self) -> None:
        self.count = 0
        self.kinds: Counter[str] = Counter()
        self._first: list[tuple[str, Fault]] = []

    def add(self, place: str, fault: Fault) -> None:
        """Take note of one bad row."""
        self.count += 1
        self.kinds[fault.kind] += 1
        if len(self._first) < SHOWN_PLACES:
            self._first.append((place, fault))

    @property
    def first_place(self) -> str:
        """Place of the first bad row."""
        return self._first[0][0]

    def summary(self) -> str:
        """Counts by kind, the commonest first."""
        parts = [f"{count} x {kind}" for kind, count in self.kinds.most_common(SHOWN_KINDS)]
        if len(self.kinds) > SHOWN_KINDS:
            parts.append(f"and {len(self.kinds) - SHOWN_KINDS} more kinds")
        return "; ".join(parts)

    def error(self, rows_read: int, hint: str = _DROP) -> DataError:
        """All of it as one error."""
        hint += remedies(self.kinds)
        place, fault = self._first[0]
        if self.count == 1:
            return DataError(str(fault), where=place, hint=hint)
        lines = [f"  {place}: {fault}" for place, fault in self._first]
        if self.count > len(lines):
            lines.append(f"  ... and {self.count - len(lines)} more")
        text = "\n".join([f"{self.count} of {rows_read} rows are bad:", *lines, f"by kind: {self.summary()}"])
        return DataError(text, where=place, hint=hint)
