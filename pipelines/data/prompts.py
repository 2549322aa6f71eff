"""The choice of prompts that models answer: each once, in the order of a hash, and within a length. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipelines.config import Config
from pipelines.config.data_section import OnBadRow, Source
from pipelines.data.canonical import read_rows
from pipelines.data.encode import ChatEncoder, EncodedPrompt, Refusals, fit_prompt
from pipelines.data.faults import BadRow
from pipelines.data.read import good_rows
from pipelines.data.rows import Message, Prompt
from pipelines.data.split import FEWEST_EVALUATED, prompt_key
from pipelines.errors import DataError
from pipelines.run.reporting import Reporter

SAMPLING_SEED, EVALUATION_SEED = 2, 1
"""Seeds of the hashes that order prompts; not the split's, under which all held-out prompts have small hashes."""

Turns = tuple[Message, ...]
Entry = TypeVar("Entry")
Fitted = TypeVar("Fitted")


@dataclass(frozen=True)
class SourcedPrompt:
    """A prompt, the key of its place in the order, where it is from, and the name of its file or round in tasks."""

    messages: Turns
    key: int
    place: str
    source: str | None = None


@dataclass(frozen=True)
class SourceCount:
    """Counts of the rows of one file: its prompts that remain, and those that were `repeated` or `over_cap`."""

    path: str
    rows: int
    repeated: int
    over_cap: int
    prompts: int


@dataclass(frozen=True)
class PromptCounts:
    """Counts of the held-out prompts of an evaluation.

    Attributes:
        heldout: rows in the file.
        repeated: rows whose prompt occurred before.
        too_long: prompts above the limit (see `prompt_limit`), or refused by the chat template, left out.
        used: prompts that are answered.
    """

    heldout: int
    repeated: int
    too_long: int
    used: int


def by_hash(prompts: Iterable[Turns], seed: int) -> list[tuple[int, Turns]]:
    """Key and turns of each distinct prompt, in the order of the keys; of equal prompts the last one is taken."""
    return sorted({prompt_key(prompt, seed): prompt for prompt in prompts}.items())


