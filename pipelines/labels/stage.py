"""The stages `labels` and `pairs`: what annotators said of the sampled answers, and what it becomes to train on."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.data.canonical import read_rows, write_rows
from pipelines.data.rows import Comparison, Judgement
from pipelines.data.split import prompt_key
from pipelines.errors import DataError, PeopleNeeded
from pipelines.labels.agreement.agreement_report import AgreementReport
from pipelines.labels.agreement.agreement_text import plain
from pipelines.labels.agreement.measures import agreement, summary
from pipelines.labels.controls import control_tasks
from pipelines.labels.label_types import JUDGING, LabelSet, Question, Task
from pipelines.labels.pairs.label_rows import PairsResult, build
from pipelines.labels.questions import questions_of
from pipelines.labels.simulated.simulated_annotators import Pool, answer_all, find_truth
from pipelines.labels.store import LabelStore, Settings
from pipelines.labels.tasks_file import copy_sides, heldout_prompts, read_tasks, write_tasks
from pipelines.run.directory import RunDir, in_round, split_round
from pipelines.run.disk import write_atomic
from pipelines.run.stage import StageContext


def simulated_labels(ctx: StageContext, tasks: Collection[Task]) -> LabelSet:
    """Labels of a pool of simulated annotators, given through a label store that is then thrown away.

    Raises:
        UsageError: they cannot answer these questions, or there are fewer of them than the overlap asks for.
        RlhfError: the scorer that they go by could not be had.
    """
    simulated = ctx.config.feedback.simulated
    label, seed = ctx.config.feedback.label, ctx.config.run.seed
    questions = questions_of(label)
    controls = control_tasks(label.controls, questions, seed=seed) if label.controls else []
    truth = find_truth(simulated.scorer, [*tasks, *controls], ctx, ctx.reporter)
    pool = Pool(simulated, truth, seed)
    ctx.notes["simulated"] = {"truth": truth.name} | simulated.results_view()
    ctx.reporter.info(f"labels: made by {len(pool.names)} simulated annotators who go by {truth.name}")
    settings = Settings("simulated", questions, "", label.overlap, label.control_share, seed)
    with (
        tempfile.TemporaryDirectory(dir=ctx.out) as scratch,  # it holds nothing that tasks.jsonl will not
        LabelStore.create(Path(scratch) / "labels.sqlite", settings) as store,
    ):
        store.add_tasks([*tasks, *controls])
        answer_all(store, pool, ctx.reporter)
        found = store.snapshot()
    # when a simulated label was written says nothing, and would make equal runs differ
    return replace(found, labels=[replace(given, time=None) for given in found.labels])


def human_labels(ctx: StageContext, asked: LabelSet) -> LabelSet:
    """Labels of people from the run's store, to which the tasks are added.

    Raises:
        PeopleNeeded: some are still missing.
        ConflictError: the store holds answers to other questions.
        UsageError, DataError: the guidelines, the controls or a name cannot be used.
    """
    from pipelines.labels.store.fill import changes_of_run, fill

    path, overlap = RunDir(ctx.run_dir).label_store, ctx.config.feedback.label.overlap
    with LabelStore.open(path, make=True) as store:
        fill(store, asked, changes_of_run(ctx.config, ctx.run_dir))
        now = standing(store, asked, overlap)
    if now.missing:
        raise PeopleNeeded(now.words, where=str(path), hint=_what_to_do(ctx, now.people))
    if now.given_up:
        ctx.reporter.warn(f"labels: {now.given_up} tasks have fewer than {overlap} answers, as somebody skipped them")
    return now.found


@dataclass(frozen=True)
class LabelProgress:
    """Progress of people with the tasks of a round.

    Attributes:
        found: the round's tasks and labels so far.
        missing: how many answers are still needed, by task.
        given_up: tasks that will never have as many as they should.
        people: how many annotators there are.
        words: what is still needed, and who has done how much.
    """

    found: LabelSet
    missing: Mapping[str, int]
    given_up: int
    people: int
    words: str


def standing(store: LabelStore, asked: LabelSet, overlap: int) -> LabelProgress:
    """Measure the progress with the tasks `asked`, each of which needs `overlap` answers."""
    people = [one for one in store.progress().annotators if not one.simulated]
    found = _of_round(store.snapshot(), asked)
    missing, given_up = _missing(found, overlap, len(people))
    said = [f"{one.name} has done {one.done} and has {one.left} left" for one in people] or ["nobody judges them yet"]
    done = "; ".join([*said, *(["the admin has paused the page"] if store.paused else [])])
    tasks = len(asked.tasks)
    words = (
        f"{sum(missing.values())} of {overlap * tasks} answers are still needed, to {len(missing)} of {tasks} tasks "
        f"({done})"
        if missing
        else "all answers are there: `rlhf all` goes on"
    )
    return LabelProgress(found, missing, given_up, len(people), words)


def describe_wait(config: Config, run: RunDir, stage: str) -> str:
    """Describe what the `labels` stage of that name waits for at present.

    Raises:
        DataError, ConflictError: the tasks or the store cannot be read.
    """
    _, number = split_round(stage)
    asked = read_tasks(run.stage(in_round("sample", number)) / "tasks.jsonl")
    with LabelStore.open(run.label_store) as store:
        return standing(store, asked, config.feedback.label.overlap).words


def _of_round(everything: LabelSet, asked: LabelSet) -> LabelSet:
    """This round's tasks, the control tasks that were answered by the end of the round, and their labels.

    A round ends with the last answer to one of its own tasks. So a round that is collected again holds the same,
    however many controls were answered in later rounds; those count from the next round on.
    """
    own = [given for given in everything.labels if given.task in asked.tasks]
    end = max((given.time or "" for given in own), default="")
    controls = {name for name, task in everything.tasks.items() if task.control is not None} - asked.tasks.keys()
    known = [given for given in everything.labels if given.task in controls and (given.time or "") <= end]
    there = asked.tasks.keys() | {given.task for given in known}
    tasks = {name: task for name, task in everything.tasks.items() if name in there}
    kept = {(given.task, given.annotator) for given in (*own, *known)}
    return replace(
        everything, tasks=tasks, labels=[one for one in everything.labels if (one.task, one.annotator) in kept]
    )


def _missing(found: LabelSet, overlap: int, people: int) -> tuple[dict[str, int], int]:
    """Count the answers still needed, by task, and the tasks that will never get as many as they should.

    These are the ones that somebody skipped and everybody has looked at: nobody is left to wait for. Unless there are
    fewer people than it takes, who cannot settle anything.
    """
    looks: dict[str, list[bool]] = {task.id: [] for task in found.tasks.values() if task.control is None}
    for label in found.labels:
        if label.task in looks:
            looks[label.task].append(label.skipped)
    needed = {task: overlap - skipped.count(False) for task, skipped in looks.items() if skipped.count(False) < overlap}
    settled = {task for task in needed if any(looks[task]) and len(looks[task]) >= people >= overlap}
    return {task: more for task, more in needed.items() if task not in settled}, len(settled)


def _what_to_do(ctx: StageContext, people: int) -> str:
    from pipelines.labels.store.store import running_server

    address = running_server(RunDir(ctx.run_dir).label_store)
    lacking = ctx.config.feedback.label.overlap - people
    if address and lacking <= 0:
        first = f"the label page is open at {address}"
    else:  # one person alone needs no name: the page calls them `me`
        wanted = range(1, lacking + 1) if people or lacking > 1 else ()
        names = "".join(f" --annotator NAME{number}" for number in wanted)
        first = f"open the label page: `rlhf label --run-dir {ctx.run_dir}{names}`"
    without = f"; `--rounds {ctx.round - 1}` ends without round {ctx.round}" if ctx.round > 1 else ""
    return f"{first}; once all is answered, the same command goes on from here{without}"


TASKS = "tasks.jsonl"
COMPARISONS = {"train": "train.jsonl", "heldout": "heldout.jsonl"}
JUDGEMENTS = {"train": "judgements-train.jsonl", "heldout": "judgements-heldout.jsonl"}
DEMONSTRATIONS = "demonstrations.jsonl"


def labels(ctx: StageContext) -> dict[str, Any]:
    """Get this round's tasks judged; write tasks.jsonl with the labels, agreement.json and agreement.txt.

    Returns:
        How many labels there are, how far the annotators agree on the first question, and how long they took.

    Raises:
        PeopleNeeded: people have not answered everything yet.
        UsageError, DataError, ConflictError: the questions, the controls or the guidelines cannot be used.
    """
    path = ctx.inputs["sample"] / TASKS
    asked = read_tasks(path)
    if not asked.tasks:
        raise DataError("there is no task to judge", where=str(path))
    simulated = ctx.config.feedback.source == "simulated"
    found = simulated_labels(ctx, list(asked.tasks.values())) if simulated else human_labels(ctx, asked)
    write_tasks(ctx.out / TASKS, found)
    copy_sides(path.parent, ctx.out)
    reports = [agreement(found, question.name, seed=ctx.config.run.seed) for question in found.questions]
    _write_agreement(ctx, reports)
    for pattern in dict.fromkeys(pattern for report in reports for pattern in report.suspicious):
        ctx.reporter.warn(f"labels: look at {pattern}")
    return _figures(found, reports[0])


def pairs(ctx: StageContext) -> dict[str, Any]:
    """Turn this round's labels into rows to train on, after those of the rounds before.

    Writes train.jsonl and heldout.jsonl (comparisons; maybe empty), judgements-train.jsonl and
    judgements-heldout.jsonl where there are judgements, demonstrations.jsonl where answers were written.

    Returns:
        How many rows there are, and how many pairs were left out for which reason.

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
    for name, found in rows.items():
        if found or name in COMPARISONS.values():
            write_rows(ctx.out / name, found)
    if made.demonstrations:
        write_rows(ctx.out / DEMONSTRATIONS, made.demonstrations)
    if made.simulated_labels:
        ctx.notes["simulated"] = {"labels": made.simulated_labels}
    counts = {name.removesuffix(".jsonl"): len(found) for name, found in rows.items() if found or "-" not in name}
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
    heldout = heldout_prompts(ctx.inputs["labels"], judged.tasks.values(), ctx.config.data.eval_fraction)
    heldout |= {prompt_key(row.prompt) for names in (COMPARISONS, JUDGEMENTS) for row in old[names["heldout"]]}
    for names, new in ((COMPARISONS, made.comparisons), (JUDGEMENTS, made.judgements)):
        found = [row for name in names.values() for row in old[name] if _about(row) not in again] + list(new)
        for side, name in names.items():
            rows[name] = [row for row in found if (prompt_key(row.prompt) in heldout) is (side == "heldout")]
    return rows


