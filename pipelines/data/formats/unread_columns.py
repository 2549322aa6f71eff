"""Columns that a format does not read and that would change the meaning of a row: context, verdicts and media."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from pipelines.data.faults import Fault

CONTEXT = ("history", "input", "context")
"""Parts of the question."""
VERDICTS = (
    *("label", "score", "kto_tag", "tag", "rating", "reward", "rank", "preference", "feedback", "winner", "better"),
    *("verdict", "vote", "thumbs", "liked", "upvoted", "quality", "grade"),
)
"""Names of columns in which an annotator judges the answer. `label` and `score` are those that formats read."""
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
"""Names of columns that hold what is not text."""
NO_TEXT = "is not text, and nothing else is read"
_VERDICT_WORDS = frozenset(
    (
        *("good", "bad", "true", "false", "yes", "no", "like", "dislike", "liked", "disliked", "up", "down", "upvote"),
        *("downvote", "positive", "negative", "chosen", "rejected", "accepted", "better", "worse", "tie", "a", "b"),
    )
)


def is_judged(row: Mapping[str, Any]) -> bool:
    """Whether a column judges the answer: it must never be taken for one to imitate."""
    return any(judges(name, row.get(name)) for name in VERDICTS)


def judges(name: str, value: Any) -> bool:
    """Whether a value in a column of `VERDICTS` is a verdict; under most names a longer text may be something else."""
    if name == "label":
        return is_set(value)
    if name == "score" or not isinstance(value, str):
        return _is_number(value)
    return value.strip().lower() in _VERDICT_WORDS or _is_number(value)


def unread(row: Mapping[str, Any], watched: Collection[str]) -> Fault | None:
    """The first of the `watched` columns of `CONTEXT`, `VERDICTS` and `MEDIA` that says something."""
    for name in MEDIA:
        if name in watched and holds_media(row.get(name)):
            return Fault(name, NO_TEXT, way_out(name))
    for name in VERDICTS:
        if name in watched and judges(name, row.get(name)):
            return Fault(name, "judges the answer, which would be imitated all the same", way_out(name))
    for name in CONTEXT:
        if name in watched and is_set(row.get(name)):
            return Fault(name, "is no column of the format, so it would be left out of the question", way_out(name))
    return None


_MEDIUM = re.compile("image|audio|video", re.IGNORECASE)


def names_a_medium(name: str) -> bool:
    """Whether a column of this name may hold images, audio or video, or say where they are."""
    return _MEDIUM.search(name) is not None


@lru_cache(maxsize=256)
def _names_of_media(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if names_a_medium(name))


def placed_media(row: Mapping[str, Any], read: Collection[str]) -> Fault | None:
    """A column with the name of a medium that a placeholder in another column, such as ``<image>``, stands for."""
    for name in _names_of_media(tuple(row)):
        placeholder = f"<{_MEDIUM.findall(name)[0].lower()}>"
        if name in read or not holds_media(row[name]):
            continue
        if any(placeholder in str(value) for other, value in row.items() if other != name):
            return Fault(name, f"stands for {placeholder} in the text, and only text is read", way_out(name))
    return None


def holds_media(value: Any) -> bool:
    """Whether there are any; a table writes an empty list as text, and a missing image as an object of nulls."""
    if isinstance(value, dict | list):
        return any(map(holds_media, value.values() if isinstance(value, dict) else value))
    return bool(value) and value != "[]" and is_set(value)


def way_out(name: str) -> str:
    """Return the hint how to declare that a column means something else."""
    read = f"to read it: `--columns label={name}`; " if name in VERDICTS[2:] else ""
    return f"{read}where it need not be read: `--columns {name}=` (in a configuration columns: {{{name}: ''}})"


def naming(*maps: str) -> str:
    """Return the options that name columns, each as ``ours=theirs``."""
    return f"`{' '.join(f'--columns {pair}' for pair in maps)}`"


def is_set(value: Any) -> bool:
    """Whether a cell holds anything: NaN, which other programs write where they have nothing, is nothing."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value != [] and value != {} and value == value


def _is_number(value: Any) -> bool:
    try:
        return not math.isnan(float(value))
    except OverflowError:  # of a whole number with hundreds of digits
        return True
    except (TypeError, ValueError):
        return False
