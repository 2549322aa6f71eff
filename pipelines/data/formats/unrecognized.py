"""Rows of no accepted format: the nearest format, and the map of columns that makes them fit it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from pydantic import ValidationError

from pipelines.data.faults import PANDAS, type_name
from pipelines.data.formats.format import TEXT, Format
from pipelines.data.formats.unread_columns import CONTEXT, VERDICTS
from pipelines.errors import DataError

_ANSWERS = (
    *("answer", "response", "completion", "output", "reply", "target", "solution", "assistant", "bot", "generation"),
    "summary",
)
_DIALOGUES = ("conversation", "conversations", "dialog", "dialogue", "dialogs", "turns", "chat", "messages")
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("question", "query", "instruction", "input", "user", "human", "request", "problem", "task", "post"),
    "chosen": ("preferred", "better", "accepted", "win", "winner", "winning", "good", "positive", "pos", "best"),
    "rejected": ("dispreferred", "worse", "refused", "lose", "loser", "losing", "bad", "negative", "neg", "worst"),
    "completion": _ANSWERS,
    "output": _ANSWERS,
    "response": _ANSWERS,
    "messages": _DIALOGUES,
    "conversations": _DIALOGUES,
    "responses": ("answers", "candidates", "outputs", "generations", "replies"),
    "completions": ("responses", "answers", "candidates"),
    "scores": ("ratings", "rewards", "points"),
    "text": ("content", "document", "body", "story", "article", "passage"),
    "label": ("liked", "upvoted", "thumbs", "vote", "verdict", "feedback", "preference"),
    "score": ("rating", "reward", "quality", "grade", "points"),
}
"""Other names of the columns."""
_BESIDE = re.compile(r"(.*_)?(id|uid|uuid|index|idx|source|date|time|lang|language|system|split|model)", re.IGNORECASE)
"""Names of columns that stand beside the texts of a row."""
_THERE, _SAME, _ALIKE, _LEFT = 5, 3, 2, 1


class _Fit(NamedTuple):
    """Columns of a file, by those of a format that it takes them for, the missing ones, and how much speaks for it."""

    layout: type[Format]
    columns: dict[str, str]
    missing: tuple[str, ...]
    points: int


def column_map(
    rows: Sequence[Mapping[str, Any]], formats: Collection[type[Format]], *, by_name: bool = False
) -> str | None:
    """Return the hint that makes the rows fit one of these formats by naming columns; None: there is none.

    `by_name`: take no column just because it is the last one left.
    """
    if _is_turn(rows[0]):
        return None
    fits = sorted(
        (_fit(max(rows, key=len), layout, by_name=by_name) for layout in formats), key=lambda fit: -fit.points
    )
    best = next((fit for fit in fits if not fit.missing and fit.columns and _reads(fit, rows)), None)
    if best is None:
        return None
    return f"{_options(best.columns)} makes it fit the format `{best.layout.name}` {_in_yaml(best.columns)}"


def way_in(rows: Sequence[Mapping[str, Any]], formats: Collection[type[Format]]) -> str:
    """Return the hint for rows that fit none of these formats, and of which no column map would make one."""
    if len(rows) == 1 and (hint := _rows_inside(rows[0])):
        return hint
    if _is_turn(rows[0]):
        return 'each row is one turn: a row is a whole dialogue, {"messages": [{"role": ..., "content": ...}, ...]}'
    fits = [fit for fit in (_fit(max(rows, key=len), layout) for layout in formats) if fit.points and fit.missing]
    nearest = max(
        fits,
        key=lambda fit: (fit.points, -len(fit.missing), set(fit.layout.shape.values()) == {TEXT}),
        default=None,
    )
    if nearest is None:
        return (
            "name its columns with --columns, such as `--columns prompt=COLUMN --columns completion=COLUMN` "
            "(in a configuration columns: {prompt: COLUMN}); docs/data.md has all formats and their columns"
        )
    for name in nearest.missing:
        if name in rows[0]:
            return f"the nearest format is `{nearest.layout.described()}`, but `{name}` is {type_name(rows[0][name])}"
    mapping = nearest.columns | {name: name.upper() for name in nearest.missing}
    wanted = " and ".join(f"`{name}`" for name in nearest.missing)
    return (
        f"the nearest format is `{nearest.layout.described()}`, for which {wanted} is missing: name the column with "
        f"{_options(mapping)}; docs/data.md has all formats"
    )


def _is_turn(row: Mapping[str, Any]) -> bool:
    return {"role", "content"} <= row.keys() or {"from", "value"} <= row.keys()


def _rows_inside(row: Mapping[str, Any]) -> str | None:
    """Return the hint for one object that holds all rows, by column or in a list."""
    values = list(row.values())
    by_column = all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values)
    lists = all(isinstance(value, list) and len(value) == len(values[0]) for value in values)
    flat = not any(isinstance(item, dict) for value in values if isinstance(value, list) for item in value)
    if values and (by_column or (lists and flat) or {"columns", "data"} <= row.keys()):
        return f"the one object of the file holds all rows: write one object a row; {PANDAS}"
    inner = [name for name, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return f"if the rows lie in the list `{inner[0]}`, save that list alone as the file" if inner else None


def _fit(row: Mapping[str, Any], layout: type[Format], *, by_name: bool = False) -> _Fit:
    """The best names for the columns of a format, the surest first."""
    there = [name for name, types in layout.shape.items() if type(row.get(name)) in types]
    wanted = [name for name in layout.shape if name not in there]
    pairs = sorted(
        (
            (_likeness(name, column), name, column)
            for name in wanted
            for column, value in row.items()
            if column not in there and type(value) in layout.shape[name]
        ),
        key=lambda pair: -pair[0],
    )
    columns: dict[str, str] = {}
    points = _THERE * len(there)
    for likeness, name, column in pairs:
        if likeness and name not in columns and column not in columns.values():
            columns[name] = column
            points += likeness
    missing = [name for name in wanted if name not in columns]
    left = [column for _, name, column in pairs if name in missing and column not in columns.values()]
    left = [
        column
        for column in left
        if column not in (*_OTHER_NAMES, *CONTEXT, *VERDICTS) and not _BESIDE.fullmatch(column)
    ]
    if not by_name and len(missing) == len(left) == 1 and (there or columns):
        columns[missing.pop()] = left[0]
        points += _LEFT
    points += _LEFT * sum(name in row for name in missing)
    return _Fit(layout, columns, tuple(missing), points)


def _likeness(name: str, column: str) -> int:
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", column).lower())
    plain = "_".join(words)
    others = _OTHER_NAMES.get(name, ())
    if plain == name or plain in others:
        return _SAME
    if name in words or any(word in others for word in words):
        return _ALIKE
    return _ALIKE if SequenceMatcher(None, name, plain).ratio() >= 0.8 else 0


def _reads(fit: _Fit, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether most of the rows become rows of the format with these columns."""
    good = 0
    for row in rows:
        mapped = {name: value for name, value in row.items() if name not in fit.columns.values()}
        mapped |= {name: row.get(column) for name, column in fit.columns.items()}
        if fit.layout.likeness(mapped) < len(fit.layout.shape) or fit.layout.unread(mapped) is not None:
            continue
        try:
            good += bool(fit.layout.model_validate(mapped).rows())
        except (ValidationError, ValueError, DataError):
            continue
    return good * 2 > len(rows)


def _options(columns: Mapping[str, str]) -> str:
    told = " ".join(f"--columns {shlex.quote(f'{name}={column}')}" for name, column in columns.items())
    return f"`{told}`"


def _in_yaml(columns: Mapping[str, str]) -> str:
    pairs = (
        f"{name}: {column if re.fullmatch('[A-Za-z][A-Za-z0-9_-]*', column) else json.dumps(column)}"
        for name, column in columns.items()
    )
    return f"(in a configuration columns: {{{', '.join(pairs)}}})"
