"""Agreement of annotators: Krippendorff's alpha, Kendall's tau, pairwise agreement, and disputed tasks."""

from __future__ import annotations

import math

import numpy as np

from pipelines.labels.agreement import alpha as alphas
from pipelines.labels.agreement import careless_patterns as suspicion
from pipelines.labels.agreement.agreement_report import AgreementReport, Contradicted, Disputed, Flagged, PairFigures
from pipelines.labels.agreement.annotator_figures import control_answers, figures_of
from pipelines.labels.label_types import LabelSet, Question, Task, is_unknown
from pipelines.labels.votes import Floats, Ints, Votes, verdicts, votes_of
from pipelines.report.estimates import Estimate, many
from pipelines.report.statistics import wilson

MOST_LISTED = 10
"""Tasks in the list of those with the most disagreement."""
QUICK = 200
"""Resamples where a rough interval will do."""


def agreement(
    labels: LabelSet, question: str | None = None, *, seed: int = 0, bootstrap: int = 1000
) -> AgreementReport:
    """Agreement of the annotators on the question of that name; None: on the first one.

    `bootstrap` is the number of resamples; 0: no intervals of alpha and pairwise agreement.

    Raises:
        KeyError: there is no such question.
    """
    asked = labels.question(question)
    votes = votes_of(labels, asked) if asked.kind != "demonstration" else _nothing(asked)
    answered = list(labels.answered(asked.name))
    first, second = votes.label_pairs()
    level: alphas.Level = "nominal" if asked.kind == "binary" else "ordinal"
    same = _agreements(votes, first, second)
    reason = _why_not(votes, len(answered), len(first))
    people = figures_of(labels, asked, votes)
    return AgreementReport(
        question=asked.name,
        kind=asked.kind,
        level=level,
        tasks=len({task.id for task, _, _ in answered}),
        overlapping=len(np.unique(votes.task[first])),
        labels=len(answered),
        simulated_labels=sum(label.simulated for _, label, _ in answered),
        unknown_labels=sum(is_unknown(label.annotator) for _, label, _ in answered),
        alpha=Estimate.none(reason) if reason else _alpha(votes, level, seed, bootstrap),
        tau=Estimate.none(reason) if reason else _tau(votes, first, second),
        pairwise=Estimate.none(reason) if reason else _pairwise(votes, same, first, seed, bootstrap),
        chance=None if reason else _chance(votes),
        pairs=_pairs(votes, same, first, second),
        longer_wins=people.longer_wins,
        annotators=suspicion.with_patterns(votes, people.annotators),
        contradicted=_contradicted(labels, asked),
        disputed=_disputed(votes, _distances(votes, same, first, second), first),
        flagged=_flagged(labels),
        notes=dict(labels.notes),
    )


def summary(report: AgreementReport) -> list[str]:
    """Summarize a report in lines: alpha, pairwise agreement, and the number of careless patterns."""
    alike = report.pairwise.text(percent=True)
    if report.chance is not None and report.pairwise.value is not None:
        alike += f" (by chance {100 * report.chance:.0f} %)"
    lines = [f"{report.question}: {_line(report)}"]
    if report.pairwise.value is not None:
        lines.append(f"{report.question}: two annotators agree on {alike}")
    if report.suspicious:
        lines.append(f"{report.question}: {many(len(report.suspicious), 'pattern')} worth a look")
    return lines


def agreement_lines(labels: LabelSet) -> list[dict[str, str]]:
    """One line for each question, ``{"question": name, "text": ...}``; quick enough to make again and again."""
    reports = [agreement(labels, question.name, bootstrap=QUICK) for question in labels.questions]
    return [{"question": report.question, "text": _line(report)} for report in reports]


def _line(report: AgreementReport) -> str:
    """``alpha .61 [.55, .67] ordinal, 3 annotators, 30 tasks``."""
    level = "" if report.alpha.value is None else f" {report.level}"
    of_both = f" ({report.overlapping} of them judged by two or more)" if report.overlapping < report.tasks else ""
    text = f"alpha {report.alpha.text()}{level}, {report.who}, {many(report.tasks, 'task')}{of_both}"
    return f"{text}; simulated: {report.whose}" if report.simulated else text


def _nothing(question: Question) -> Votes:
    none = np.zeros(0, dtype=np.int64)
    return Votes(question, (), (), (), none, none, np.zeros((0, 0)))


def _why_not(votes: Votes, answered: int, pairs: int) -> str | None:
    """Return the reason why agreement cannot be computed; None: it can."""
    if not answered:
        return "no task has an answer"
    if votes.question.kind == "demonstration":
        return "written texts are not compared"
    # the unknown person of one task need not be that of another
    if len(votes.annotators) < 2 and not any(map(is_unknown, votes.annotators)):
        return "one annotator only"
    return None if pairs else "no task was judged by two annotators"


def _alpha(votes: Votes, level: alphas.Level, seed: int, bootstrap: int) -> Estimate:
    counts, domain = alphas.value_counts(votes)
    counts = counts[(counts.sum(axis=-1) >= 2).any(axis=-1)]
    together, size = alphas.coincidences(counts), len(domain)
    value = float(alphas.alphas_of(together.sum(axis=0)[None], level)[0])
    if math.isnan(value):
        return Estimate.none("all values are equal")
    by_task = together.reshape(len(counts), -1)
    statistic = lambda sums: alphas.alphas_of(sums.reshape(-1, size, size), level)  # noqa: E731
    low, high = alphas.interval(by_task, statistic, seed=seed, samples=bootstrap) or (None, None)
    return Estimate(value, low, high, len(counts))


