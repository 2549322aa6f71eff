"""What a row says beside the columns that its format reads, where leaving it out would change what the row means."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pipelines.data.faults import Fault

CONTEXT = ("history", "input")
"""Parts of the question."""
VERDICTS = ("label", "score")
"""What somebody thought of the answer."""


def is_judged(row: Mapping[str, Any]) -> bool:
    """Whether a `label` or a `score` that is a number judges the answer: it must never be taken for one to imitate."""
    return _is_set(row.get("label")) or _is_number(row.get("score"))


def unread(row: Mapping[str, Any], watched: Collection[str]) -> Fault | None:
    """The first of these columns that says something.

    Args:
        row: under canonical names.
        watched: those of `CONTEXT` and `VERDICTS` that the format of the row does not read.
    """
    for name in VERDICTS:
        value = row.get(name)
        if name in watched and (_is_set(value) if name == "label" else _is_number(value)):
            return Fault(name, "judges the answer, which would be imitated all the same", way_out(name))
    for name in CONTEXT:
        if name in watched and _is_set(row.get(name)):
            return Fault(name, "is no column of the format, so it would be left out of the question", way_out(name))
    return None


def way_out(name: str) -> str:
    """How to say that a column means something else."""
    return f"where it need not be read, set columns: {{{name}: ''}}"


def _is_set(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value != [] and value != {}


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