def _earlier(ctx: StageContext) -> dict[str, list[Comparison | Judgement]]:
    """The rows of the round before, by the name of their file; none in the first round."""
    directory = ctx.inputs.get("pairs")
    found: dict[str, list[Comparison | Judgement]] = {}
    for kind, names in ((Comparison, COMPARISONS), (Judgement, JUDGEMENTS)):
        for name in names.values():
            found[name] = []
            if directory is not None and (directory / name).exists():
                found[name] += read_rows(directory / name, kind)
    return found


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


def _write_agreement(ctx: StageContext, reports: Sequence[AgreementReport]) -> None:
    data = {"simulated": any(report.simulated for report in reports), "questions": [one.as_dict() for one in reports]}
    write_atomic(ctx.out / "agreement.json", json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    write_atomic(ctx.out / "agreement.txt", plain(reports))
    for line in (line for report in reports for line in summary(report)):
        ctx.reporter.info(f"labels: {line}")


def _figures(found: LabelSet, report: AgreementReport) -> dict[str, Any]:
    given = [label for label in found.labels if not label.skipped]
    seconds = [label.seconds for label in given if label.seconds is not None]
    controls = [one.controls for one in report.annotators if one.controls.value is not None]
    seen = sum(figure.n for figure in controls)
    return {
        "labels": len(given),
        "skipped": len(found.labels) - len(given),
        "flagged": sum(label.flagged for label in found.labels),
        "annotators": len({label.annotator for label in found.labels}),
        "tasks": sum(task.control is None for task in found.tasks.values()),
        "controls": sum(task.control is not None for task in found.tasks.values()),
        "alpha": report.alpha.value,
        "alpha_low": report.alpha.low,
        "alpha_high": report.alpha.high,
        "pairwise_agreement": report.pairwise.value,
        "control_accuracy": sum((one.value or 0) * one.n for one in controls) / seen if seen else None,
        "median_seconds": statistics.median(seconds) if seconds else None,
        "suspicious": len(report.suspicious),
    }
