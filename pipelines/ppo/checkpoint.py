"""State of a PPO training, complete enough to continue exactly; no file holds pickled objects."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import override

from pipelines.errors import ArtifactError, UsageError

WEIGHTS = "trained.safetensors"
STATE = "state.pt"


class Stateful(Protocol):
    """A part of the training that changes from update to update."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers, strings and containers of them."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore what `state_dict` returned."""


class RandomNumbers(Stateful):
    """States of the random generators of this process: Python, NumPy, torch, each GPU, and the shuffle of the rows."""

    def __init__(self, shuffle: torch.Generator) -> None:
        self.shuffle = shuffle

    @override
    def state_dict(self) -> dict[str, Any]:
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        version, words, gauss = random.getstate()
        return {
            "python": [version, list(words), gauss],
            "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "shuffle": self.shuffle.get_state(),
        }

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        self.shuffle.set_state(state["shuffle"])


def save_state(
    directory: Path, trained: nn.Module, parts: Mapping[str, Stateful], rng: Stateful, accelerator: Accelerator
) -> None:
    """Write the trained parameters and the state of every part; every process writes its random numbers.

    Args:
        directory: existing, empty directory.
        trained: PolicyAndValue, not wrapped.
        parts: stateful parts of the training by name.
    """
    torch.save(rng.state_dict(), directory / _random_name(accelerator.process_index))
    if accelerator.is_main_process:
        save_file(trained_parameters(trained), directory / WEIGHTS)
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({"processes": accelerator.num_processes, "parts": state}, directory / STATE)
    accelerator.wait_for_everyone()


def load_state(
    directory: Path, trained: nn.Module, parts: Mapping[str, Stateful], rng: Stateful, accelerator: Accelerator
) -> None:
    """Restore everything that `save_state` wrote.

    Raises:
        UsageError: the checkpoint was written by another number of processes.
        ArtifactError: it holds other parameters or parts than this training has.
    """
    state = torch.load(directory / STATE, map_location="cpu", weights_only=True)
    if state["processes"] != accelerator.num_processes:
        raise UsageError(
            f"the checkpoint was made by {state['processes']} processes, and {accelerator.num_processes} run now",
            where=str(directory),
            hint=f"start {state['processes']} processes, or start the stage anew with --force ppo",
        )
    load_parameters(trained, load_file(directory / WEIGHTS), str(directory / WEIGHTS))
    if state["parts"].keys() != parts.keys():
        raise ArtifactError(
            "the checkpoint was written by another version of the program",
            where=str(directory / STATE),
            hint="start the stage anew with --force ppo",
        )
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    rng.load_state_dict(
        torch.load(directory / _random_name(accelerator.process_index), map_location="cpu", weights_only=True)
    )


def trained_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that train by name, detached and on the CPU."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def load_parameters(module: nn.Module, saved: Mapping[str, Tensor], where: str) -> None:
    """Set the parameters that train to `saved`, as `trained_parameters` returned them.

    Args:
        module: module that the parameters are of.
        saved: parameters by name.
        where: place of the parameters, for the error.

    Raises:
        ArtifactError: other names or shapes than those of the module.
    """
    own = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if own.keys() != saved.keys() or any(own[name].shape != saved[name].shape for name in own):
        raise ArtifactError(
            "the checkpoint holds other parameters than those that train now",
            where=where,
            hint="start the stage anew with --force ppo",
        )
    for name, parameter in own.items():
        parameter.copy_(saved[name])


def _random_name(rank: int) -> str:
    return f"random-{rank}.pt"
