"""Patterns that look like careless work. Each is a fact in words with its figure; what it means, people must judge.

Everything here would rather miss a careless person than name an honest one: limits are far from what noise, taste or
haste explain, and a pattern that others show on the same tasks is not one person's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.labels.agreement import annotator_figures as people
from pipelines.labels.votes import Floats, Ints, Votes, row_means, verdicts

Flags = NDArray[np.bool_]

READING_CHARACTERS = 50.0
"""Characters per second above which nobody reads: twice the silent reading of adults, which is 238 words or about 1,400
characters a minute (Brysbaert 2019, How many words do we read per minute?)."""
MUCH_FASTER = 3.0
"""Factor by which a speed must exceed the median of the others to be reported."""
NO_EXCUSE = 5.0
"""How many times `READING_CHARACTERS` somebody is named for, also where the others are as fast."""
FEWEST = 10
"""Tasks below which no pattern is named, control tasks where these are meant."""
USUAL_RIGHT = 0.8
"""Share of control tasks that people who pay attention are taken to get right, where the others do not show less."""
RARE = 1e-6
"""Probability below which chance is no explanation; small, as many people and places are looked at."""
SAME_PLACE = 0.8
ALL_TIED = 0.95
Z = 3.290527
"""Quantile of the normal distribution for an interval of 99.9 %."""


def with_patterns(votes: Votes, figures: Sequence[people.AnnotatorFigures]) -> tuple[people.AnnotatorFigures, ...]:
    """Return the figures with `patterns` filled in."""
    number = {name: index for index, name in enumerate(votes.annotators)}
    alike = _likeness(votes)
    complete = []
    for one in figures:
        rows = np.flatnonzero(votes.annotator == number.get(one.name, -1))
        patterns = [*_speed(one, figures)]
        if len(rows):
            patterns += [*_same_place(votes, rows), *_all_tied(votes, rows), *_all_equal(votes, rows)]
            patterns += _by_chance(votes, number[one.name], alike)
        patterns += _controls(one, figures)
        complete.append(replace(one, patterns=tuple(patterns)))
    return tuple(complete)


def _speed(one: people.AnnotatorFigures, figures: Sequence[people.AnnotatorFigures]) -> Iterator[str]:
    """Faster than anybody reads, and much faster than the others, where there are any; or faster than any haste."""
    speed = one.characters_per_second
    if one.timed < FEWEST or speed is None or speed <= READING_CHARACTERS:
        return
    others = [
        other.characters_per_second
        for other in figures
        if other.name != one.name and other.timed >= FEWEST and other.characters_per_second is not None
    ]
    usual = float(np.median(others)) if others else None
    if usual is None or speed >= min(MUCH_FASTER * usual, NO_EXCUSE * READING_CHARACTERS):
        beside = "people read about 25" if usual is None else f"the others: {usual:.0f}"
        yield (
            f"faster than reading: {speed:.0f} new characters per second, the median of {one.timed} tasks ({beside})"
        )


def _same_place(votes: Votes, rows: Ints) -> Iterator[str]:
    """One place of the page wins again and again, though the answers are shuffled."""
    orders = [votes.labels[row].order for row in rows]
    if not people.shuffled(orders):
        return
    places, chances = [], []
    for row, order in zip(rows, orders, strict=True):
        known = votes.worth[row, : len(order)]
        if len(order) > 1 and (known == known.max()).sum() == 1:
            places.append(order.index(int(known.argmax())))
            chances.append(1 / len(order))
    if len(places) < FEWEST:
        return
    counts = np.bincount(places)
    place, times, chance = int(counts.argmax()), int(counts.max()), float(np.mean(chances))
    if times / len(places) >= SAME_PLACE and at_least(times, len(places), chance) < RARE:
        yield (
            f"the same place wins: the answer shown at place {place + 1} came out best in {times} of {len(places)} "
            f"tasks ({chance:.0%} by chance)"
        )


def _all_tied(votes: Votes, rows: Ints) -> Iterator[str]:
    """Everything tied, where others see differences. Of the tasks that nobody else judged nothing is said."""
    others = _beside(votes, rows)
    rows = rows[np.isin(votes.task[rows], votes.task[others])]
    if not votes.ranked or len(rows) < FEWEST:
        return
    tied = _tied(votes)
    share, theirs = float(tied[rows].mean()), float(tied[others].mean())
    if share >= ALL_TIED and theirs < 0.5:
        yield f"all ties: everything tied in {share:.0%} of {len(rows)} tasks (the others: {theirs:.0%})"


def _tied(votes: Votes) -> Flags:
    """[L], the labels that make no difference between any two answers."""
    tied: Flags = ~np.any(np.nan_to_num(verdicts(votes.worth)) != 0, axis=1)
    return tied


def _all_equal(votes: Votes, rows: Ints) -> Iterator[str]:
    """The same 0/1 or point of the scale throughout, where others give it too rarely for that."""
    others = _beside(votes, rows)
    if votes.ranked or len(np.unique(votes.task[others])) < FEWEST:
        return
    own, rest = votes.value[rows], votes.value[others]
    own, rest = own[~np.isnan(own)], rest[~np.isnan(rest)]
    if np.ptp(own) > 0 or not len(rest):
        return
    usual = float((rest == own[0]).mean())
    # one trial a task: the answers of one task may well be alike
    if usual ** len(np.unique(votes.task[others])) < RARE:
        yield (
            f"the same answer throughout: {own[0]:g} for all {len(own)} answers of {len(rows)} tasks "
            f"(the others give it in {usual:.0%})"
        )


def _beside(votes: Votes, rows: Ints) -> Flags:
    """[L], the labels that others gave to the tasks of one person's labels."""
    others: Flags = np.isin(votes.task, votes.task[rows]) & (votes.annotator != votes.annotator[rows[0]])
    return others


