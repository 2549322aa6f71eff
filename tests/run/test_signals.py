"""A signal while there is something to finish: noted, then obeyed; a second one at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from pipelines.run.signals import StopRequest


class Stopped(Exception):
    """What the program's own handler raises."""


def raise_stopped(number: int, frame: FrameType | None) -> None:
    raise Stopped(signal.Signals(number).name)


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.signal(number, raise_stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def put_back() -> bool:
    return all(signal.getsignal(number) is raise_stopped for number in (signal.SIGINT, signal.SIGTERM))


def test_without_a_signal_nothing_happens() -> None:
    said: list[str] = []
    stop = StopRequest(said.append)
    with stop.deferred() as inner:
        assert inner is stop
        assert not put_back()
        stop.obey()
    assert not stop.requested
    assert said == []
    assert put_back()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted_and_obeyed_when_the_work_is_done(number: signal.Signals) -> None:
    said: list[str] = []
    stop = StopRequest(said.append)
    done = []

    def work() -> None:
        with stop.deferred():
            os.kill(os.getpid(), number)
            assert stop.requested
            done.append("saved")

    with pytest.raises(Stopped, match=number.name):
        work()
    assert done == ["saved"]
    (line,) = said
    assert line.startswith(number.name)
    assert "second" in line
    assert put_back()


def test_obey_within_the_work_raises_there() -> None:
    def work() -> None:
        with StopRequest(lambda text: None).deferred() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            stop.obey()
            pytest.fail("it went on")

    with pytest.raises(Stopped, match="SIGTERM"):
        work()
    assert put_back()


def test_a_second_one_ends_the_work_at_once() -> None:
    def work() -> None:
        with StopRequest(lambda text: None).deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it went on")

    with pytest.raises(Stopped, match="SIGINT"):
        work()
    assert put_back()


def test_an_error_of_the_work_is_not_hidden_by_the_signal() -> None:
    def work() -> None:
        with StopRequest(lambda text: None).deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert put_back()


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = StopRequest(lambda text: None)
    with stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_the_main_thread_it_does_nothing() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with StopRequest(lambda text: None).deferred() as stop:
                assert not stop.requested
                assert put_back()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []


def test_it_can_be_used_again() -> None:
    stop = StopRequest(lambda text: None)
    for _ in range(2):
        with pytest.raises(Stopped), stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stream_that_is_being_written_to_costs_the_line_only() -> None:
    def busy(text: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    def work() -> None:
        with StopRequest(busy).deferred() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested

    with pytest.raises(Stopped):
        work()


PROGRAM = """
import sys, time
from pipelines.run.signals import StopRequest
with StopRequest(lambda text: print(text, flush=True)).deferred() as stop:
    print("working", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    for _ in range(6000 if len(sys.argv) > 1 else 0):
        time.sleep(0.01)
    print("saved", flush=True)
print("not reached")
"""


@pytest.mark.parametrize("second", [False, True])
def test_with_the_default_handler_the_process_dies_of_the_signal(second: bool) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *(["wait"] if second else [])],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.terminate()
    assert process.stdout.readline().startswith("SIGTERM")
    if second:
        time.sleep(0.05)
        process.terminate()
    rest = process.stdout.read()
    assert process.wait(timeout=20) == -signal.SIGTERM
    assert rest == ("" if second else "saved\n")
