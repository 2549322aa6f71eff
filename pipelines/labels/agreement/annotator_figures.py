"""Figures of each annotator: agreement with the others, control tasks, bias for place and length, speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.labels.label_types import Label, LabelSet, Question, Task, is_unknown
from pipelines.labels.votes import Floats, Ints, Votes, row_means, verdicts, votes_of
from pipelines.report.estimates import Estimate
from pipelines.report.statistics import wilson


@dataclass(frozen=True)
class ControlAnswers:
    """The answers to the control tasks of one question; share: [L] how much each got right, NaN if nothing is known."""

    votes: Votes
    share: Floats

    @property
    def contradicted(self) -> tuple[Task, ...]:
        """Control tasks whose key most people contradict: two or more answered, and less than half of it was right.

        Then the key is more likely wrong than the people, and it counts for nobody.
        """
        return tuple(self.votes.tasks[index] for index in np.flatnonzero(self._against))

    @property
    def _against(self) -> Ints:
        """[T] 1 or 0"""
        known, size = ~np.isnan(self.share), len(self.votes.tasks)
        task = self.votes.task[known]
        answers, right = np.bincount(task, minlength=size), np.bincount(task, self.share[known], size)
        return ((answers >= 2) & (right < answers / 2)).astype(np.int64)

    def by_annotator(self) -> dict[str, list[float]]:
        """The shares of each annotator, one a control task; without the tasks whose key is contradicted."""
        against = self._against[self.votes.task]
        shares: dict[str, list[float]] = {}
        for person, share, left_out in zip(self.votes.annotator, self.share, against, strict=True):
            if not np.isnan(share) and not left_out:
                shares.setdefault(self.votes.annotators[person], []).append(float(share))
        return shares


def control_answers(labels: LabelSet, question: Question) -> ControlAnswers:
    """Return the answers to the control tasks of a question that is not a demonstration.

    Right are pairs of answers in the known order (a tie is half), equal 0/1, on a scale what is at most a quarter of
    its length off.
    """
    votes = votes_of(labels, question, control=True)
    known = np.full((len(votes.tasks), votes.value.shape[1]), np.nan)
    for index, task in enumerate(votes.tasks):
        if task.control is not None and question.name in task.control:
            value = task.control[question.name]
            known[index, : len(value)] = value
    known = known[votes.task]
    if votes.ranked:
        right, given = verdicts(-known), verdicts(votes.worth)
        return ControlAnswers(
            votes, row_means(np.where(np.nan_to_num(right) == 0, np.nan, 1 - np.abs(given - right) / 2))
        )
    allowed = (question.points - 1) / 4 if question.kind == "scale" else 0.0
    off = np.abs(votes.value - known)
    return ControlAnswers(votes, row_means(np.where(np.isnan(off), np.nan, off <= allowed)))


@dataclass(frozen=True)
class AnnotatorFigures:
    """One annotator. Intervals are Wilson's with tasks as trials, unless something else is said.

    Attributes:
        name: as in the labels.
        simulated: nobody human.
        labels: answers to the question, without control tasks.
        skipped: tasks that this person skipped.
        flagged: tasks that this person flagged.
        rest: agreement with all others of the same tasks together, this person left out: with the order by their mean
            rank, pair by pair, or with their majority; where either is a tie, half. Of a scale, the correlation
            (Pearson's, with Fisher's interval) with the mean of the others. `n`: tasks shared with others.
        controls: share of what is known of the control tasks that this person got right: pairs of answers in the known
            order (a tie is half), equal 0/1, on a scale at most a quarter of its length off. Without those whose key
            most people contradict (see `ControlAnswers`). `n`: control tasks.
        first_shown: how often the answer shown first came out best; ties for the best share it.
        first_expected: the same if the place did not matter; None where it cannot be told.
        longer_wins: the share of pairs of answers, ties and equal lengths left out, that the longer one wins.
        length_correlation: rankings: Kendall's tau-b between worth and length over all pairs of answers of one task;
            0/1 and scales: Pearson's correlation of value and length over all answers.
        timed: tasks whose time is known, without control tasks and skipped ones.
        seconds: their median.
        characters_per_second: median of what there was to read that is new (see `new_characters`) per second.
        patterns: what looks like careless work, in words with its figure. A fact, not a judgement.
    """

    name: str
    simulated: bool
    labels: int
    skipped: int
    flagged: int
    rest: Estimate
    controls: Estimate
    first_shown: Estimate
    first_expected: float | None
    longer_wins: Estimate
    length_correlation: float | None
    timed: int
    seconds: float | None
    characters_per_second: float | None
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True)
class People:
    """All annotators whose name is known, and what all labels say together."""

    annotators: tuple[AnnotatorFigures, ...]
    longer_wins: Estimate


def figures_of(labels: LabelSet, question: Question, votes: Votes) -> People:
    """Figures of everybody known who has any label, by name; without patterns.

    Labels of unknown people count among the others' only: who is unknown-1 of one task need not be that of another.
    """
    names = sorted({label.annotator for label in labels.labels if not is_unknown(label.annotator)})
    by_name: dict[str, list[Label]] = {name: [] for name in names}
    for label in labels.labels:
        if label.annotator in by_name:
            by_name[label.annotator].append(label)
    writing = question.kind == "demonstration"
    controls = control_answers(labels, question).by_annotator() if not writing else {}
    rest = with_rest(votes)
    rest_mean = mean_of_others(votes)
    first, expected = first_place(votes)
    length = _lengths(votes)
    longer, tau_parts = lengths_against_worth(votes, length)
    number = {name: index for index, name in enumerate(votes.annotators)}
    figures = []
    for name in names:
        rows = np.flatnonzero(votes.annotator == number.get(name, -1))
        own = by_name[name]
        answered = [one for one in own if question.name in one.values and labels.tasks[one.task].control is None]
        timed, seconds, speed = _speed(answered, new_characters(own, labels.tasks))
        shown = _shown_first(votes, rows, first)
        figures.append(
            AnnotatorFigures(
                name=name,
                simulated=all(label.simulated for label in own),
                labels=sum(not label.skipped for label in answered),
                skipped=sum(label.skipped for label in own),
                flagged=sum(label.flagged for label in own),
                rest=_rest_figure(votes, rows, rest, rest_mean),
                controls=share_figure(np.array(controls.get(name, [])), "no control task answered"),
                first_shown=shown,
                first_expected=None if shown.value is None else float(np.nanmean(expected[rows])),
                longer_wins=_longer_figure(longer, rows),
                length_correlation=_tau(tau_parts[rows])
                if votes.ranked
                else correlation(votes.value[rows], length[votes.task[rows]]).value,
                timed=timed,
                seconds=seconds,
                characters_per_second=speed,
            )
        )
    return People(tuple(figures), _longer_figure(longer, np.arange(len(votes.labels))))


def share_figure(values: Floats, reason: str) -> Estimate:
    """The mean of shares, one trial each, with Wilson's interval; NaN counts for nothing."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate.none(reason)
    return Estimate(float(values.mean()), *wilson(float(values.sum()), len(values)), n=len(values))


