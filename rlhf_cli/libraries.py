"""Limits to what libraries do in a process of the program: nothing from the hub unasked, nothing idle on the screen."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.config import Config

_DEFAULTS = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}

_own_process = False
"""Whether this process is for one command line: what is set up need not be undone."""


def of_own_process() -> None:
    """Set up a process that runs one command line.

    The package `kernels` would fetch compiled code from the hub: bitsandbytes asks it for some at its import. Warnings
    and logs of libraries go to the log file of a run alone; nobody can do anything about them on the screen.
    """
    global _own_process
    _own_process = True
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
    logging.getLogger().addHandler(logging.NullHandler())
    logging.captureWarnings(True)


def set_defaults() -> None:
    """Set the environment variables of libraries that the user has not set."""
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)


def spare(config: Config) -> None:
    """Keep bitsandbytes from being imported, which takes a second, where a run does not need it.

    Only peft's parts for 4 bits would miss it, and they are chosen once, when peft is imported.
    """
    from pipelines.chain.preflight import needs_bitsandbytes

    if _own_process and "peft" not in sys.modules and not needs_bitsandbytes(config):
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]


def may_fork(config: Config) -> bool:
    """Whether a fork of this process works as a new one would: not beside other threads, nor with a GPU's driver."""
    from pipelines.chain.preflight import cuda_devices

    alone = _own_process and sys.platform == "linux" and threading.active_count() == 1
    return alone and (config.run.device == "cpu" or not cuda_devices())
