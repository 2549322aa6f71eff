"""The `labels` stage: the sampled answers are judged by people, for whom a run waits, or by simulated annotators."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.errors import DataError, PeopleNeeded
from pipelines.labels.agreement.agreement_report import AgreementReport
from pipelines.labels.agreement.agreement_text import plain
from pipelines.labels.agreement.measures import agreement, summary
from pipelines.labels.label_types import LabelSet, Task
from pipelines.labels.questions import questions_of
from pipelines.labels.simulated.simulated_annotators import Pool, answer_all, find_truth
from pipelines.labels.store.records import Settings
from pipelines.labels.store.store import LabelStore
from pipelines.labels.task_sources import control_tasks
from pipelines.labels.tasks_file import TASKS, copy_sides, read_tasks, write_tasks
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
        label_set = store.snapshot()
    # when a simulated label was written says nothing, and would make equal runs differ
    return replace(label_set, labels=[replace(given, time=None) for given in label_set.labels])


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
    return now.label_set


@dataclass(frozen=True)
class LabelProgress:
    """Progress of people with the tasks of a round.

    Attributes:
        missing: how many answers are still needed, by task.
        given_up: tasks that will never have as many as they should.
        words: what is still needed, and who has done how much.
    """

    label_set: LabelSet
    missing: Mapping[str, int]
    given_up: int
    people: int
    words: str


def standing(store: LabelStore, asked: LabelSet, overlap: int) -> LabelProgress:
    """Measure the progress with the tasks `asked`, each of which needs `overlap` answers."""
    people = [one for one in store.progress().annotators if not one.simulated]
    label_set = _of_round(store.snapshot(), asked)
    missing, given_up = _missing(label_set, overlap, len(people))
    said = [f"{one.name} has done {one.done} and has {one.left} left" for one in people] or ["nobody judges them yet"]
    done = "; ".join([*said, *(["the admin has paused the page"] if store.paused else [])])
    tasks = len(asked.tasks)
    words = (
        f"{sum(missing.values())} of {overlap * tasks} answers are still needed, to {len(missing)} of {tasks} tasks "
        f"({done})"
        if missing
        else "all answers are there: `rlhf all` goes on"
    )
    return LabelProgress(label_set, missing, given_up, len(people), words)


def describe_wait(config: Config, run: RunDir, stage: str) -> str:
    """Describe what the `labels` stage of that name waits for at present.

    Raises:
        DataError, ConflictError: the tasks or the store cannot be read.
    """
    _, number = split_round(stage)
    asked = read_tasks(run.stage(in_round("sample", number)) / TASKS)
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


def _missing(label_set: LabelSet, overlap: int, people: int) -> tuple[dict[str, int], int]:
    """Count the answers still needed, by task, and the tasks that will never get as many as they should.

    These are the ones that somebody skipped and everybody has looked at: nobody is left to wait for. Unless there are
    fewer people than it takes, who cannot settle anything.
    """
    looks: dict[str, list[bool]] = {task.id: [] for task in label_set.tasks.values() if task.control is None}
    for label in label_set.labels:
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
    label_set = simulated_labels(ctx, list(asked.tasks.values())) if simulated else human_labels(ctx, asked)
    write_tasks(ctx.out / TASKS, label_set)
    copy_sides(path.parent, ctx.out)
    reports = [agreement(label_set, question.name, seed=ctx.config.run.seed) for question in label_set.questions]
    _write_agreement(ctx, reports)
    for pattern in dict.fromkeys(pattern for report in reports for pattern in report.suspicious):
        ctx.reporter.warn(f"labels: look at {pattern}")
    return _figures(label_set, reports[0])


def _write_agreement(ctx: StageContext, reports: Sequence[AgreementReport]) -> None:
    data = {"simulated": any(report.simulated for report in reports), "questions": [one.as_dict() for one in reports]}
    write_atomic(ctx.out / "agreement.json", json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    write_atomic(ctx.out / "agreement.txt", plain(reports))
    for line in (line for report in reports for line in summary(report)):
        ctx.reporter.info(f"labels: {line}")


def _figures(label_set: LabelSet, report: AgreementReport) -> dict[str, Any]:
    given = [label for label in label_set.labels if not label.skipped]
    seconds = [label.seconds for label in given if label.seconds is not None]
    controls = [one.controls for one in report.annotators if one.controls.value is not None]
    seen = sum(figure.n for figure in controls)
    return {
        "labels": len(given),
        "skipped": len(label_set.labels) - len(given),
        "flagged": sum(label.flagged for label in label_set.labels),
        "annotators": len({label.annotator for label in label_set.labels}),
        "tasks": sum(task.control is None for task in label_set.tasks.values()),
        "controls": sum(task.control is not None for task in label_set.tasks.values()),
        "alpha": report.alpha.value,
        "alpha_low": report.alpha.low,
        "alpha_high": report.alpha.high,
        "pairwise_agreement": report.pairwise.value,
        "control_accuracy": sum((one.value or 0) * one.n for one in controls) / seen if seen else None,
        "median_seconds": statistics.median(seconds) if seconds else None,
        "suspicious": len(report.suspicious),
    }
