"""Completions as tasks for annotators. No torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Question, Task


@dataclass
class TaskCounts:
    """What became of the answers.

    Attributes:
        short: tasks with fewer answers than were asked for.
        without_task: prompts that have too few answers for what is asked.
        unpaired: answers that found no second one to be compared with.
    """

    short: int = 0
    without_task: int = 0
    unpaired: int = 0


@dataclass(frozen=True)
class Layout:
    """How the answers to a prompt become tasks.

    Attributes:
        size: answers of a task; None: all of them.
        least: answers without which there is no task.
        wanted: answers that were asked for.
    """

    size: int | None
    least: int
    wanted: int

    @classmethod
    def of(cls, questions: Sequence[Question], wanted: int) -> Layout:
        """Two answers for a pairwise question, one to be edited; a ranking needs two at least.

        Args:
            questions: that will be asked; where none is known yet, answers are meant to be compared if there can be.
            wanted: answers to each prompt.
        """
        kinds = {question.kind for question in questions}
        if "pairwise" in kinds:
            return cls(2, 2, wanted)
        if "demonstration" in kinds:
            return cls(1, 1, wanted)
        compared = "ranking" in kinds or (not kinds and wanted > 1)
        return cls(None, 2 if compared else 1, wanted)


@dataclass
class TaskMaker:
    """Makes tasks and counts what is left over.

    Args:
        layout: of the answers.
        seed: of the order of the answers, so that their place never tells who wrote them.
    """

    layout: Layout
    seed: int
    counts: TaskCounts = field(default_factory=TaskCounts)

    def tasks(self, prompt: tuple[Message, ...], key: int, source: str | None, answers: list[Answer]) -> Iterator[Task]:
        """The tasks of one prompt; none where it has too few answers."""
        # by the prompt itself, so that the order of one task does not hang on the ones before it
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
            self.counts.short += self.layout.size is None and len(part) < self.layout.wanted
            yield Task(prompt, tuple(part), source=source)
