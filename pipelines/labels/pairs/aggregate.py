"""Aggregation of several annotators: the better answer of a pair, the margin, and the share that prefers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np

from pipelines.errors import DataError
from pipelines.labels.agreement.annotator_figures import control_answers, correlation, mean_of_others, with_rest
from pipelines.labels.label_types import LabelSet, is_unknown
from pipelines.labels.votes import Floats, Ints, Votes, verdicts

PENALTY = 0.125
"""Penalty on the square of a strength: a prior with a standard deviation of 2. One vote for one of two answers
gives a difference of 1.5, three of three 2.3, ten of ten 3.7."""
MOST_TIED = 8
"""Answers of one tie that Plackett-Luce can take: it looks at every subset of them."""


def fit(chosen: Floats, sets: Floats, task: Ints, tasks: int, *, penalty: float = PENALTY) -> Floats:
    """Strengths that make the choices likely, by Newton's method on all tasks together.

    Args:
        chosen: [M, K] how often each answer of the set was chosen, fractions allowed.
        sets: [M, K], 1 for the answers that could have been chosen.
        task: [M], the task of each row, one of T.
        penalty: of the squared strengths; above 0.

    Returns:
        [T, K] strengths; the differences within a task are log-odds. An answer in no set has 0.
    """
    size = chosen.shape[1]
    strengths = np.zeros((tasks, size))
    weight = chosen.sum(axis=1, keepdims=True)
    wins = np.zeros((tasks, size))
    np.add.at(wins, task, chosen)
    for _ in range(100):
        logits = np.where(sets > 0, strengths[task], -np.inf)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        share = odds / odds.sum(axis=1, keepdims=True)
        expected = np.zeros((tasks, size))
        np.add.at(expected, task, weight * share)
        gradient = wins - expected - 2 * penalty * strengths
        if np.abs(gradient).max(initial=0.0) < 1e-9:
            break
        curvature = np.zeros((tasks, size, size))
        np.add.at(curvature, task, -weight[:, :, None] * share[:, :, None] * share[:, None, :])
        diagonal = np.arange(size)
        curvature[:, diagonal, diagonal] += expected + 2 * penalty
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        # far from the solution the quadratic is a poor picture: a step is never longer than 1
        strengths += step / np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
    return strengths


def bradley_terry(votes: Votes, wins: Floats, task: Ints) -> Floats:
    """[T, K] strengths from pairwise wins.

    `wins`: [T, P, 2] weighted votes for the earlier and for the later answer of each pair, a tie half a vote for each.
    `task`: [T], 0 to T - 1.
    """
    size = votes.value.shape[1]
    pairs = list(combinations(range(size), 2))
    chosen, sets = np.zeros((len(task), len(pairs), size)), np.zeros((len(pairs), size))
    for number, (one, two) in enumerate(pairs):
        chosen[:, number, one], chosen[:, number, two] = wins[:, number, 0], wins[:, number, 1]
        sets[number, [one, two]] = 1
    flat = chosen.reshape(-1, size)
    some = flat.sum(axis=1) > 0
    rows = np.broadcast_to(sets, chosen.shape).reshape(-1, size)[some]
    return fit(flat[some], rows, np.repeat(task, len(pairs))[some], len(votes.tasks))


def plackett_luce(votes: Votes, weights: Floats) -> Floats:
    """[T, K] strengths from whole rankings.

    The best answer is chosen from all, the next from the rest, and so on. A tie stands for all orders that break it,
    each with the same share of the vote; two answers tied are thus half a vote for each, as for Bradley-Terry.

    `weights`: [L] of the labels.

    Raises:
        DataError: more than `MOST_TIED` answers are tied.
    """
    known: dict[tuple[float, ...], list[tuple[Floats, Floats]]] = {}
    chosen, sets, task = [], [], []
    for row, worth in enumerate(votes.worth):
        key = tuple(np.nan_to_num(worth, nan=-np.inf))
        if key not in known:
            try:
                known[key] = _stages(worth)
            except ValueError as error:
                raise DataError(
                    f"task {votes.tasks[votes.task[row]].id}: {error}", hint="use method bradley_terry"
                ) from error
        for picked, among in known[key]:
            chosen.append(weights[row] * picked)
            sets.append(among)
            task.append(votes.task[row])
    size = votes.value.shape[1]
    rows = np.array(chosen).reshape(-1, size), np.array(sets).reshape(-1, size)
    return fit(*rows, np.array(task, dtype=np.int64), len(votes.tasks))


def _stages(worth: Floats) -> list[tuple[Floats, Floats]]:
    """The choices that a ranking stands for: [K] how often each answer is chosen, and [K] from which."""
    pairs = []
    for value in sorted(set(worth[~np.isnan(worth)]), reverse=True):
        tied, below = np.flatnonzero(worth == value), worth < value
        if len(tied) > MOST_TIED:
            raise ValueError(f"{len(tied)} answers are tied, more than Plackett-Luce can take ({MOST_TIED})")
        for left in range(1, len(tied) + 1):
            for subset in combinations(tied, left):
                among = below.astype(np.float64)
                among[list(subset)] = 1
                if among.sum() < 2:  # what is left over at the end is no choice
                    continue
                # of all orders of the tie, the share in which just these are left at some point
                picked = np.zeros(len(worth))
                picked[list(subset)] = 1 / comb(len(tied), left) / left
                pairs.append((picked, among))
    return pairs


Method = Literal["mean_rank", "majority", "bradley_terry", "plackett_luce"]
PRIOR_TASKS = 20
"""A weight is half-way to what the evidence says after this many tasks."""
MOST_WEIGHT = 2.0


@dataclass(frozen=True)
class Verdicts:
    """The common opinion on each pair of answers; pairs in the order of `numpy.triu_indices`.

    Attributes:
        margin: [T, P] by how much the earlier answer is better, in units of the method; below 0: the later one is.
            NaN: nobody judged the pair.
        share: [T, P] share of the annotators, by weight, for the earlier answer; a tie is half.
        annotators: [T, P] how many judged the pair.
    """

    margin: Floats
    share: Floats
    annotators: Ints


def aggregate(votes: Votes, method: Method, weights: Mapping[str, float] | None = None) -> Verdicts:
    """The common opinion on each pair of answers of each task.

    - mean_rank: margin is the difference of the mean ranks, tied answers sharing the mean of their places.
    - majority: the difference of the shares that prefer the one and the other. Pair by pair, so that the opinions on
      three answers may go in a circle.
    - bradley_terry, plackett_luce: the difference of the strengths, which is log-odds; see `strengths`.

    Args:
        votes: rankings.
        method: one of them.
        weights: of each annotator's vote; None: all the same. Where all of a task's are 0, its pairs are judged by
            nobody.
    """
    weight = np.array([1.0 if weights is None else weights[name] for name in votes.annotators])
    weight = weight[votes.annotator] if len(votes.labels) else np.zeros(0)
    which = verdicts(votes.worth)
    known = ~np.isnan(which)
    counted = known & (weight > 0)[:, None]
    first = votes.by_task(np.where(known, (1 + which) / 2, 0.0) * weight[:, None])
    total = votes.by_task(known * weight[:, None])
    annotators = votes.by_task(counted).astype(np.int64)
    judged = annotators > 0
    share = np.where(judged, first / np.where(judged, total, 1), np.nan)
    if method == "majority":
        margin = 2 * share - 1
    else:
        worth = _worth(votes, method, weight, first, total)
        one, two = np.triu_indices(worth.shape[1], 1)
        margin = np.where(judged, worth[:, one] - worth[:, two], np.nan)
    # what should be a tie may be off by rounding
    return Verdicts(np.where(np.abs(margin) < 1e-7, 0.0, margin), share, annotators)


def _worth(votes: Votes, method: Method, weight: Floats, first: Floats, total: Floats) -> Floats:
    """[T, K] what each answer is worth by the method; higher is better."""
    if method == "mean_rank":
        return weighted_mean(votes, votes.worth, weight)
    if method == "bradley_terry":
        return bradley_terry(votes, np.stack([first, total - first], axis=-1), np.arange(len(votes.tasks)))
    return plackett_luce(votes, weight)


def weighted_mean(votes: Votes, numbers: Floats, weight: Floats) -> Floats:
    """[L, K] numbers and [L] weights -> [T, K] means; NaN where a task's weights are all 0."""
    total = votes.by_task(weight)
    return votes.by_task(numbers * weight[:, None]) / np.where(total > 0, total, np.nan)[:, None]


