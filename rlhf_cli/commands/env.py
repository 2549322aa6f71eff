"""`rlhf env`: facts about the machine for a bug report."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from pipelines.chain.preflight import cuda_devices
from pipelines.run.manifest import package_versions
from rlhf_cli import __version__, options
from rlhf_cli.console import print_json

# A fixed list: an environment holds secrets.
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TRANSFORMERS_OFFLINE",
)
Full = Annotated[bool, typer.Option("--full", help="Query torch for its devices as well (takes seconds).")]


def env(full: Full = False, json: options.Json = False) -> None:
    """Print versions and devices, for bug reports. No secret is read."""
    facts = _facts()
    if full:
        facts["torch"] = _torch_facts()
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"  {key}: {item}")
        else:
            print(f"{name}: {value}")


def _facts() -> dict[str, Any]:
    packages = {name: version for name, version in package_versions().items() if name not in ("python", "rlhf")}
    for name in ("typer", "rich"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "rlhf": __version__,
        "python": f"{sys.version.split()[0]} ({sys.executable})",
        "platform": platform.platform(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cuda_devices": cuda_devices(),
        "packages": packages,
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _torch_facts() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {
        "cuda_build": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        facts[f"cuda_{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return facts


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=options.examples("rlhf env", "rlhf env --full", "rlhf env --json"))(env)
