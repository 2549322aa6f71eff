"""Answers to one question as arrays, the input of agreement and aggregation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.labels.label_types import Label, LabelSet, Question, Task

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Votes:
    """The labels that answer one question, sorted by task and, within a task, by the name of the annotator.

    Attributes:
        question: what was asked.
        tasks: the T tasks with at least one label, in the order of the label set.
        annotators: the A names, sorted.
        labels: the L labels.
        task: [L], the index of each label's task; never falls.
        annotator: [L], the index of each label's annotator.
        value: [L, K], K the most answers of a task; NaN where a task has fewer. Rankings are turned into mid-ranks
            (1 = best; answers that are tied share the mean of their places, so 1, 1, 2 becomes 1.5, 1.5, 3): the sum
            of a ranking is then the same whoever ties more. Other values are as they were given.
    """

    question: Question
    tasks: tuple[Task, ...]
    annotators: tuple[str, ...]
    labels: tuple[Label, ...]
    task: Ints
    annotator: Ints
    value: Floats

    @property
    def ranked(self) -> bool:
        """Whether the answers of a task were put into an order, and not rated one by one."""
        return self.question.kind in ("ranking", "pairwise")

    @property
    def worth(self) -> Floats:
        """[L, K], higher is better."""
        return -self.value if self.ranked else self.value

    @property
    def starts(self) -> Ints:
        """[T], the first label of each task."""
        return np.flatnonzero(np.diff(self.task, prepend=-1))

    def by_task(self, numbers: NDArray[Any]) -> Floats:
        """[L, ...] -> [T, ...], summed over the labels of each task."""
        return np.add.reduceat(numbers.astype(np.float64), self.starts, axis=0)

    def label_pairs(self) -> tuple[Ints, Ints]:
        """Every two labels of one task, as two arrays of indices; of the first the annotator's name is smaller."""
        first = []
        most = int(np.bincount(self.task).max(initial=0))
        index = np.arange(len(self.task))
        second = [index[:0]]
        for step in range(1, most):
            same = index[: len(index) - step][self.task[step:] == self.task[: len(index) - step]]
            first.append(same)
            second.append(same + step)
        return np.concatenate([index[:0], *first]), np.concatenate(second)


def votes_of(labels: LabelSet, question: Question, *, control: bool = False) -> Votes:
    """The labels that answer `question`, which is no demonstration: of the control tasks, or of all others."""
    order = {name: number for number, name in enumerate(labels.tasks)}
    answered = sorted(
        labels.answered(question.name, control=control), key=lambda entry: (order[entry[0].id], entry[1].annotator)
    )
    tasks = tuple({task.id: task for task, _, _ in answered}.values())
    number = {task.id: index for index, task in enumerate(tasks)}
    names = tuple(sorted({label.annotator for _, label, _ in answered}))
    person = {name: index for index, name in enumerate(names)}
    value = np.full((len(answered), max((len(task.answers) for task in tasks), default=0)), np.nan)
    for row, (_, _, given) in enumerate(answered):
        value[row, : len(given)] = np.array(given, dtype=np.float64)
    if question.kind in ("ranking", "pairwise"):
        value = mid_ranks(value)
    return Votes(
        question,
        tasks,
        names,
        tuple(label for _, label, _ in answered),
        np.array([number[task.id] for task, _, _ in answered], dtype=np.int64),
        np.array([person[label.annotator] for _, label, _ in answered], dtype=np.int64),
        value,
    )


def mid_ranks(ranks: Floats) -> Floats:
    """[L, K] ranks in any numbering -> [L, K] mid-ranks: answers that are tied share the mean of their places."""
    better = (ranks[:, None, :] < ranks[:, :, None]).sum(axis=-1)
    equal = (ranks[:, None, :] == ranks[:, :, None]).sum(axis=-1)
    return np.where(np.isnan(ranks), np.nan, better + (equal + 1) / 2)


def row_means(cells: Floats) -> Floats:
    """[L, C] -> [L], over what is not NaN; NaN where all is."""
    known = (~np.isnan(cells)).sum(axis=1)
    return np.where(known > 0, np.nansum(cells, axis=1) / np.maximum(known, 1), np.nan)


def verdicts(worth: Floats) -> Floats:
    """[N, K] worth, NaN for no such answer -> [N, K(K-1)/2] verdicts on all pairs in the order of `numpy.triu_indices`.

    1 where the earlier answer is better, -1 where the later one is, 0 at a tie, NaN where one of them is missing.
    Differences below 1e-9 are rounding, and a tie.
    """
    first, second = np.triu_indices(worth.shape[1], 1)
    difference = worth[:, first] - worth[:, second]
    return np.sign(np.where(np.abs(difference) < 1e-9, 0.0, difference))