def reliability(labels: LabelSet, votes: Votes) -> dict[str, float]:
    """Weights of the annotators' votes; 1 is the usual weight.

    The skill of a person is how far agreement with the rest (see `AnnotatorFigures.rest`) goes beyond chance, 0 for
    chance and 1 for always: (agreement - chance) / (1 - chance), with chance 1/2 for rankings, and for 0/1 what the
    shares of ones on both sides give; on a scale, the correlation. Control tasks add to it in the same way. With n
    tasks shared with others and m control tasks,

        skill  = (n * skill(rest) + m * skill(controls)) / (n + m)
        weight = 1 + (n + m) / (n + m + 20) * (skill / usual - 1), at least 0 and at most 2,

    where `usual` is the mean skill, each person counting by n + m; and rounded to a tenth, so that chance differences
    between people who are equally good do not break their ties. So somebody of whom little is known counts 1, and
    somebody who answers by chance about 20 / (n + m + 20). Where the usual skill is not above 0 nothing
    can be told apart, and all count 1. Two annotators without control tasks agree equally with each other: 1 each.
    Unknown annotators (see `names`) count 1, and for nothing in `usual`.
    """
    evidence, skill = {}, {}
    controls = control_answers(labels, votes.question).by_annotator()
    for number, name in enumerate(votes.annotators):
        if is_unknown(name):
            continue
        rows = np.flatnonzero(votes.annotator == number)
        agreement, n = _skill_by_rest(votes, rows)
        right = controls.get(name, [])
        m = len(right)
        evidence[name] = n + m
        skill[name] = (n * agreement + sum(2 * share - 1 for share in right)) / max(n + m, 1)
    total = sum(evidence.values())
    usual = sum(evidence[name] * skill[name] for name in skill) / total if total else 0.0
    equal = dict.fromkeys(votes.annotators, 1.0)
    if usual <= 0:
        return equal
    return equal | {
        name: round(float(np.clip(1 + n / (n + PRIOR_TASKS) * (skill[name] / usual - 1), 0.0, MOST_WEIGHT)), 1)
        for name, n in evidence.items()
    }


def _skill_by_rest(votes: Votes, rows: Ints) -> tuple[float, int]:
    """Skill by agreement with the rest, and the number of tasks that it rests on."""
    others = mean_of_others(votes)[rows]
    shared = int((~np.isnan(others)).any(axis=1).sum())
    if votes.question.kind == "scale":
        return correlation(votes.value[rows], others).value or 0.0, shared
    agreement = with_rest(votes)[rows]
    agreement = agreement[~np.isnan(agreement)]
    if not len(agreement):
        return 0.0, 0
    chance = 0.5
    if not votes.ranked:
        known = ~np.isnan(others)
        one, two = votes.value[rows][known].mean(), (others[known] > 0.5).mean()
        chance = min(one * two + (1 - one) * (1 - two), 0.95)
    return float((agreement.mean() - chance) / (1 - chance)), len(agreement)
