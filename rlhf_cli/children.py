"""Heavy stages in processes of their own: only the exit of a process surely frees its memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import RlhfError
from pipelines.run.directory import BASELINES, LOCK_OWNER_VARIABLE, RunDir, split_round
from pipelines.run.signals import STOPPING
from pipelines.run.stage import Stage
from rlhf_cli.failures import MEMORY_HINT, Terminated

PARENT_PIPE_VARIABLE = "RLHF_PARENT_PIPE"
_LISTEN_SECONDS = 0.5


def is_child() -> bool:
    """Whether this process runs one stage for `rlhf all`."""
    return LOCK_OWNER_VARIABLE in os.environ


class ChildLauncher:
    """Runs `rlhf STAGE` on the run directory as a child process; stdout is captured, stderr passes through."""

    def __init__(self, run_dir: RunDir, *, verbose: bool = False, quiet: bool = False) -> None:
        self.run_dir = run_dir
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
        command = [sys.executable, "-m", "rlhf_cli", *words]
        command += ["--run-dir", str(self.run_dir.root), "--json", *self.flags]
        code, output, received = _run([*command, *(["--force"] if force else [])], self.run_dir.lock_descriptor)
        if received is not None:
            raise KeyboardInterrupt if received == signal.SIGINT else Terminated(received)
        if code != 0:
            raise RlhfError.from_dict(_error_entry(stage.name, code, output, self.run_dir.root))


def _run(command: Sequence[str], lock: int | None = None) -> tuple[int, str, int | None]:
    """Run a command, pass signals to stop on to it and wait.

    The child gets the read end of a pipe whose write end only this process holds: it ends at once when this process
    is gone, however it went. It has a session of its own, so that Ctrl-C reaches it once, through us.

    Args:
        command: of the child.
        lock: descriptor of the lock of the run directory, if it is held; the child keeps it, so that a child that
            cannot end, such as a stopped one, is never joined by a second run.
    """
    received: list[int] = []
    child: subprocess.Popen[str] | None = None

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        if child is not None:
            child.send_signal(number)

    read_end, write_end = os.pipe()
    heard = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(read_end, *((lock,) if lock is not None else ())),
            start_new_session=True,
            env={**os.environ, LOCK_OWNER_VARIABLE: str(os.getpid()), PARENT_PIPE_VARIABLE: str(read_end)},
        )
        if received:  # It came before there was a child to tell.
            child.send_signal(received[0])
        output = None
        while output is None:
            # A wait without end would sleep through a signal that came just before it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = child.communicate(timeout=_LISTEN_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)
    return child.returncode, output, received[0] if received else None


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
