"""Imported by every Python that has this folder on PYTHONPATH: it starts fast, and kills itself where KILL_AT says.

``KILL_AT="open:trainer_state.json:2"``: SIGKILL right before the second time that a file of this name is opened;
``os.rename:checkpoint.json:1``: before the first rename to that name.

``FAIL_AT="/run:17:EIO"``: the 17th call of the process that changes something below /run fails like that, or kills it
(``KILL``); ``FAIL_AT="/run:0:/log"`` counts them.

With WARM_SOCKET, `python -m` of a heavy program does not import torch and the like: a fork of the server (server.py)
that has imported them does its work, with the same arguments, environment, folder and files. What is left of this
process passes signals on, and ends as the fork ends; when it is killed, the fork is too.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_HEAVY = ("rlhf_cli", "torch.distributed.run", "tests.ppo.two_ranks")


def _watch_for(point: str) -> None:
    wanted, _, rest = point.partition(":")
    name, _, count = rest.partition(":")
    left = [int(count)]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event != wanted:
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if isinstance(path, str | os.PathLike) and os.path.basename(os.fspath(path)) == name:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}


def _fail_at(point: str) -> None:
    import atexit
    import errno

    root, number, what = point.split(":")
    seen = [0]

    def count(path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(root):
            return
        seen[0] += 1
        if seen[0] == int(number):
            if what == "KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)), os.fsdecode(path))

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in _CHANGES:
            count(arguments[0])

    real = os.fsync

    def fsync(descriptor: int) -> None:
        count(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    os.fsync = fsync
    sys.addaudithook(watch)
    if not int(number):

        def told() -> None:
            with open(what, "a") as file:
                file.write(f"{seen[0]}\n")

        atexit.register(told)


def _be_forked(path: str, arguments: list[str]) -> None:
    import fcntl
    import json
    import socket
    import struct

    descriptors = [0, 1, 2]
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                descriptors.append(int(name))
        except OSError:
            continue  # the one that listed them
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd(), "files": descriptors}
    text = json.dumps(request).encode("utf-8", "surrogateescape")
    socket.send_fds(server, [struct.pack("I", len(text))], descriptors)
    server.sendall(text)
    fork = int(server.recv(16))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os.kill(fork, number))
    status = int(server.recv(16))
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _go_on() -> None:
    """Python imports the first `sitecustomize` alone; further ones on PYTHONPATH follow here."""
    import importlib.util

    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        path = os.path.join(folder, "sitecustomize.py")
        if folder and os.path.exists(path) and not os.path.samefile(path, __file__):
            spec = importlib.util.spec_from_file_location(f"sitecustomize_of_{os.path.basename(folder)}", path)
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)


_socket, _options = os.environ.get("WARM_SOCKET"), [part for part in sys.orig_argv[1:] if part != "-u"]
if _socket and _options[:1] == ["-m"] and _options[1] in _HEAVY:
    _be_forked(_socket, _options[1:])
if os.environ.get("KILL_AT"):
    _watch_for(os.environ["KILL_AT"])
if os.environ.get("FAIL_AT"):
    _fail_at(os.environ["FAIL_AT"])
_go_on()
