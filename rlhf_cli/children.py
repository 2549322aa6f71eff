"""Heavy stages in processes of their own: only the exit of a process surely frees its memory."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipelines.chain.execute import load_runner
from pipelines.errors import RlhfError
from pipelines.run.directory import BASELINES, LOCK_OWNER_VARIABLE, RunDir, split_round
from pipelines.run.signals import STOPPING
from pipelines.run.stage import Stage
from rlhf_cli import PARENT_PIPE_VARIABLE
from rlhf_cli.failures import MEMORY_HINT, Terminated

_LISTEN_SECONDS = 0.5
_ENDS_SECONDS = 0.01
"""How long a process that has closed its output may take to end before it is asked again."""


def is_child() -> bool:
    """Whether this process runs one stage for `rlhf all`."""
    return LOCK_OWNER_VARIABLE in os.environ


class ChildLauncher:
    """Runs `rlhf STAGE` on the run directory as a child process; stdout is captured, stderr passes through.

    Args:
        forks: whether the child is a fork of this process, which imports what the stage needs and does nothing with
            it: the libraries are then imported once for all stages. Else it is a new program.
    """

    def __init__(self, run_dir: RunDir, *, forks: bool = False, verbose: bool = False, quiet: bool = False) -> None:
        self.run_dir, self.forks = run_dir, forks
        self.flags = [*(["--verbose"] if verbose else []), *(["--quiet"] if quiet else [])]

    def __call__(self, stage: Stage, force: bool) -> None:
        """Run `stage`.

        Raises:
            RlhfError: the error of the child, with its exit code.
            KeyboardInterrupt, Terminated: this process was told to stop, and the child has ended.
        """
        kind, number = split_round(stage.name)
        group, _, baseline = kind.partition("/")
        words = ["baseline", baseline] if group == BASELINES else [kind, "--round", str(number)]
        words += ["--run-dir", str(self.run_dir.root), "--json", *self.flags, *(["--force"] if force else [])]
        if self.forks:
            load_runner(stage)
        become = _program_in_a_fork if self.forks else _new_program
        code, output, received = _run(lambda: become(words), self.run_dir.lock_descriptor)
        if received is not None:
            raise KeyboardInterrupt if received == signal.SIGINT else Terminated(received)
        if code != 0:
            raise RlhfError.from_dict(_error_entry(stage.name, code, output, self.run_dir.root))


def _run(become: Callable[[], int], lock: int | None = None) -> tuple[int, str, int | None]:
    """Run `become` in a child, pass signals to stop on to it and wait.

    The child gets the read end of a pipe whose write end only this process holds: it ends at once when this process
    is gone, however it went. It has a session of its own, so that Ctrl-C reaches it once, through us.

    Args:
        become: returns the exit code of the child, or makes another program of it.
        lock: descriptor of the lock of the run directory, if it is held; the child keeps it, so that a child that
            cannot end, such as a stopped one, is never joined by a second run.

    Returns:
        Exit code of the child, negative for a signal, its standard output, and the first signal that came.
    """
    received: list[int] = []
    child = 0

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        if child:  # 0 would be all processes of our group
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    watched, ours = os.pipe()
    output, to_output = os.pipe()
    kept = [watched] if lock is None else [watched, os.dup(lock)]  # filelock closes its own in a fork
    heard = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    parts: list[bytes] = []
    sys.stdout.flush()
    warnings.filterwarnings(
        "ignore", ".*multi-threaded, use of fork", DeprecationWarning
    )  # a BLAS restarts its threads
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)  # until there is a child to tell
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        child = os.fork()
        if child == 0:
            for descriptor in (ours, output):
                os.close(descriptor)
            _begin(become, to_output, kept, heard)
        os.close(to_output)
        if received:  # It came before there was a child to tell: a native thread took it.
            os.kill(child, received[0])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
        ended = (0, 0)
        while ended[0] == 0:
            # A wait without end would sleep through a signal that came just before it.
            if select.select([output], [], [], _LISTEN_SECONDS)[0]:
                parts.append(os.read(output, 65536))
                if not parts[-1]:
                    time.sleep(_ENDS_SECONDS)
            ended = os.waitpid(child, os.WNOHANG)
        while select.select([output], [], [], 0)[0] and (rest := os.read(output, 65536)):
            parts.append(rest)  # written between the last look and the end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for descriptor in (*kept, ours, output):
            os.close(descriptor)
    text = b"".join(parts).decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(ended[1]), text, received[0] if received else None


def _begin(become: Callable[[], int], output: int, kept: Sequence[int], heard: Sequence[int]) -> NoReturn:
    """In the child: end as `become` does, and never return to what the parent was doing."""
    code = 1
    try:
        os.setsid()
        for number in heard:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        os.environ |= {LOCK_OWNER_VARIABLE: str(os.getppid()), PARENT_PIPE_VARIABLE: str(kept[0])}
        code = become()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _new_program(words: Sequence[str]) -> int:
    os.execv(sys.executable, [sys.executable, "-m", "rlhf_cli", *words])


def _program_in_a_fork(words: Sequence[str]) -> int:
    """Be the program from its start to its end, less the imports and the tidying of memory, which is the parent's."""
    from rlhf_cli.app import main

    sys.argv[1:], sys.stdout = words, os.fdopen(1, "w", closefd=False)  # the parent's may lead elsewhere
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    try:
        main()
    except SystemExit as end:
        code = end.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code if isinstance(code, int) else 1


def watch_parent() -> None:
    """In a child of `rlhf all`: end at once when the parent is gone."""
    descriptor = os.environ.pop(PARENT_PIPE_VARIABLE, None)
    if descriptor is None:
        return
    read_end = int(descriptor)
    os.set_inheritable(read_end, False)

    def wait() -> None:
        os.read(read_end, 1)  # Returns only when the write end is closed.
        os._exit(137)

    threading.Thread(target=wait, daemon=True, name="watch-parent").start()


def _error_entry(stage: str, code: int, output: str, run_dir: Path) -> dict[str, Any]:
    """Return the error that the child printed, or else one from its exit code."""
    for line in reversed(output.splitlines()):
        try:
            entry = json.loads(line)["error"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(entry, dict) and "exit" in entry:
            return entry
    entry = {"code": "child", "where": str(run_dir), "hint": f"see {run_dir / 'rlhf.log'}"}
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        message = f"stage {stage} was killed, probably out of memory"
        return entry | {"code": "killed", "exit": 137, "message": message, "hint": MEMORY_HINT}
    if code < 0:
        name = signal.Signals(-code).name
        return entry | {"code": "killed", "exit": 128 - code, "message": f"stage {stage} was killed by {name}"}
    return entry | {"exit": code, "message": f"stage {stage} ended with exit code {code} and did not say why"}
