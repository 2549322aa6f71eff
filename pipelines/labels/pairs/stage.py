"""The `pairs` stage: labels become rows to train on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from pipelines.data.canonical import read_rows, write_rows
from pipelines.data.rows import Comparison, Judgement
from pipelines.data.split import prompt_key
from pipelines.errors import DataError
from pipelines.labels.label_types import JUDGING, LabelSet, Question
from pipelines.labels.pairs.label_rows import PairsResult, build
from pipelines.labels.tasks_file import TASKS, heldout_prompts, read_tasks
from pipelines.run.stage import StageContext

COMPARISONS = {"train": "train.jsonl", "heldout": "heldout.jsonl"}
JUDGEMENTS = {"train": "judgements-train.jsonl", "heldout": "judgements-heldout.jsonl"}
DEMONSTRATIONS = "demonstrations.jsonl"


def pairs(ctx: StageContext) -> dict[str, Any]:
    """Turn this round's labels into rows to train on, after those of the rounds before.

    Writes train.jsonl and heldout.jsonl (comparisons; maybe empty), judgements-train.jsonl and
    judgements-heldout.jsonl where there are judgements, demonstrations.jsonl where answers were written.

    Raises:
        DataError: no row is left.
        UsageError: an option of `feedback.pairs` does not go with the question.
    """
    judged = read_tasks(ctx.inputs["labels"] / TASKS)
    section = ctx.config.feedback.pairs
    made = build(judged, section)
    for name, count in made.left_out.items():
        ctx.reporter.info(f"pairs: {count} labels of {name} are left out")
    rows = _with_earlier(ctx, judged.without(section.leave_out), made)
    if not (any(rows.values()) or made.demonstrations):
        raise DataError(
            f"the labels give no row to train on; left out: {_reasons(made)}",
            where=str(ctx.inputs["labels"] / TASKS),
            hint="lower min_annotators, min_agreement or min_margin of feedback.pairs, or collect more labels",
        )
    for name, part in rows.items():
        if part or name in COMPARISONS.values():
            write_rows(ctx.out / name, part)
    if made.demonstrations:
        write_rows(ctx.out / DEMONSTRATIONS, made.demonstrations)
    if made.simulated_labels:
        ctx.notes["simulated"] = {"labels": made.simulated_labels}
    counts = {name.removesuffix(".jsonl"): len(part) for name, part in rows.items() if part or "-" not in name}
    ctx.reporter.info(
        f"pairs: {', '.join(f'{count} {name}' for name, count in counts.items())}; {made.made} of {made.possible} of "
        f"this round; left out: {_reasons(made)}"
    )
    return {**made.counts, **counts, "demonstrations": len(made.demonstrations)}


def _with_earlier(ctx: StageContext, judged: LabelSet, made: PairsResult) -> dict[str, list[Comparison | Judgement]]:
    """The rows by the name of their file: those of the round before, which hold those of all others, then the new.

    What was judged anew counts as it was judged last, also where that gives no row: earlier rows of the same answers
    go, whichever was the better one then. A prompt that is held out in one round is so in all.
    """
    old, again = _earlier(ctx), set(_judged(judged, made.question))
    rows: dict[str, list[Comparison | Judgement]] = {}
    heldout = heldout_prompts(ctx.inputs["labels"], judged.tasks.values(), ctx.config.data)
    heldout |= {prompt_key(row.prompt) for names in (COMPARISONS, JUDGEMENTS) for row in old[names["heldout"]]}
    for names, new in ((COMPARISONS, made.comparisons), (JUDGEMENTS, made.judgements)):
        candidates = [row for name in names.values() for row in old[name] if _about(row) not in again] + list(new)
        for side, name in names.items():
            rows[name] = [row for row in candidates if (prompt_key(row.prompt) in heldout) is (side == "heldout")]
    return rows


def _earlier(ctx: StageContext) -> dict[str, list[Comparison | Judgement]]:
    """The rows of the round before, by the name of their file; none in the first round."""
    directory = ctx.inputs.get("pairs")
    earlier: dict[str, list[Comparison | Judgement]] = {}
    for kind, names in ((Comparison, COMPARISONS), (Judgement, JUDGEMENTS)):
        for name in names.values():
            earlier[name] = []
            if directory is not None and (directory / name).exists():
                earlier[name] += read_rows(directory / name, kind)
    return earlier


def _judged(labels: LabelSet, question: Question) -> Iterator[tuple[int, frozenset[str]]]:
    """Yield the subjects of this round's labels: every two answers of a ranked task, else every single answer."""
    if question.kind not in JUDGING:
        return
    size = 2 if question.kind in ("ranking", "pairwise") else 1
    for task, _, _ in labels.answered(question.name):
        key, texts = prompt_key(task.prompt), [answer.text for answer in task.answers]
        yield from ((key, frozenset(some)) for some in combinations(texts, size))


def _about(row: Comparison | Judgement) -> tuple[int, frozenset[str]]:
    """Return the subject of a row: its prompt and answers, whichever is the better one."""
    texts = (row.chosen, row.rejected) if isinstance(row, Comparison) else (row.completion,)
    return prompt_key(row.prompt), frozenset(texts)


def _reasons(made: PairsResult) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in made.dropped.most_common()) or "none"
