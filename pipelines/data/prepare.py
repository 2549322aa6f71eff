"""The data stages: sources in, `train.jsonl` and `heldout.jsonl` of one canonical kind out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TextIO, TypeAlias

from pipelines.config import Config
from pipelines.config.data_section import DataSection, Source, TaskSource
from pipelines.data.canonical import Kind, prompt_of, read_rows, to_line
from pipelines.data.faults import FaultLog
from pipelines.data.read import SourceReader, with_progress
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message, Prompt
from pipelines.data.split import FEWEST_EVALUATED, beside_fraction, plain, prompt_key, share_of, split_key
from pipelines.errors import DataError, RlhfError, UsageError
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import StageContext

DataKind = Literal["demonstrations", "comparisons", "judgements", "prompts"]

KINDS: dict[DataKind, type[Any]] = {
    "demonstrations": Demonstration,
    "comparisons": Comparison,
    "judgements": Judgement,
    "prompts": Prompt,
}
"""Kinds of canonical row by the names of their data stages."""
_FALLBACKS: dict[DataKind, tuple[DataKind, ...]] = {
    "demonstrations": ("demonstrations", "comparisons"),
    "comparisons": ("comparisons",),
    "judgements": ("judgements",),
    "prompts": ("prompts", "comparisons", "judgements", "demonstrations"),
}
_WEIGHT_SEED = 1  # Other than that of the split, with which it must have nothing in common.
_Weighted: TypeAlias = tuple[Kind, float]


def effective_sources(config: Config, kind: DataKind) -> tuple[Source, ...]:
    """The files that a kind is read from: its own, else those of a richer kind; none where a task generates it.

    Raises:
        UsageError: nothing is configured.
    """
    if config.data.task is not None:
        return ()
    for name in _FALLBACKS[kind]:
        sources: list[Source] = getattr(config.data, name)
        if sources:
            return tuple(sources)
    keys = " or ".join(f"data.{name}" for name in _FALLBACKS[kind])
    raise UsageError(f"there are no {kind}", where=f"data.{kind}", hint=f"set {keys} to a file, or data.task")


@dataclass
class _Tally:
    """Counts of the rows by what happened to them."""

    rows_read: int = 0
    rows: int = 0
    thinned: int = 0
    repeated: int = 0
    train: int = 0
    heldout: int = 0
    duplicates: int = 0
    equal_pairs: int = 0
    ties: int = 0
    faults: FaultLog = field(default_factory=FaultLog)
    sources: list[dict[str, Any]] = field(default_factory=list)
    prompts: dict[int, float] = field(default_factory=dict)  # by key; where 0 to 1 each stands for the split

    held_out: set[int] = field(default_factory=set)  # keys of prompts

    def metrics(self) -> dict[str, Any]:
        return {
            "rows_read": self.rows_read,
            "rows": self.rows,
            "train": self.train,
            "heldout": self.heldout,
            "train_prompts": len(self.prompts) - len(self.held_out),
            "heldout_prompts": len(self.held_out),
            "duplicates": self.duplicates,
            "equal_pairs": self.equal_pairs,
            "ties": self.ties,
            "thinned": self.thinned,
            "repeated": self.repeated,
            "bad": self.faults.count,
            "sources": self.sources,
        }


def _prepare(ctx: StageContext, name: DataKind) -> dict[str, Any]:
    data, tally = ctx.config.data, _Tally()
    drop = data.on_bad_row == "drop"
    with contextlib.ExitStack() as stack:
        train, heldout = (stack.enter_context(_writer(ctx, side)) for side in ("train", "heldout"))
        rejects = stack.enter_context(_writer(ctx, "rejects")) if drop else None
        for line, key, share, copies in _wanted(_rows(ctx, name, tally, rejects), data, tally):
            tally.prompts[key] = share
            if share < data.eval_fraction:
                tally.held_out.add(key)
                tally.heldout += 1
                heldout.write(line)
                continue
            tally.train += copies
            tally.repeated += copies - 1
            train.write(line * copies)
    if tally.faults.count and not drop:
        raise tally.faults.error(tally.rows_read)
    if tally.faults.count:
        ctx.reporter.warn(
            f"{tally.faults.count} of {tally.rows_read} {name} were bad and are in rejects.jsonl: "
            f"{tally.faults.summary()}"
        )
    beside = beside_fraction(tally.prompts.values(), data.eval_fraction)
    for other in KINDS:
        if other != name and (beside or not _same_sources(ctx.config, name, other)):
            beside = beside | _held_out_beside(ctx, other)
    if beside.intersection(tally.prompts.values()):
        _hold_out_more(ctx, name, beside, tally)
    # the evaluation comes last: what it lacks must be said before anybody has trained or judged anything
    least = FEWEST_EVALUATED if name == "prompts" and ctx.config.eval.enabled else 1
    _check_sides(name, tally, data.eval_fraction, least)
    ctx.reporter.info(
        f"{name}: {tally.train} rows to train on, {tally.heldout} held out; left out: {tally.duplicates} duplicates, "
        f"{tally.equal_pairs} equal pairs, {tally.faults.count} bad"
        + (f", {tally.ties} ties" if tally.ties else "")
        + (f", {tally.thinned} by weight" if tally.thinned else "")
    )
    return tally.metrics()


demonstrations, comparisons, judgements, prompts = (partial(_prepare, name=kind) for kind in KINDS)
"""A stage for each kind: what SFT trains on, the reward model, a pointwise one, and what PPO answers."""


def _rows(ctx: StageContext, name: DataKind, tally: _Tally, rejects: TextIO | None = None) -> Iterator[_Weighted[Any]]:
    """The good rows of one kind, generated or read."""
    if ctx.config.data.task is not None:
        return _generated(ctx, ctx.config.data.task, name, tally)
    return _read(ctx, effective_sources(ctx.config, name), KINDS[name], tally, rejects)


def _same_sources(config: Config, one: DataKind, other: DataKind) -> bool:
    """Whether two kinds are made of the same rows: what is enough for the one is so for the other."""
    try:
        return config.data.task is None and effective_sources(config, one) == effective_sources(config, other)
    except UsageError:
        return True


def _held_out_beside(ctx: StageContext, name: DataKind) -> set[float]:
    """`beside_fraction` of the rows of another kind: what a small file holds out for one stage is held out of all.

    The rows are read only until there are enough below `data.eval_fraction`. A fault among them is for their own stage
    to report.
    """
    data, tally = ctx.config.data, _Tally()
    quiet = replace(ctx, notes={}, reporter=SilentReporter())
    shares: set[float] = set()
    try:
        for _, _, share, _ in _wanted(_rows(quiet, name, tally), data, tally):
            shares.add(share)
            if share < data.eval_fraction and sum(other < data.eval_fraction for other in shares) >= FEWEST_EVALUATED:
                return set()
    except RlhfError:
        return set()
    return beside_fraction(shares, data.eval_fraction)


def _hold_out_more(ctx: StageContext, name: DataKind, beside: Set[float], tally: _Tally) -> None:
    """Move the training rows whose share is among `beside` to the held-out ones, each row once."""
    rows = list(read_rows(ctx.out / "train.jsonl", KINDS[name]))
    with _writer(ctx, "train") as train, _writer(ctx, "heldout", "a") as heldout:
        moved: set[str] = set()
        for row in rows:
            line = to_line(row) + "\n"
            turns = prompt_of(row)
            if share_of(split_key(turns, ctx.config.data.split_by)) not in beside:
                train.write(line)
                continue
            tally.train -= 1
            if line in moved:
                tally.repeated -= 1
                continue
            moved.add(line)
            tally.held_out.add(prompt_key(turns))
            tally.heldout += 1
            heldout.write(line)
    ctx.reporter.info(
        f"{name}: {len(tally.held_out)} of {len(tally.prompts)} prompts are held out, so that enough can be judged; "
        f"data.eval_fraction {ctx.config.data.eval_fraction:g} alone would hold out fewer"
    )


def _writer(ctx: StageContext, name: str, mode: Literal["w", "a"] = "w") -> TextIO:
    return (ctx.out / f"{name}.jsonl").open(mode, encoding="utf-8", newline="\n")


def _read(
    ctx: StageContext, sources: tuple[Source, ...], kind: type[Kind], tally: _Tally, rejects: TextIO | None
) -> Iterator[_Weighted[Kind]]:
    """The good rows of all sources; the others go to the tally, and to `rejects` where there is one."""
    for source in sources:
        reader = SourceReader(source, kind)
        before = tally.rows_read, tally.rows, tally.faults.count
        for outcome in with_progress(reader, ctx.reporter):
            tally.rows_read += 1
            tally.ties += not outcome.rows and outcome.fault is None
            for row in outcome.rows:
                tally.rows += 1
                yield row, source.weight
            if outcome.fault is not None:
                record, fault = outcome.record, outcome.fault
                tally.faults.add(record.place, fault)
                if rejects is not None:
                    entry = {"place": record.place, "field": fault.field, "reason": fault.reason}
                    rejects.write(json.dumps({**entry, "detail": fault.detail, "text": record.text}) + "\n")
        account: dict[str, Any] = {
            "path": source.path,
            "name": source.name,
            "format": reader.format.name if reader.format else None,
            "rows_read": tally.rows_read - before[0],
            "rows": tally.rows - before[1],
            "bad": tally.faults.count - before[2],
        }
        tally.sources.append({key: value for key, value in account.items() if key != "name" or value is not None})
        if reader.commit is not None:
            ctx.notes.setdefault("dataset_revisions", {})[source.path] = reader.commit


def _generated(ctx: StageContext, source: TaskSource, name: DataKind, tally: _Tally) -> Iterator[_Weighted[Any]]:
    """The rows of a self-made task, by the run's seed; the comparisons are marked as simulated."""
    from pipelines.tasks import AnnotatorPool, load_task

    task, seed = load_task(source.name), ctx.config.run.seed
    rows: Iterator[CanonicalRow]
    if name == "demonstrations":
        rows = task.demonstrations(source.demonstrations, seed)
    elif name == "prompts":
        rows = task.prompts(source.prompts, seed)
    else:
        feedback = ctx.config.feedback.simulated
        pool = {"annotators": feedback.annotators, "noise": feedback.noise, "bias": feedback.bias}
        ctx.notes["simulated"] = {"task": source.name, **pool}
        ctx.reporter.info(f"comparisons: made by {feedback.annotators} simulated annotators of task {source.name}")
        rows = task.comparisons(
            source.comparisons, seed, AnnotatorPool(feedback.annotators, noise=feedback.noise, bias=feedback.bias)
        )
    for row in rows:
        tally.rows_read += 1
        tally.rows += 1
        yield row, 1.0
    tally.sources.append(
        {"task": source.name, "format": None, "rows_read": tally.rows_read, "rows": tally.rows, "bad": 0}
    )


