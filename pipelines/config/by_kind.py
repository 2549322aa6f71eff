"""Defaults that depend on the kind of training, LoRA or full fine-tuning, and on the device.

Published recipes that the rates follow, and what was tried here: benchmarks/results/2026-11-27-defaults.md.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple


class ByDevice(NamedTuple):
    """A default for pretrained models on a CUDA device, and one for everything else."""

    cuda: Any
    otherwise: Any


class ByTraining(NamedTuple):
    """A default for LoRA adapters, and one for training all weights."""

    lora: Any
    otherwise: Any


DEFAULTS_BY_KIND: Final[Mapping[str, ByDevice | ByTraining]] = {
    "model.use_peft": ByDevice(cuda=True, otherwise=False),
    "model.dtype": ByDevice(cuda="bfloat16", otherwise="float32"),
    "sft.gradient_checkpointing": ByDevice(cuda=True, otherwise=False),
    "reward.gradient_checkpointing": ByDevice(cuda=True, otherwise=False),
    "ppo.rollout_batch_size": ByDevice(cuda=128, otherwise=64),
    "ppo.response_length": ByDevice(cuda=512, otherwise=128),
    "sft.learning_rate": ByTraining(lora=2e-4, otherwise=2e-5),
    "reward.learning_rate": ByTraining(lora=1e-4, otherwise=1e-5),
    "ppo.learning_rate": ByTraining(lora=2e-5, otherwise=2e-6),
    "ppo.value_learning_rate": ByTraining(lora=1e-4, otherwise=1e-5),
    "baselines.dpo.learning_rate": ByTraining(lora=1e-5, otherwise=1e-6),
}
"""By dotted key. Those of the device come first: they decide how is trained."""
DECIDING: Final = (*DEFAULTS_BY_KIND, "model.init", "run.device", "reward.base")
"""Keys on which the defaults depend."""
_AMPERE = 8
"""Major compute capability of the first GPUs that calculate in bfloat16."""
_CAPABILITY_MAJOR = 75
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR of the CUDA driver API."""


def defaults_by_kind(
    settings: Mapping[str, Any], recorded: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield the keys that are not set, or null, with their default for this kind of training.

    `settings` are values by dotted key, as they were written; those `recorded` by a run that was begun are kept while
    it trains in the same way.
    """
    told, recorded = dict(settings), recorded or {}
    capability = 0 if told.get("model.init") == "scratch" else cuda_capability(told.get("run.device") or "auto")
    for key, default in DEFAULTS_BY_KIND.items():
        if told.get(key) is not None:
            continue
        kept = recorded.get(key)
        if isinstance(default, ByDevice):
            value = default.cuda if capability >= (_AMPERE if key == "model.dtype" else 1) else default.otherwise
        else:
            lora = trains_adapters(told, key)
            value = default.lora if lora else default.otherwise
            kept = kept if trains_adapters(recorded, key) == lora else None
        told[key] = value if kept is None else kept
        yield key, told[key]


def trains_adapters(settings: Mapping[str, Any], key: str) -> bool:
    """Whether the stage to which a key belongs trains adapters: not a model from scratch, nor a base of its own."""
    whole = {"sft": settings.get("model.init") == "scratch", "reward": settings.get("reward.base") is not None}
    return bool(settings.get("model.use_peft")) and not whole.get(key.partition(".")[0], False)


@cache
def cuda_capability(device: str) -> int:
    """Major compute capability of the first CUDA device that torch would use for `run.device`; 0: none.

    The driver is asked, because an import of torch takes seconds.
    """
    torch = importlib.util.find_spec("torch")
    library = Path(torch.origin).parent / "lib" if torch is not None and torch.origin else None
    if device == "cpu" or library is None or not any(library.glob("*torch_cuda*")):
        return 0
    major = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if library.joinpath("torch_cuda.dll").exists() else "libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, 0)
    except (OSError, AttributeError):
        return 0
    return 0 if failed else major.value


def default_in_words(key: str) -> str:
    """Return both defaults of a key of `DEFAULTS_BY_KIND`."""
    default = DEFAULTS_BY_KIND[key]
    kind, value = ("on CUDA", default.cuda) if isinstance(default, ByDevice) else ("with LoRA", default.lora)
    return f"{plain(default.otherwise)}; {kind} {plain(value)}"


def plain(value: Any) -> str:
    """Write a value as a configuration would."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
