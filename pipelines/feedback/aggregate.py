"""One opinion out of several annotators': which answer of a pair is better, by how much, and how many think so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.feedback.annotators import correlation, mean_of_others, with_rest
from pipelines.feedback.control_answers import control_answers
from pipelines.feedback.names import is_unknown
from pipelines.feedback.strengths import bradley_terry, plackett_luce
from pipelines.feedback.types import LabelSet
from pipelines.feedback.votes import Floats, Ints, Votes, verdicts

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
    """How much each annotator's vote counts; 1 is the usual weight.

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
        found, n = _skill_by_rest(votes, rows)
        right = controls.get(name, [])
        m = len(right)
        evidence[name] = n + m
        skill[name] = (n * found + sum(2 * share - 1 for share in right)) / max(n + m, 1)
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
