"""Tasks for annotators, made of completions. No torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Question, Task


@dataclass
class TaskCounts:
    """Counts of tasks and answers that fell short.

    Attributes:
        short: tasks with fewer answers than were expected.
        without_task: prompts with too few answers for a task.
        unpaired: answers left without a second one to compare them with.
    """

    short: int = 0
    without_task: int = 0
    unpaired: int = 0


@dataclass(frozen=True)
class TaskLayout:
    """Number of answers in a task.

    Attributes:
        size: answers of a task; None: all of the prompt.
        least: minimum number of answers for a task.
        expected: answers to each prompt that were requested.
    """

    size: int | None
    least: int
    expected: int

    @classmethod
    def of(cls, questions: Sequence[Question], expected: int) -> TaskLayout:
        """Two answers for a pairwise question, one for a demonstration to edit, at least two for a ranking.

        Args:
            questions: of the tasks; without any, answers are meant to be compared where there are several.
            expected: answers to each prompt.
        """
        kinds = {question.kind for question in questions}
        if "pairwise" in kinds:
            return cls(2, 2, expected)
        if "demonstration" in kinds:
            return cls(1, 1, expected)
        compared = "ranking" in kinds or (not kinds and expected > 1)
        return cls(None, 2 if compared else 1, expected)


@dataclass
class TaskMaker:
    """Makes tasks, and counts answers and prompts that are left over.

    Args:
        layout: of the answers.
        seed: of the order of the answers, so that their place does not tell which model wrote them.
    """

    layout: TaskLayout
    seed: int
    counts: TaskCounts = field(default_factory=TaskCounts)

    def tasks(self, prompt: tuple[Message, ...], key: int, source: str | None, answers: list[Answer]) -> Iterator[Task]:
        """The tasks of one prompt; none where it has too few answers."""
        # seeded by the prompt itself, so that the order in one task does not depend on the tasks before it
        shuffled = sorted(answers, key=lambda answer: answer.text)
        random.Random(f"{self.seed} {key}").shuffle(shuffled)
        if len(shuffled) < self.layout.least:
            self.counts.without_task += 1
            return
        size = self.layout.size or len(shuffled)
        for start in range(0, len(shuffled), size):
            part = shuffled[start : start + size]
            if len(part) < self.layout.least:
                self.counts.unpaired += len(part)
                continue
            self.counts.short += self.layout.size is None and len(part) < self.layout.expected
            yield Task(prompt, tuple(part), source=source)
