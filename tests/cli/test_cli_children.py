"""A stage in a child process: what reaches it from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A signal that another thread takes leaves the main thread in its system call, as one does that comes just before it.
PROGRAM = """
import os, signal, sys, threading
from rlhf_cli import children

child = "import signal; signal.alarm(15); print('waiting', file=__import__('sys').stderr, flush=True); signal.pause()"
threading.Timer(1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
code, output, received = children._run(lambda: os.execv(sys.executable, [sys.executable, "-c", child]))
print(-code == received == signal.SIGTERM)
"""


def test_a_signal_that_interrupts_nothing_still_reaches_the_child() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    assert (done.stdout, done.stderr) == ("True\n", "waiting\n")
