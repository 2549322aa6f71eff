"""Console output: progress and messages on stderr, data on stdout."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

from pipelines.report.safe_text import visible
from pipelines.run.reporting import ProgressTask

PLAIN_INTERVAL = 5.0
"""Seconds between two progress lines where stderr is not a terminal."""
logger = logging.getLogger("rlhf")
logger.addHandler(logging.NullHandler())  # Without a log file, nothing is said twice.


def print_json(data: dict[str, Any]) -> None:
    """One JSON object on one line of stdout; a number that JSON does not know becomes null."""
    print(json.dumps(_finite(data), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def styled(text: str, code: str, stream: TextIO) -> str:
    """The text in an ANSI style where `stream` is a terminal that wants it."""
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{code}m{text}\x1b[0m" if wanted else text


def print_problem(label: str, code: str, entry: Mapping[str, Any]) -> None:
    """An error, as `RlhfError.as_dict` gives it, on stderr: a label in an ANSI style, its message, place and hint."""
    print(f"{styled(label, code, sys.stderr)} {visible(str(entry['message']))}", file=sys.stderr)
    for key in ("where", "hint"):
        if entry[key]:
            print(f"  {key}: {visible(str(entry[key]))}", file=sys.stderr)


def seconds_text(seconds: float) -> str:
    """A duration as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def fields_text(fields: dict[str, float]) -> str:
    """Figures beside the progress: `kl 0.012 · reward 1.3`."""
    return " · ".join(f"{name} {value:.3g}" for name, value in fields.items())


class ConsoleReporter:
    """Progress with the time left: a bar on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._live: Any = None  # The rich Progress that is on the screen.

    def info(self, text: str) -> None:
        """A line on stderr and in the log."""
        logger.info(visible(text))
        if not self.quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        """A line on stderr and in the log, also when quiet."""
        logger.warning(visible(text))
        self._line(text, "warning: ")

    def task(self, label: str, total: int, done: int = 0) -> AbstractContextManager[ProgressTask]:
        """A context in which steps are counted up to `total`, of which `done` were done before."""
        if self.quiet:
            return contextlib.nullcontext(_SilentTask())
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            return self._bar(label, total, done)
        return self._plain(label, total, done)

    @contextmanager
    def _bar(self, label: str, total: int, done: int) -> Iterator[ProgressTask]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._live is not None:
            yield _BarTask(self._live, label, total, done)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        with Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False, redirect_stderr=False) as live:
            self._live = live
            try:
                yield _BarTask(live, label, total, done)
            finally:
                self._live = None

    @contextmanager
    def _plain(self, label: str, total: int, done: int) -> Iterator[ProgressTask]:
        yield _PlainTask(label, total, done)

    def _line(self, text: str, label: str = "") -> None:
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text.assemble((label, "yellow"), visible(text)), soft_wrap=True)
        else:
            print(f"{styled(label, '33', sys.stderr) if label else ''}{visible(text)}", file=sys.stderr, flush=True)


class _SilentTask:
    def advance(self, steps: int = 1, **fields: float) -> None:
        pass


class _BarTask:
    def __init__(self, live: Any, label: str, total: int, done: int) -> None:
        self._live = live
        self._task = live.add_task(visible(label), total=total, completed=done, figures="")

    def advance(self, steps: int = 1, **fields: float) -> None:
        shown = {"figures": fields_text(fields)} if fields else {}
        self._live.update(self._task, advance=steps, **shown)


class _PlainTask:
    def __init__(self, label: str, total: int, done: int) -> None:
        self._label, self._total, self._done = visible(label), total, done
        self._before = done  # the time left is estimated from the steps of this part alone
        self._start = self._shown = time.monotonic()

    def advance(self, steps: int = 1, **fields: float) -> None:
        self._done += steps
        now = time.monotonic()
        if self._done < self._total and now - self._shown < PLAIN_INTERVAL:
            return
        self._shown = now
        elapsed = now - self._start
        parts = [f"{self._label}: {self._done}/{self._total}"]
        if self._done < self._total:
            parts.append(
                f"{seconds_text(elapsed / max(self._done - self._before, 1) * (self._total - self._done))} left"
            )
        else:
            parts.append(f"done in {seconds_text(elapsed)}")
        if fields:
            parts.append(fields_text(fields))
        print(" · ".join(parts), file=sys.stderr, flush=True)
