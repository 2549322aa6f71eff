"""When, with which versions, from which commit and in how much memory something was made. Never imports torch."""

from __future__ import annotations

import datetime
import importlib.metadata
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipelines.manifest import Manifest

RECORDED_PACKAGES = (
    "rlhf",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "tokenizers",
    "safetensors",
    "pydantic",
)


def utc_now() -> str:
    """Now, in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    versions = {"python": sys.version.split()[0]}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def version_differences(manifest: Manifest, now: Mapping[str, str]) -> list[str]:
    """Packages whose version is another one than when the artifact was made."""
    return [
        f"{name} {version} -> {now.get(name, 'missing')}"
        for name, version in manifest.versions.items()
        if now.get(name) != version
    ]


def git_commit() -> str | None:
    """Commit of the code that ran, where it ran from a checkout of this project."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # Installed: a repository above would be the user's own.
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def peak_memory() -> int:
    """Peak memory in bytes: of the GPU where it was used, else resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