def mean_of_others(votes: Votes) -> Floats:
    """[L, K] mean worth that the other annotators of the same task give; NaN where there are none."""
    others = np.bincount(votes.task, minlength=len(votes.tasks))[votes.task] - 1
    if not len(others):
        return np.zeros_like(votes.value)
    total = votes.by_task(votes.worth)[votes.task] - votes.worth
    return total / np.where(others > 0, others, np.nan)[:, None]


def with_rest(votes: Votes) -> Floats:
    """[L] agreement of each label of a ranking or of 0/1 with the others of its task together; NaN: there are none."""
    others = mean_of_others(votes)
    if votes.ranked:
        return row_means(1 - np.abs(verdicts(votes.worth) - verdicts(others)) / 2)
    majority = np.where(np.isnan(others), np.nan, (1 + np.sign(others - 0.5)) / 2)
    return row_means(1 - np.abs(votes.value - majority))


def correlation(own: Floats, others: Floats, z: float = 1.959964) -> Estimate:
    """Pearson's correlation of two arrays with NaN in them, with Fisher's interval."""
    known = ~np.isnan(own) & ~np.isnan(others)
    one, two, n = own[known], others[known], int(known.sum())
    if n < 4:
        return Estimate.none("fewer than four answers were judged by others too")
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return Estimate.none("the values never vary")
    correlation = float(np.clip(np.corrcoef(one, two)[0, 1], -1, 1))
    if abs(correlation) > 1 - 1e-12:
        return Estimate(round(correlation), round(correlation), round(correlation), n)
    middle, half = math.atanh(correlation), z / math.sqrt(n - 3)
    return Estimate(correlation, math.tanh(middle - half), math.tanh(middle + half), n)


