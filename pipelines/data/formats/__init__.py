"""The accepted formats. A further one is a class that says how it looks, and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pipelines.data.faults import shorten, type_name
from pipelines.data.formats import alpaca, hh, judged, scored, sharegpt, trl
from pipelines.data.formats.base import Format
from pipelines.errors import DataError, UsageError

# Where a row fits several, the first one counts: richer formats stand before poorer ones.
FORMATS: dict[str, type[Format]] = {
    found.name: found
    for found in (
        trl.ComparisonRow,
        judged.JudgementRow,
        trl.Preference,
        trl.PreferenceChat,
        sharegpt.ShareGPTPreference,
        alpaca.AlpacaPreference,
        trl.PreferenceImplicit,
        hh.Transcripts,
        scored.ScoredList,
        scored.UltraFeedback,
        judged.Kto,
        judged.MessagesKto,
        judged.ShareGPTKto,
        judged.AlpacaKto,
        scored.Scored,
        scored.ScoredResponse,
        trl.Messages,
        sharegpt.ShareGPT,
        alpaca.Alpaca,
        trl.PromptCompletion,
        trl.PromptCompletionChat,
        trl.PromptText,
        trl.PromptChat,
        trl.Text,
    )
}


def named_format(name: str) -> type[Format]:
    """The format that a source names.

    Raises:
        UsageError: there is none of that name; the hint gives the nearest.
    """
    if name in FORMATS:
        return FORMATS[name]
    near = get_close_matches(name, FORMATS, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"the formats are {', '.join(FORMATS)}"
    raise UsageError(f"there is no data format `{name}`", hint=hint)


def detect_format(row: Mapping[str, Any], place: str) -> type[Format]:
    """The format of a source, from its first row.

    Where the keys fit a format but not all values have the right type, the nearest format is taken all the same: its
    check of the row then names the field.

    Raises:
        DataError: it fits none.
    """
    scores = {found: found.likeness(row) for found in FORMATS.values()}
    for found, score in scores.items():
        if score == len(found.shape):
            return found
    nearest = max(scores, key=lambda found: (scores[found] > 0) * (len(found.shape) * 10 + scores[found]))
    if scores[nearest] > 0:
        return nearest
    columns = ", ".join(f"{shorten(name)} ({type_name(value)})" for name, value in row.items()) or "(none)"
    accepted = "\n".join(f"  {found.described()}" for found in FORMATS.values())
    raise DataError(
        f"the format is not recognized from the columns {columns}; accepted are\n{accepted}",
        where=place,
        hint="name the columns with `columns: {prompt: <name in the file>, ...}`, or the format with `format:`",
    )


def known_columns() -> tuple[str, ...]:
    """Every column that some format reads: what a column map can map to."""
    names = {field.alias or name for found in FORMATS.values() for name, field in found.model_fields.items()}
    return tuple(sorted(names))


__all__ = ["FORMATS", "Format", "detect_format", "known_columns", "named_format"]