def _wanted(rows: Iterator[_Weighted[Kind]], data: DataSection, tally: _Tally) -> Iterator[tuple[str, int, float, int]]:
    """Line, key of the prompt, its place in the split, and how often the line is to be written.

    Without rows that were written before, and without pairs whose answers are equal: these teach nothing. A row that
    its weight leaves out was not written, so a further source that holds it may still give it.
    """
    seen: set[bytes] = set()
    for row, weight in rows:
        if isinstance(row, Comparison) and plain(row.chosen) == plain(row.rejected):
            tally.equal_pairs += 1
            continue
        line = to_line(row) + "\n"
        digest = hashlib.sha256(line.encode()).digest()[:16]
        if digest in seen:
            tally.duplicates += 1
            continue
        turns = prompt_of(row)
        share = share_of(split_key(turns, data.split_by))
        copies = 1 if weight == 1 or share < data.eval_fraction else _copies(turns, weight)
        if not copies:
            tally.thinned += 1
            continue
        seen.add(digest)
        yield line, prompt_key(turns), share, copies


def _copies(turns: Sequence[Message], weight: float) -> int:
    """Number of copies of a training row, decided by its prompt, so that every stage leaves out the same prompts."""
    whole = math.floor(weight)
    return whole + (share_of(prompt_key(turns, _WEIGHT_SEED)) < weight - whole)