def _agreements(votes: Votes, first: Ints, second: Ints) -> Floats:
    """[N, C] agreement of every two labels of a task, by pair of answers or by answer; NaN: there is none such."""
    if votes.ranked:
        which = verdicts(votes.worth)
        return 1 - np.abs(which[first] - which[second]) / 2
    value = votes.value
    return np.where(np.isnan(value[first]), np.nan, value[first] == value[second])


def _tau(votes: Votes, first: Ints, second: Ints) -> Estimate:
    """Mean of Kendall's tau-b (Kendall 1945); undefined where somebody ties everything."""
    if not votes.ranked:
        return Estimate.none("only rankings have it")
    which = np.nan_to_num(verdicts(votes.worth))
    strict = (which**2).sum(axis=1)
    scale = np.sqrt(strict[first] * strict[second])
    taus = (which[first] * which[second]).sum(axis=1)[scale > 0] / scale[scale > 0]
    if not len(taus):
        return Estimate.none("everything is tied")
    return Estimate(float(taus.mean()), n=len(taus))


def _pairwise(votes: Votes, same: Floats, first: Ints, seed: int, bootstrap: int) -> Estimate:
    known = ~np.isnan(same)
    if not known.any():
        return Estimate.none("no task has two answers")
    tasks = len(votes.tasks)
    task = votes.task[first]
    sums = np.bincount(task, np.nansum(same, axis=1), tasks)
    counts = np.bincount(task, known.sum(axis=1), tasks)
    by_task = np.stack([sums, counts], axis=1)[counts > 0].astype(np.float64)
    bounds = alphas.interval(by_task, lambda drawn: drawn[:, 0] / drawn[:, 1], seed=seed, samples=bootstrap)
    low, high = bounds or (None, None)
    return Estimate(float(sums.sum() / counts.sum()), low, high, int(known.sum()))


def _chance(votes: Votes) -> float | None:
    """Agreement of two who draw their answers from all that were given, whatever the task.

    Two verdicts on a pair of answers of which a share t is tied: both tied (1), one (half), or none of them, and then
    alike half of the time, are (1 + t^2) / 2 together. Two values: the sum of the squared shares.
    """
    if votes.ranked:
        which = verdicts(votes.worth)
        known = which[~np.isnan(which)]
        return float((1 + (known == 0).mean() ** 2) / 2) if len(known) else None
    _, counts = np.unique(votes.value[~np.isnan(votes.value)], return_counts=True)
    return float(((counts / counts.sum()) ** 2).sum())


def _pairs(votes: Votes, same: Floats, first: Ints, second: Ints) -> tuple[PairFigures, ...]:
    people = len(votes.annotators)
    couple = votes.annotator[first] * people + votes.annotator[second]
    known = (~np.isnan(same)).sum(axis=1)
    size = people * people
    sums, counts = np.bincount(couple, np.nansum(same, axis=1), size), np.bincount(couple, known, size)
    tasks = np.bincount(couple, known > 0, size).astype(int)
    figures = []
    for one in np.flatnonzero(tasks):
        share = float(sums[one] / counts[one])
        low, high = wilson(share * tasks[one], int(tasks[one]))
        names = votes.annotators[one // people], votes.annotators[one % people]
        if any(map(is_unknown, names)):
            continue
        figures.append(PairFigures(*names, Estimate(share, low, high, n=int(counts[one])), int(tasks[one])))
    return tuple(figures)


def _distances(votes: Votes, same: Floats, first: Ints, second: Ints) -> Floats:
    """[N, C] how far two labels are apart, 0 to 1."""
    if votes.question.kind != "scale":
        return 1 - same
    return np.abs(votes.value[first] - votes.value[second]) / (votes.question.points - 1)


def _disputed(votes: Votes, apart: Floats, first: Ints) -> tuple[Disputed, ...]:
    known = (~np.isnan(apart)).sum(axis=1)
    task, tasks = votes.task[first], len(votes.tasks)
    counts = np.bincount(task, known, tasks)
    spread = np.bincount(task, np.nansum(apart, axis=1), tasks) / np.maximum(counts, 1)
    disputed = []
    for index in np.argsort(-spread, kind="stable")[:MOST_LISTED]:
        if spread[index] <= 0:
            break
        rows = np.flatnonzero(votes.task == index)
        values = {votes.labels[row].annotator: _given(votes, int(row)) for row in rows}
        one = votes.tasks[index]
        disputed.append(Disputed(one.id, _last_turn(one), float(spread[index]), values))
    return tuple(disputed)


def _contradicted(labels: LabelSet, question: Question) -> tuple[Contradicted, ...]:
    if question.kind == "demonstration":
        return ()
    answers = control_answers(labels, question)
    contradicted = []
    for task in answers.contradicted:
        rows = [row for row, label in enumerate(answers.votes.labels) if label.task == task.id]
        values = {answers.votes.labels[row].annotator: _given(answers.votes, row) for row in rows}
        contradicted.append(Contradicted(task.id, _last_turn(task), tuple((task.control or {})[question.name]), values))
    return tuple(contradicted)


def _given(votes: Votes, row: int) -> tuple[int, ...]:
    value = votes.labels[row].values[votes.question.name]
    return () if isinstance(value, str) else tuple(value)


def _flagged(labels: LabelSet) -> tuple[Flagged, ...]:
    return tuple(
        Flagged(label.task, _last_turn(labels.tasks[label.task]), label.annotator, label.comment)
        for label in labels.labels
        if label.flagged
    )


def _last_turn(task: Task) -> str:
    return task.prompt[-1].content
