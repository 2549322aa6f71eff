"""The device, its memory, the CPU threads and the precision of the forward passes."""

from __future__ import annotations

import gc
import os
from contextlib import AbstractContextManager

import torch

from pipelines.config.model_section import ModelSection
from pipelines.config.run_section import RunSection
from pipelines.errors import EnvironmentProblem
from pipelines.run.reporting import Reporter

SMALL_MODEL = 5_000_000
"""Number of parameters below which a second OpenMP thread slows the model down (measured: up to 100x)."""


def resolve_device(run: RunSection) -> torch.device:
    """Device by `run.device`; `auto` takes CUDA where it exists.

    Raises:
        EnvironmentProblem: `run.device` is cuda, and there is none.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(
            "run.device is cuda, but torch sees no CUDA device",
            where="run.device",
            hint="set run.device: auto, or install a CUDA build of torch",
        )
    if run.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def choose_threads(run: RunSection, num_parameters: int, reporter: Reporter) -> int:
    """Set and log the number of CPU threads.

    `run.threads` takes precedence over `OMP_NUM_THREADS`, and that over the model size: one thread under 5 M
    parameters, else all cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if run.threads is not None:
        threads, why = run.threads, "run.threads"
    elif environment.isdigit() and int(environment) > 0:
        threads, why = int(environment), "OMP_NUM_THREADS"
    elif num_parameters < SMALL_MODEL:
        threads, why = 1, f"a model of {num_parameters / 1e6:.2f} M parameters is faster on one"
    else:
        threads, why = cores, "all cores"
    torch.set_num_threads(threads)
    reporter.info(f"{threads} CPU thread{'s' if threads > 1 else ''} ({why})")
    return threads


def autocast(model: ModelSection, device: torch.device) -> AbstractContextManager[None]:
    """Autocast to bf16 where `model.dtype` is bfloat16, else none."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=model.dtype == "bfloat16")


def free_memory() -> None:
    """Give back the memory of models that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
