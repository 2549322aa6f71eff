"""A reporter that remembers what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.run.reporting import SilentReporter


class Recorder(SilentReporter):
    """Remembers messages and progress.

    Attributes:
        said: all messages in their order.
        warned: the warnings among them.
        tasks: steps of each task: in all, and done.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.tasks: dict[str, list[int]] = {}

    @contextmanager
    def task(self, label: str, total: int, done: int = 0) -> Iterator[Any]:
        steps = self.tasks.setdefault(label, [total, done])

        class Task:
            def advance(self, done: int = 1, **fields: float) -> None:
                steps[1] += done

        yield Task()

    def info(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)
        self.warned.append(text)
