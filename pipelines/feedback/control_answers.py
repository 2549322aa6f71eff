"""What annotators answered to the control tasks: how much of it is right, and which keys are more likely wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.feedback.types import LabelSet, Question, Task
from pipelines.feedback.votes import Floats, Votes, row_means, verdicts, votes_of


@dataclass(frozen=True)
class ControlAnswers:
    """The answers to the control tasks of one question.

    Attributes:
        votes: the labels of all control tasks that it was asked of.
        share: [L] how much of what is known each label got right; NaN: nothing is known.
    """

    votes: Votes
    share: Floats

    @property
    def contradicted(self) -> tuple[Task, ...]:
        """Control tasks whose key most people contradict: two or more answered, and less than half of it was right.

        Then the key is more likely wrong than the people, and it counts for nobody.
        """
        return tuple(self.votes.tasks[index] for index in np.flatnonzero(self._against))

    @property
    def _against(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """[T]"""
        known, size = ~np.isnan(self.share), len(self.votes.tasks)
        task = self.votes.task[known]
        answers, right = np.bincount(task, minlength=size), np.bincount(task, self.share[known], size)
        found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (answers >= 2) & (right < answers / 2)
        return found

    def by_annotator(self) -> dict[str, list[float]]:
        """The shares of each annotator, one a control task; without the tasks whose key is contradicted."""
        against = self._against[self.votes.task]
        found: dict[str, list[float]] = {}
        for person, share, left_out in zip(self.votes.annotator, self.share, against, strict=True):
            if not np.isnan(share) and not left_out:
                found.setdefault(self.votes.annotators[person], []).append(float(share))
        return found


def control_answers(labels: LabelSet, question: Question) -> ControlAnswers:
    """What was answered to the control tasks of a question that is no demonstration.

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
