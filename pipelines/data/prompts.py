"""Which prompts are put to the models: each once, in an order that no file's order has a hand in. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipelines.config.data_section import Source
from pipelines.data.canonical import read_rows
from pipelines.data.read import SourceReader, with_progress
from pipelines.data.rows import Message, Prompt
from pipelines.data.split import prompt_key
from pipelines.errors import DataError
from pipelines.run.reporting import Reporter

_ORDER_SEED = 2
"""Of the hash that orders prompts; another one than those of the split and of the evaluation."""

Fitted = TypeVar("Fitted")


@dataclass(frozen=True)
class Asked:
    """A prompt.

    Attributes:
        messages: the dialogue to be answered.
        key: 64 bits of a hash; prompts are taken in the order of their keys.
        place: where it stands, as ``file:line``, or the file alone.
        source: what tasks call its file or round; None: nothing.
    """

    messages: tuple[Message, ...]
    key: int
    place: str
    source: str | None = None


@dataclass(frozen=True)
class SourceCount:
    """What became of the rows of one file.

    Attributes:
        path: as it was given.
        rows: rows read.
        repeated: prompts that had come before, in this file or an earlier one.
        over_cap: prompts left out because the file had given its share.
        prompts: what is left.
    """

    path: str
    rows: int
    repeated: int
    over_cap: int
    prompts: int


def of_run(directory: Path, source: str) -> tuple[list[Asked], list[Asked]]:
    """The prompts of a run to train on and those held out, each once, in the order of their keys.

    Args:
        directory: of ``data/prompts``.
        source: what tasks say of where they are from.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    sides = []
    for name in ("train", "heldout"):
        path = directory / f"{name}.jsonl"
        rows = (row.prompt for row in read_rows(path, Prompt))
        found = {prompt_key(prompt, _ORDER_SEED): prompt for prompt in rows}
        sides.append([Asked(prompt, key, f"data/prompts/{path.name}", source) for key, prompt in sorted(found.items())])
    return sides[0], sides[1]


def of_files(
    sources: Sequence[Source], reporter: Reporter, *, most: int | None = None
) -> tuple[list[Asked], list[SourceCount]]:
    """The prompts of several sources of any accepted format, each once, in the order of their keys.

    Args:
        sources: comparisons and demonstrations give their prompts.
        reporter: shows how a big file is read.
        most: prompts of one source that are kept, those with the lowest keys.

    Raises:
        DataError: a row is bad, or there is no prompt; see also `SourceReader`.
    """
    asked: list[Asked] = []
    counts: list[SourceCount] = []
    seen: set[int] = set()
    for source in sources:
        rows, own = 0, dict[int, Asked]()
        for place, prompt in _prompts(source, reporter):
            rows += 1
            key = prompt_key(prompt, _ORDER_SEED)
            if key not in seen:
                own.setdefault(key, Asked(prompt, key, place, source.name or Path(source.path).name))
        kept = sorted(own.values(), key=lambda entry: entry.key)[:most]
        counts.append(SourceCount(source.path, rows, rows - len(own), len(own) - len(kept), len(kept)))
        # what a full source leaves out does not come back through another one
        seen.update(own)
        asked += kept
    if not asked:
        raise DataError("there is no prompt", where=sources[0].path)
    return sorted(asked, key=lambda entry: entry.key), counts


def _prompts(source: Source, reporter: Reporter) -> Iterator[tuple[str, tuple[Message, ...]]]:
    for outcome in with_progress(SourceReader(source, Prompt), reporter):
        if outcome.fault is not None:
            raise DataError(str(outcome.fault), where=outcome.record.place)
        for row in outcome.rows:
            yield outcome.record.place, row.prompt


def digest_of_prompts(asked: Sequence[Asked]) -> str:
    """16 hexadecimal digits that stand for these prompts."""
    text = "\n".join(str(prompt_key(entry.messages)) for entry in asked)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def take(
    asked: Sequence[Asked], most: int | None, fit: Callable[[Asked], Fitted | None], number: int = 1
) -> tuple[list[Fitted], int]:
    """The prompts of a round among those that fit, and how many of those looked at did not.

    Args:
        asked: in their order.
        most: prompts of a round; None: all.
        fit: a prompt as the models take it; None: it does not fit.
        number: of the round; each begins where the one before ended, and at the front again where none is left.
    """
    kept: list[Fitted] = []
    unfit = 0
    for entry in asked:
        if most is not None and len(kept) >= most * number:
            break
        fitted = fit(entry)
        if fitted is None:
            unfit += 1
        else:
            kept.append(fitted)
    if most is None or len(kept) <= most:
        return kept, unfit
    start = most * (number - 1)
    return [kept[place % len(kept)] for place in range(start, start + most)], unfit


def shares(train: int, heldout: int, most: int | None) -> tuple[int | None, int | None]:
    """How many prompts to train on and how many held-out ones make up `most`.

    Held-out ones in the share that they have of all, and one at least: the reward model is judged on them.
    """
    if most is None:
        return None, None
    held = min(heldout, max(1, round(most * heldout / max(train + heldout, 1)))) if most > 1 else 0
    return most - held, held
