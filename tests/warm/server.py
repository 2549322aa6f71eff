"""A process that has imported what is heavy once, and forks itself for every program that asks.

``python server.py SOCKET PID``; it ends with the process PID, and what it forked is killed then.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

_HIGH = 900
"""Files of a fork are put above this number before they get their own."""


TRAINING = ("accelerate", "bitsandbytes", "datasets", "pandas", "peft", "torch.distributed.run")
OTHERS = ("typer", "rich.progress", "rich.table", "pydantic", "yaml", "filelock")
OTHERS += ("jinja2", "httpx2", "starlette.applications", "starlette.routing", "uvicorn", "markdown_it")
OTHERS += ("matplotlib.figure", "matplotlib.backends.backend_svg")


def load() -> None:
    """Import the libraries, and nothing of the project: a fork does that, as a new process would."""
    import transformers
    import trl

    for name in (*TRAINING, *OTHERS):
        importlib.import_module(name)
    for name in ("AutoModelForCausalLM", "GPT2LMHeadModel", "LlamaForCausalLM", "BertForSequenceClassification"):
        getattr(transformers, name)
    for name in ("Trainer", "TrainingArguments", "PreTrainedTokenizerFast", "GenerationConfig"):
        getattr(transformers, name)
    for name in ("SFTTrainer", "SFTConfig", "RewardTrainer", "RewardConfig", "DPOTrainer", "DPOConfig"):
        getattr(trl, name)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    header, files, _, _ = socket.recv_fds(connection, 4, 250)
    text, size = b"", struct.unpack("I", header)[0]
    while len(text) < size:
        text += connection.recv(size - len(text))
    return json.loads(text.decode("utf-8", "surrogateescape")), files


def serve(path: str, master: int) -> dict[str, Any]:
    """Fork for every request until `master` ends; returns in the forks alone, with what was asked of each."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(os.pidfd_open(master), selectors.EVENT_READ, "master")
    forks: dict[int, socket.socket] = {}
    while True:
        for key, _ in waiting.select():
            if key.data == "master":
                for pid in forks:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                shutil.rmtree(Path(path).parent, ignore_errors=True)
                os._exit(0)
            elif key.data is None:
                connection, _ = listener.accept()
                try:
                    request, files = receive(connection)
                except (OSError, struct.error):  # it was killed while it asked
                    connection.close()
                    continue
                pid = os.fork()
                if pid == 0:
                    for own in (listener, connection, waiting, *forks.values()):
                        own.close()  # or they would close what gets their numbers
                    return take(request, files)
                for file in files:
                    os.close(file)
                forks[pid] = connection
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                waiting.register(connection, selectors.EVENT_READ, pid)
                with contextlib.suppress(OSError):
                    connection.sendall(str(pid).encode())
            elif isinstance(key.fileobj, socket.socket):  # it is gone, or lets go of what has ended
                waiting.unregister(key.fileobj)
                key.fileobj.close()
                if key.data in forks:
                    os.kill(key.data, signal.SIGKILL)
            else:
                _, status = os.waitpid(key.data, 0)
                waiting.unregister(key.fileobj)
                os.close(key.fd)
                with contextlib.suppress(OSError):
                    forks.pop(key.data).sendall(str(status).encode())


def take(request: dict[str, Any], files: list[int]) -> dict[str, Any]:
    """Become the process that asked: its files, session, folder, environment and arguments."""
    high = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _HIGH) for file in files]
    os.closerange(0, _HIGH)
    for own, wanted in zip(high, request["files"], strict=True):
        os.dup2(own, wanted)
        os.close(own)
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.environ.pop("PYTHONUNBUFFERED", None)
    return request


def become(request: dict[str, Any]) -> None:
    module, *arguments = request["arguments"]
    before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [os.getcwd(), *before, *sys.path]
    sys.argv = ["-m", *arguments]
    sys.orig_argv = [sys.executable]
    if "sitecustomize" in sys.modules:
        del sys.modules["sitecustomize"]
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("sitecustomize")  # as at the start of every process
    code: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    if isinstance(code, str):
        print(code, file=sys.stderr)
    # As at the end of every process, but that its memory is not tidied first: most of it is the server's.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    load()
    gc.collect()
    gc.freeze()
    # What a fork compiles, the next finds; the installed packages keep what they have.
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(sys.argv[1]).with_name("compiled"))
    become(serve(sys.argv[1], int(sys.argv[2])))
