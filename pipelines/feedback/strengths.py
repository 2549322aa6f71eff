"""Bradley-Terry and Plackett-Luce strengths of the answers of many tasks at once.

Both say that answer i is chosen from a set S with probability exp(s_i) / sum over S of exp(s_j): of two answers for
Bradley and Terry (1952), of all answers that are left for Plackett (1975). A Gaussian prior on the strengths keeps them
finite where one answer always wins, which with three annotators is the rule and not the exception. What is maximized is
the penalized likelihood of `choix.opt_pairwise` and `choix.opt_rankings`, and tests hold the two equal; here ties and
weights may enter, and thousands of small problems are solved together.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from pipelines.errors import DataError
from pipelines.feedback.votes import Floats, Ints, Votes

PENALTY = 0.125
"""What a strength costs: its square times this, a prior with a standard deviation of 2. One vote for one of two answers
gives a difference of 1.5, three of three 2.3, ten of ten 3.7."""
MOST_TIED = 8
"""Answers of one tie that Plackett-Luce can take: it looks at every subset of them."""


def fit(chosen: Floats, sets: Floats, task: Ints, tasks: int, *, penalty: float = PENALTY) -> Floats:
    """Strengths that make the choices likely, by Newton's method on all tasks together.

    Args:
        chosen: [M, K] how often each answer of the set was chosen, fractions allowed.
        sets: [M, K], 1 for the answers that could have been chosen.
        task: [M], the task of each row.
        tasks: T.
        penalty: of the squared strengths; above 0.

    Returns:
        [T, K] strengths; the differences within a task are log-odds. An answer in no set has 0.
    """
    size = chosen.shape[1]
    found = np.zeros((tasks, size))
    weight = chosen.sum(axis=1, keepdims=True)
    wins = np.zeros((tasks, size))
    np.add.at(wins, task, chosen)
    for _ in range(100):
        logits = np.where(sets > 0, found[task], -np.inf)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        share = odds / odds.sum(axis=1, keepdims=True)
        expected = np.zeros((tasks, size))
        np.add.at(expected, task, weight * share)
        gradient = wins - expected - 2 * penalty * found
        if np.abs(gradient).max(initial=0.0) < 1e-9:
            break
        curvature = np.zeros((tasks, size, size))
        np.add.at(curvature, task, -weight[:, :, None] * share[:, :, None] * share[:, None, :])
        diagonal = np.arange(size)
        curvature[:, diagonal, diagonal] += expected + 2 * penalty
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        # far from the solution the quadratic is a poor picture: a step is never longer than 1
        found += step / np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
    return found


def bradley_terry(votes: Votes, wins: Floats, task: Ints) -> Floats:
    """[T, K] strengths from pairwise wins.

    Args:
        votes: for the number of tasks and answers.
        wins: [T, P, 2] weighted votes for the earlier and for the later answer of each pair; a tie is half a vote for
            each.
        task: [T], 0 to T - 1.
    """
    size = votes.value.shape[1]
    pairs = [(one, two) for one in range(size) for two in range(one + 1, size)]
    chosen = np.zeros((len(task), len(pairs), size))
    sets = np.zeros(size * len(pairs)).reshape(len(pairs), size)
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

    Args:
        votes: rankings, or values that put the answers into an order.
        weights: [L] of the labels.

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
    found = []
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
                found.append((picked, among))
    return found
