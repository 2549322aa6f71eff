"""A stage in a child process: what reaches it from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.chain import preflight
from pipelines.config import Config
from rlhf_cli import libraries
from tests.cli.conftest import Program

# A signal that another thread takes leaves the main thread in its system call, as one does that comes just before it.
PROGRAM = """
import os, signal, sys, threading
from rlhf_cli import children

child = "import signal; signal.alarm(15); print('waiting', file=__import__('sys').stderr, flush=True); signal.pause()"
threading.Timer(1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
code, output, received = children._run(lambda: os.execv(sys.executable, [sys.executable, "-c", child]))
print(-code == received == signal.SIGTERM)
"""

# Native threads, such as a BLAS has, take a signal that the main thread blocks while it forks.
WHILE_FORKING = """
import os, signal, subprocess, sys, threading, time
from rlhf_cli import children

neighbour = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
threading.Thread(target=threading.Event().wait, daemon=True).start()
fork = os.fork

def interrupted():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    return fork()

os.fork = interrupted
child = "import signal; signal.alarm(15); signal.pause()"
code, output, received = children._run(lambda: os.execv(sys.executable, [sys.executable, "-c", child]))
print(-code == received == signal.SIGTERM, neighbour.poll())
neighbour.kill()
"""

STAGES = ("sft", "reward")


def in_a_process(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )


def test_a_signal_that_interrupts_nothing_still_reaches_the_child() -> None:
    done = in_a_process(PROGRAM)
    assert (done.stdout, done.stderr) == ("True\n", "waiting\n")


def test_a_signal_while_it_forks_reaches_the_child_and_nobody_else() -> None:
    done = in_a_process(WHILE_FORKING)
    assert (done.stdout, done.stderr) == ("True None\n", "")


WAYS = """
import json, sys
from rlhf_cli import children

ways = children._program_in_a_fork, children._new_program
print(json.dumps([children._run(lambda: way(sys.argv[1:])) for way in ways]))
"""


@pytest.mark.parametrize("line", ["--version", "status --run-dir nowhere --json", "label --help"])
def test_a_fork_is_as_a_new_program(line: str) -> None:
    fork, new = json.loads(in_a_process(WAYS, *line.split()).stdout)
    assert fork == new
    assert fork[1]


LAST_WORDS = """
import os, time
from rlhf_cli import children

def speak():
    os.write(1, b"first ")
    time.sleep(0.5)
    os.write(1, b"last")
    return 0

wait = os.waitpid
os.waitpid = lambda child, options: wait(child, 0)  # the child ends between two looks
print(children._run(speak)[1])
"""


def test_nothing_that_a_child_says_before_it_ends_is_lost() -> None:
    assert in_a_process(LAST_WORDS).stdout == "first last\n"


def test_a_fork_is_made_beside_no_thread_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_own_process", True)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    devices = {device: Config.model_validate({"run": {"device": device}}) for device in ("auto", "cpu")}
    for gpus, may in ((0, {"auto": True, "cpu": True}), (1, {"auto": False, "cpu": True})):
        monkeypatch.setattr(preflight, "cuda_devices", lambda gpus=gpus: gpus)
        assert {device: libraries.may_fork(config) for device, config in devices.items()} == may
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert not libraries.may_fork(devices["cpu"])


def test_each_line_is_logged_once_by_the_process_that_says_it(program: Program) -> None:
    program.json("all", "--config", "my.yaml", "--until", "reward")
    lines = (program.folder / "runs" / "my" / "rlhf.log").read_text().splitlines()
    said = {stage: [line for line in lines if line.endswith(f"{stage}: runs, not run yet")] for stage in STAGES}
    done = {stage: [line for line in lines if "model text" in line and line.endswith(stage)] for stage in STAGES}
    assert [len(found) for found in (*said.values(), *done.values())] == [1] * 4
    processes = {line.partition("rlhf[")[2].partition("]")[0] for found in (said, done) for (line,) in found.values()}
    assert len(processes) == 3
