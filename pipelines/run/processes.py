"""Several processes in one stage, as torchrun starts them: the first one leads, the others join when called.

Only the first one locks, plans, writes and publishes; the others do nothing but the stage's own work beside it.
Nothing here imports torch before there is somebody to talk to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: the first one may prepare data for long."""


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def world_size() -> int:
    """Return the number of processes that were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process among them; 0 leads."""
    return int(os.environ.get("RANK", "0"))


_called: list[Call | None] = []
"""What the first process has sent so far."""


@dataclass(frozen=True)
class Call:
    """To the others: join this stage."""

    stage: str
    out: Path
    inputs: Mapping[str, Path]


def send(call: Call | None, *, cpu: bool) -> None:
    """The first process calls the others to a stage; None sends them home. Alone it does nothing."""
    if world_size() > 1:
        _called.append(call)
        _exchange(call, cpu)


@contextmanager
def dismissing_workers(*, cpu: bool) -> Iterator[None]:
    """Within it the first process may call the others; at its end they are sent home, after an error too.

    After an error within a stage they are not: they work on it, and hear nothing but that the first one is gone.
    """
    try:
        yield
    except BaseException:
        if not _called:
            send(None, cpu=cpu)
        raise
    send(None, cpu=cpu)


def receive(*, cpu: bool) -> Call | None:
    """Wait for the first process, and return what it sent."""
    return _exchange(None, cpu)


def _exchange(call: Call | None, cpu: bool) -> Call | None:
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        cuda = torch.cuda.is_available() and not cpu
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    message = [call]
    distributed.broadcast_object_list(message, src=0, device=torch.device("cpu"))
    return message[0]