def _rest_figure(votes: Votes, rows: Ints, rest: Floats, others: Floats) -> Estimate:
    if votes.question.kind == "scale":
        return correlation(votes.value[rows], others[rows])
    return share_figure(rest[rows], "nobody else judged the same tasks")


def first_place(votes: Votes) -> tuple[Floats, Floats]:
    """[L] credit of the answer shown first for being the best (1, or less where several tie), and what chance gives.

    NaN where the order is not known, or there is one answer.
    """
    credit, expected = np.full(len(votes.labels), np.nan), np.full(len(votes.labels), np.nan)
    worth = votes.worth
    for row, label in enumerate(votes.labels):
        if len(label.order) > 1:
            known = worth[row, : len(label.order)]
            best = known == known.max()
            credit[row] = best[label.order[0]] / best.sum()
            expected[row] = 1 / len(label.order)
    return credit, expected


def shuffled(orders: Sequence[tuple[int, ...]]) -> bool:
    """Whether answers were shown in different orders: else a place cannot be told from the answer that stands there."""
    return len({order for order in orders if len(order) > 1}) > 1


def _shown_first(votes: Votes, rows: Ints, credit: Floats) -> Estimate:
    orders = [votes.labels[row].order for row in rows]
    if not any(orders):
        return Estimate.none("the order on the page is not known")
    if not shuffled(orders):
        return Estimate.none("the answers were not shuffled")
    return share_figure(credit[rows], "no task has two answers")


def _lengths(votes: Votes) -> Floats:
    """[T, K] characters of each answer; NaN where a task has fewer."""
    length = np.full((len(votes.tasks), votes.value.shape[1]), np.nan)
    for index, task in enumerate(votes.tasks):
        length[index, : len(task.answers)] = [len(answer.text) for answer in task.answers]
    return length


def lengths_against_worth(votes: Votes, length: Floats) -> tuple[Floats, Floats]:
    """Count how often the longer answer of a pair is the better one.

    [L, 2]: pairs that the longer answer wins, pairs in which the longer wins or loses; and [L, 3]: the sum of products
    of the two verdicts, and the sums of their squares.
    """
    by_length = np.nan_to_num(verdicts(length))[votes.task]
    by_worth = np.nan_to_num(verdicts(votes.worth))
    product = by_length * by_worth
    longer = np.stack([(product > 0).sum(axis=1), (product != 0).sum(axis=1)], axis=1).astype(np.float64)
    parts = np.stack([product.sum(axis=1), (by_length**2).sum(axis=1), (by_worth**2).sum(axis=1)], axis=1)
    return longer, parts


def _longer_figure(longer: Floats, rows: Ints) -> Estimate:
    wins, pairs = longer[rows].sum(axis=0) if len(rows) else (0.0, 0.0)
    if not pairs:
        return Estimate.none("no pair of answers of different length and worth")
    share, tasks = float(wins / pairs), int((longer[rows][:, 1] > 0).sum())
    return Estimate(share, *wilson(share * tasks, tasks), n=int(pairs))


def _tau(parts: Floats) -> float | None:
    product, one, two = parts.sum(axis=0) if len(parts) else (0.0, 0.0, 0.0)
    return float(product / math.sqrt(one * two)) if one * two > 0 else None


def _speed(labels: Sequence[Label], new: Mapping[str, int]) -> tuple[int, float | None, float | None]:
    """Return the number of labels with a known time, and the medians of seconds and of new characters per second."""
    timed = [(label, label.seconds) for label in labels if label.seconds is not None and not label.skipped]
    if not timed:
        return 0, None, None
    seconds = np.array([taken for _, taken in timed])
    read = np.array([new[label.task] for label, _ in timed])
    return len(timed), float(np.median(seconds)), float(np.median(read / np.maximum(seconds, 0.01)))


def new_characters(labels: Sequence[Label], tasks: Mapping[str, Task]) -> dict[str, int]:
    """Count the characters of each task that the annotator had not read before.

    Answers always count. A turn of a prompt counts at the first task that has it: nobody reads a system prompt that all
    tasks share again and again. Labels without a time are taken in their order.
    """
    seen: set[tuple[str, str]] = set()
    characters = {}
    for label in sorted(labels, key=lambda one: one.time or ""):
        task = tasks[label.task]
        turns = {(turn.role, turn.content) for turn in task.prompt} - seen
        seen |= turns
        characters[task.id] = sum(len(text) for _, text in turns) + sum(len(answer.text) for answer in task.answers)
    return characters
