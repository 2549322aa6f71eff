"""Signals to stop during work that must be finished and saved, and work that must end. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STOPPING = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
"""Ctrl-C, a polite kill, and a terminal that is closed."""


class StopRequest:
    """The wish to stop: noted at the first signal, which `tell` answers; obeyed where the work says that it can be."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._first: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal arrived within `deferred`."""
        return self._first is not None

    @contextlib.contextmanager
    def deferred(self) -> Iterator[StopRequest]:
        """Within it the first signal is only noted; a second one does at once what it would have done before.

        Left in the normal way with a signal noted, it obeys. Outside the main thread, which gets no signals, it does
        nothing; a signal that is ignored stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        handlers = {number: signal.getsignal(number) for number in STOPPING}
        # None is a handler that Python did not set and could not put back.
        self._before = {key: handler for key, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
        for number in self._before:
            signal.signal(number, self._note)
        try:
            yield self
        finally:
            self._put_back()
        self.obey()

    def obey(self) -> None:
        """Do what the first signal would have done: as a rule raise. Nothing where none arrived."""
        if self._first is not None:
            number, self._first = self._first, None
            self._act(number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._first is not None:
            self._act(number, frame)
            return
        self._first = number
        name = signal.Signals(number).name
        with contextlib.suppress(RuntimeError):  # It may have come in the middle of a write to the same stream.
            self._tell(f"{name}: this step is finished and saved, then the program ends; a second one ends it at once")

    def _act(self, number: int, frame: FrameType | None) -> None:
        before = self._before[number]
        self._put_back()
        if callable(before):
            before(number, frame)
        else:
            os.kill(os.getpid(), number)

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
    """Raise `error` where what is inside takes longer: a program in a file from elsewhere, such as a pattern.

    Outside the main thread, which alone gets signals, and where something else has set an alarm there is no limit.
    """
    alarm = getattr(signal, "SIGALRM", None)
    main = threading.current_thread() is threading.main_thread()
    if alarm is None or not main or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise error

    before = signal.signal(alarm, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(alarm, before)