def _check_sides(name: DataKind, tally: _Tally, fraction: float, least: int = 1) -> None:
    """Raise unless there is a prompt to train on, and `least` are held out.

    The hint is computed from the hashes, so that it works at once.
    """
    shares = sorted(set(tally.prompts.values()))
    if not tally.train + tally.heldout:
        raise DataError(
            f"no {name} are left of {tally.rows_read} rows read ({tally.equal_pairs} equal pairs, {tally.ties} ties, "
            f"{tally.faults.count} bad)",
            where=f"data.{name}",
        )
    held_out = len({tally.prompts[key] for key in tally.held_out})
    if tally.train and held_out >= least:
        return
    if tally.thinned and not tally.train:
        raise DataError(
            f"the weights of the sources leave none of {tally.thinned} {name} to train on",
            where=f"data.{name}",
            hint="raise `weight`, or add data",
        )
    if len(shares) < 1 + least:
        raise DataError(
            f"the {name} begin with {len(shares)} different prompt{'s' * (len(shares) > 1)}; at least {1 + least} are "
            f"needed, {least} of them held out",
            where=f"data.{name}",
        )
    wanted = math.floor(shares[-1] * 10_000) / 10_000
    raise DataError(
        f"none of the {len(tally.prompts)} prompts of the {name} is left to train on",
        where="data.eval_fraction",
        hint=f"set data.eval_fraction to {wanted:g} instead of {fraction:g}, or add data",
    )