def _likeness(votes: Votes) -> tuple[Floats, Floats]:
    """[L, A] summed agreement of each label with each other annotator of its task, and [L, A] of how many."""
    first, second = votes.label_pairs()
    size = len(votes.labels), len(votes.annotators)
    sums, counts = np.zeros(size), np.zeros(size)
    if votes.question.kind == "scale" or not len(first):
        return sums, counts
    if votes.ranked:
        which = verdicts(votes.worth)
        same = row_means(1 - np.abs(which[first] - which[second]) / 2)
    else:
        value = votes.value
        same = row_means(1 - np.abs(value[first] - value[second]))
    keep = ~np.isnan(same)
    first, second, same = first[keep], second[keep], same[keep]
    for one, two in ((first, second), (second, first)):
        sums[one, votes.annotator[two]] = same
        counts[one, votes.annotator[two]] = 1
    return sums, counts


def _by_chance(votes: Votes, person: int, alike: tuple[Floats, Floats]) -> Iterator[str]:
    """Agrees with the others hardly more than chance does, while they agree with one another."""
    if votes.question.kind == "scale":
        yield from _unrelated(votes, person)
        return
    sums, counts = alike
    mine = votes.annotator == person
    if votes.ranked:  # where all is tied there is no order to be right or wrong about
        mine &= ~_tied(votes)
    total = counts[mine].sum(axis=1)
    own = sums[mine].sum(axis=1)[total > 0] / total[total > 0]
    rest = votes.annotator != person
    theirs = np.delete(sums[rest], person, axis=1).sum(), np.delete(counts[rest], person, axis=1).sum()
    if len(own) < FEWEST or not theirs[1]:
        return
    # what somebody with this person's habits, and somebody of the others, agree on by chance
    chance, chance_theirs = _chance(votes, mine, rest), _chance(votes, rest, rest)
    among = float(theirs[0] / theirs[1])
    upper = float(own.mean()) + Z * max(float(own.std(ddof=1)), 0.05) / math.sqrt(len(own))
    if chance >= 1 or chance_theirs >= 1:
        return
    skill, skill_theirs = (upper - chance) / (1 - chance), (among - chance_theirs) / (1 - chance_theirs)
    if skill_theirs > 0.2 and skill < 0.5 * skill_theirs:
        what = "pairs of answers" if votes.ranked else "answers"
        yield (
            f"near chance: agrees with the others on {own.mean():.0%} of the {what} of {len(own)} tasks "
            f"({chance:.0%} by chance); they agree with one another on {among:.0%}"
        )


def _chance(votes: Votes, one: Flags, two: Flags) -> float:
    if votes.ranked:
        return 0.5
    first, second = np.nanmean(votes.value[one]), np.nanmean(votes.value[two])
    return float(first * second + (1 - first) * (1 - second))


def _unrelated(votes: Votes, person: int) -> Iterator[str]:
    others, mine = people.mean_of_others(votes), votes.annotator == person
    shares = {
        number: people.correlation(votes.value[votes.annotator == number], others[votes.annotator == number], Z)
        for number in range(len(votes.annotators))
    }
    own = shares.pop(person)
    rest = [one.value for one in shares.values() if one.value is not None]
    tasks = int((mine & ~np.isnan(others).all(axis=1)).sum())
    if own.value is None or own.high is None or tasks < FEWEST or len(rest) < 2:
        return
    usual = float(np.mean(rest))
    if usual > 0.2 and own.high < 0.5 * usual:
        yield (
            f"near chance: a correlation of {own.value:.2f} with the mean of the others over {own.n} answers; "
            f"theirs is {usual:.2f}"
        )


def _controls(one: people.AnnotatorFigures, figures: Sequence[people.AnnotatorFigures]) -> Iterator[str]:
    """Control tasks missed that others do not miss; where they have answered few, no more than 80 % is expected.

    Tasks whose key most people contradict are not in these figures.
    """
    own = one.controls
    if own.value is None or own.n < FEWEST:
        return
    others = [other.controls for other in figures if other.name != one.name and other.controls.value is not None]
    n = sum(other.n for other in others)
    right = sum((other.value or 0.0) * other.n for other in others)
    # one more right and one more wrong: nobody is certain to be always right (Laplace's rule of succession)
    usual = (right + 1) / (n + 2) if n else USUAL_RIGHT
    by_others = n >= 20 or usual < USUAL_RIGHT
    usual = usual if by_others else USUAL_RIGHT
    missed = own.n - round(own.value * own.n)
    if own.value < usual - 0.15 and at_least(missed, own.n, 1 - usual) < 1e-4:
        beside = f"the others {right / n:.0%}" if by_others else "80 % and more are usual"
        yield f"control tasks missed: {own.value:.0%} right of {own.n} ({beside})"


def at_least(successes: int, n: int, chance: float) -> float:
    """Probability of so many successes or more in n trials; `chance` lies between 0 and 1."""
    yes, no, all_orders = math.log(chance), math.log1p(-chance), math.lgamma(n + 1)
    return math.fsum(
        math.exp(all_orders - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * yes + (n - k) * no)
        for k in range(successes, n + 1)
    )
