"""The program as processes of their own, which start from a process that has imported torch and the like already."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

REPOSITORY = Path(__file__).parents[1]
WARM = Path(__file__).parent / "warm"


def environment(*folders: Path, cold: bool = False, **changes: str) -> dict[str, str]:
    """What a child of a test gets: this process's, less what is the program's own.

    Args:
        folders: more that it finds modules in.
        cold: whether it imports everything itself, as a user's does; all do with COLD=1.
        changes: further variables.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RLHF_", "COV_"))}
    alone = cold or os.environ.get("COLD") or sys.platform != "linux"
    warm = {} if alone else {"WARM_SOCKET": str(server())}
    path = os.pathsep.join(map(str, (WARM, *folders, REPOSITORY)))
    return inherited | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | warm | changes


@cache
def server() -> Path:
    """The socket of the server, which is started once for all workers of a session."""
    main = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    folder = Path(tempfile.gettempdir()) / f"rlhf-tests-{os.getuid()}-{main}"
    folder.mkdir(exist_ok=True, mode=0o700)
    path = folder / "warm"
    with FileLock(folder / "lock"):
        if not path.exists():
            base = {name: value for name, value in os.environ.items() if not name.startswith(("RLHF_", "COV_"))}
            with (folder / "errors").open("w") as errors:
                process = subprocess.Popen(
                    [sys.executable, WARM / "server.py", path, str(main)],
                    env=base | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            while not path.exists():
                assert process.poll() is None, (folder / "errors").read_text()
                time.sleep(0.02)
    return path


def program(folder: Path, *args: str, cold: bool = False, **changes: str) -> subprocess.Popen[str]:
    """Start `rlhf` in `folder`; `changes` to its environment."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "rlhf_cli", *args]
    return subprocess.Popen(command, cwd=folder, env=environment(cold=cold, **changes), **pipes)
