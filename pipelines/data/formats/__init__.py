"""The accepted formats. A further one is a class that says how it looks, and a line in `FORMATS`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipelines.data.faults import shorten, type_name
from pipelines.data.formats import alpaca, answer_lists, hh, judged, sharegpt, trl, verdict
from pipelines.data.formats.format import Format, column_names
from pipelines.data.formats.unread_columns import VERDICTS, judges, way_out
from pipelines.data.formats.unrecognized import column_map, way_in
from pipelines.errors import DataError, UsageError, nearest_name

# Where a row fits several, the first one counts: richer formats stand before poorer ones.
FORMATS: dict[str, type[Format]] = {
    layout.name: layout
    for layout in (
        trl.ComparisonRow,
        judged.JudgementRow,
        trl.Preference,
        trl.PreferenceChat,
        answer_lists.AnswerLists,
        sharegpt.ShareGPTPreference,
        alpaca.AlpacaPreference,
        trl.PreferenceImplicit,
        hh.Transcripts,
        judged.ScoredList,
        judged.UltraFeedback,
        judged.Kto,
        judged.MessagesKto,
        judged.ShareGPTKto,
        judged.AlpacaKto,
        judged.Scored,
        judged.ScoredResponse,
        trl.Messages,
        sharegpt.ShareGPT,
        alpaca.Alpaca,
        trl.PromptCompletion,
        trl.PromptCompletionChat,
        verdict.TwoAnswers,
        trl.PromptText,
        trl.PromptChat,
        alpaca.AlpacaPrompt,
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
    hint = nearest_name(name, FORMATS, f"the formats are {', '.join(FORMATS)}")
    raise UsageError(f"there is no data format `{name}`", hint=hint)


def detect_format(rows: Sequence[Mapping[str, Any]], place: str, among: Collection[type[Format]] = ()) -> type[Format]:
    """The format of a source: the one that most of its first rows have, and of equals the one that is seen first.

    Where the keys of a row fit a format but not all values have the right type, and no other row has a format either,
    the nearest is taken all the same: its check of the row then names the field.

    Args:
        among: formats that count before the others; only where no row looks like one of these, all of them do.

    Raises:
        DataError: they fit none.
    """
    for formats in (among, FORMATS.values()):
        votes = Counter(layout for layout in (_fitting(row, formats) for row in rows) if layout is not None)
        if votes:
            return votes.most_common(1)[0][0]
        nearest = next((layout for layout in (_nearest(row, formats) for row in rows) if layout is not None), None)
        if nearest is not None:
            return nearest
    row, known = rows[0], among or FORMATS.values()
    columns = ", ".join(f"{shorten(name)} ({type_name(value)})" for name, value in row.items()) or "(none)"
    raise DataError(
        f"the format is not recognized from the columns {columns}",
        where=place,
        hint=refusal(rows, judged=True)
        or column_map(rows, known)
        or refusal(rows)
        or " or ".join(way_out(name) for name in VERDICTS if judges(name, row.get(name)))
        or way_in(rows, known),
    )


def refusal(rows: Sequence[Mapping[str, Any]], *, judged: bool = False) -> str | None:
    """Return the hint for rows with several answers that are not read as such; None: they are no such rows.

    `judged`: only of those on whose answers there is a verdict.
    """
    return next((hint for row in rows if (hint := verdict.refusal(row, judged=judged)) is not None), None)


def _fitting(row: Mapping[str, Any], formats: Collection[type[Format]]) -> type[Format] | None:
    fitting = next((layout for layout in formats if layout.likeness(row) == len(layout.shape)), None)
    # A dialogue that ends with the question stands beside its answers; no verdict is on its last turn.
    asks = fitting is not None and verdict.TwoAnswers in formats and verdict.asks(row)
    return verdict.TwoAnswers if asks else fitting


def _nearest(row: Mapping[str, Any], formats: Collection[type[Format]]) -> type[Format] | None:
    """The format whose columns are all there, some with the right type."""
    scores = {layout: layout.likeness(row) for layout in formats}
    near = [layout for layout in formats if scores[layout] > 0]
    return max(near, key=lambda layout: len(layout.shape) * 10 + scores[layout], default=None)


def known_columns() -> tuple[str, ...]:
    """Every column that some format reads: what a column map can map to."""
    return tuple(sorted(frozenset().union(*map(column_names, FORMATS.values()))))
