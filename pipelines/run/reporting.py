"""Reporting from a stage to the user: progress, messages and warnings. The command line implements it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class ProgressTask(Protocol):
    """One long piece of work."""

    def advance(self, steps: int = 1, **fields: float) -> None:
        """Say that `steps` are done; `fields` are the figures worth showing beside the time left."""


class Reporter(Protocol):
    """Progress and plain words, on stderr."""

    def task(self, label: str, total: int, done: int = 0) -> AbstractContextManager[ProgressTask]:
        """A context in which steps are counted up to `total`, of which `done` were done before."""

    def info(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something to act on, though the work goes on."""


class _SilentTask:
    def advance(self, steps: int = 1, **fields: float) -> None:
        pass


class SilentReporter:
    """Says nothing; for tests and for use as a library."""

    @contextmanager
    def task(self, label: str, total: int, done: int = 0) -> Iterator[ProgressTask]:
        """Counts nothing."""
        yield _SilentTask()

    def info(self, text: str) -> None:
        """Says nothing."""

    def warn(self, text: str) -> None:
        """Says nothing."""