def prompts_of_run(directory: Path, source: str) -> tuple[list[SourcedPrompt], list[SourcedPrompt]]:
    """The prompts of a run to train on and those held out, each once, in the order of their keys.

    `directory` is that of ``data/prompts``, and `source` the name of their source in tasks.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    train, heldout = (
        [
            SourcedPrompt(prompt, key, f"data/prompts/{name}", source)
            for key, prompt in by_hash((row.prompt for row in read_rows(directory / name, Prompt)), SAMPLING_SEED)
        ]
        for name in ("train.jsonl", "heldout.jsonl")
    )
    return train, heldout


def prompts_of_sources(
    sources: Sequence[Source], reporter: Reporter, *, most: int | None = None, on_bad_row: OnBadRow = "fail"
) -> tuple[list[SourcedPrompt], list[SourceCount]]:
    """The prompts of several sources of any accepted format, each once, in the order of their keys.

    `most` is the maximum number of prompts of one source; those with the lowest keys are kept.

    Raises:
        DataError: a row is bad, or there is no prompt; see also `SourceReader`.
    """
    prompts: list[SourcedPrompt] = []
    counts: list[SourceCount] = []
    seen: set[int] = set()
    for source in sources:
        rows, own = 0, dict[int, SourcedPrompt]()
        for place, prompt in good_rows(
            source, Prompt, reporter, lambda row, at: (at, row.prompt), on_bad_row=on_bad_row
        ):
            rows += 1
            key = prompt_key(prompt, SAMPLING_SEED)
            if key not in seen:
                own.setdefault(key, SourcedPrompt(prompt, key, place, source.name or Path(source.path).name))
        chosen = sorted(own.values(), key=lambda entry: entry.key)[:most]
        counts.append(SourceCount(source.path, rows, rows - len(own), len(own) - len(chosen), len(chosen)))
        # prompts over the maximum of a source do not come back through another one
        seen.update(own)
        prompts += chosen
    if not prompts:
        raise DataError("there is no prompt", where=sources[0].path)
    return sorted(prompts, key=lambda entry: entry.key), counts


def sample_prompts(
    prompts: Iterable[Turns],
    encoder: ChatEncoder,
    limit: int,
    most: int | None,
    *,
    cut: bool,
    refusals: Refusals | None = None,
) -> tuple[list[EncodedPrompt], int]:
    """Take prompts that stand for all of a file, whatever its order: each once, by their hashes, the same in every run.

    The evaluation, the evaluations during PPO and the normalization of rewards measure on these.

    Args:
        limit: most tokens of a prompt; longer ones are left out, or cut where `cut` says so.
        most: number of prompts; None: all that fit.
        refusals: decides about prompts that cannot be encoded; None: the first of them is an error.

    Returns:
        The prompts, and the number of those examined that are too long or cannot be encoded.
    """
    distinct = by_hash(reversed(list(prompts)), EVALUATION_SEED)

    def fit(entry: tuple[int, Turns]) -> EncodedPrompt | None:
        try:
            return fit_prompt(entry[1], encoder, limit, cut=cut)
        except BadRow as error:
            if refusals is None:
                raise
            refusals.add("prompt", 1 + distinct.index(entry), Prompt(prompt=entry[1]), error)
            return None

    taken = take(distinct, most, fit)
    if refusals is not None:
        refusals.settle(len(distinct))
    return taken


def evaluation_prompts(
    path: Path, encoder: ChatEncoder, config: Config, limit: int, refusals: Refusals | None = None
) -> tuple[list[EncodedPrompt], PromptCounts]:
    """Up to `eval.num_prompts` held-out prompts in the order of their hashes: the same in every run and for every seed.


    Raises:
        ArtifactError: the file is missing or damaged.
        DataError: fewer than 2 prompts are left.
    """
    rows = [row.prompt for row in read_rows(path, Prompt)]
    fitting, too_long = sample_prompts(rows, encoder, limit, None, cut=config.ppo.overlong == "cut", refusals=refusals)
    chosen = fitting[: config.eval.num_prompts]
    if len(chosen) < FEWEST_EVALUATED:
        raise DataError(
            f"the evaluation needs at least {FEWEST_EVALUATED} held-out prompts and has {len(chosen)}: {len(rows)} are "
            f"held out, {too_long} of them are longer than {limit} tokens or cannot be encoded",
            where=str(path),
            hint="give more prompts, or raise data.eval_fraction or ppo.max_prompt_length",
        )
    return chosen, PromptCounts(len(rows), len(rows) - len(fitting) - too_long, too_long, len(chosen))


def digest_of_prompts(prompts: Sequence[SourcedPrompt]) -> str:
    """16 hexadecimal digits that stand for these prompts."""
    text = "\n".join(str(prompt_key(entry.messages)) for entry in prompts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def take(
    prompts: Sequence[Entry], most: int | None, fit: Callable[[Entry], Fitted | None], number: int = 1
) -> tuple[list[Fitted], int]:
    """Prompts of a round among those that fit, and the number of examined prompts that do not.

    Args:
        most: number of prompts of a round; None: all.
        fit: encodes a prompt; None: it does not fit.
        number: of the round; each continues where the one before ended, and from the first prompt again after the last.
    """
    fitting: list[Fitted] = []
    unfit = 0
    for entry in prompts:
        if most is not None and len(fitting) >= most * number:
            break
        fitted = fit(entry)
        if fitted is None:
            unfit += 1
        else:
            fitting.append(fitted)
    if most is None or len(fitting) <= most:
        return fitting, unfit
    start = most * (number - 1)
    return [fitting[place % len(fitting)] for place in range(start, start + most)], unfit


def shares(train: int, heldout: int, most: int | None) -> tuple[int | None, int | None]:
    """Split `most` prompts into a number to train on and a number held out.

    The held-out ones keep their share of all prompts, and there is at least one: the reward model is judged on them.
    """
    if most is None:
        return None, None
    held = min(heldout, max(1, round(most * heldout / max(train + heldout, 1)))) if most > 1 else 0
    return most - held, held
