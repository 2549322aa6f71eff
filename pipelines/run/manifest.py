"""The manifest of an artifact: its origin, inputs, outputs, versions and memory. Never imports torch."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter, ValidationError

from pipelines.errors import ArtifactError
from pipelines.run.disk import sha256_of, write_atomic

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


def _inside(path: str) -> str:
    """Refuse the path of a file outside the artifact."""
    if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError("it leads out of the artifact")
    return path


@dataclass(frozen=True)
class FileRecord:
    """A file as a manifest knows it."""

    path: Annotated[str, AfterValidator(_inside)]
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str) -> FileRecord:
        """Read and hash `path`; it is recorded as `name`."""
        stat = path.stat()
        return cls(name, stat.st_size, stat.st_mtime_ns, sha256_of(path))

    def fault(self, directory: Path, *, full: bool) -> str | None:
        """How the file below `directory` differs from the record, if it does; `full` reads its content too."""
        path = directory / self.path
        try:
            size = path.stat().st_size
            if size != self.size:
                return f"{self.path} has {size} bytes, not {self.size}"
            if full and sha256_of(path) != self.sha256:
                return f"{self.path} was altered"
        except FileNotFoundError:
            return f"{self.path} is missing"
        except OSError as error:
            return f"{self.path} cannot be read: {error.strerror}"
        return None


@dataclass(frozen=True)
class Manifest:
    """Record of an artifact: its origin, inputs and contents. Its existence means that the artifact is complete."""

    stage: str
    fingerprint: str
    section: dict[str, Any]
    inputs: dict[str, list[FileRecord]]
    outputs: list[FileRecord]
    metrics: dict[str, Any]
    seed: int
    versions: dict[str, str]
    git_commit: str | None
    started: str
    wall_seconds: float
    peak_memory_bytes: int
    notes: dict[str, Any]
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """One hash over the outputs: what a stage that reads them depends on."""
        return digest_of(self.outputs)

    def write(self, directory: Path) -> None:
        """Write the manifest into `directory`, by rename, with a hash of its own content."""
        data = asdict(self)
        data["sha256"] = _hash_of(data)
        write_atomic(directory / MANIFEST, json.dumps(data, indent=2, sort_keys=True) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """The manifest of a complete artifact, or None.

        Raises:
            ArtifactError: the manifest is damaged or of another schema version.
        """
        path = directory / MANIFEST
        try:
            if path.exists() and not path.is_file():
                raise _damaged(path, "it is no regular file")
            data = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ArtifactError(f"the manifest cannot be read: {error.strerror}", where=str(path)) from error
        except (ValueError, RecursionError) as error:
            raise _damaged(path, error) from error
        if not isinstance(data, dict):
            raise _damaged(path, "it is no object")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"the manifest has schema version {version}, this program reads {SCHEMA_VERSION}", where=str(path)
            )
        own_hash = data.pop("sha256", None)  # earlier versions wrote none
        try:
            if own_hash is not None and own_hash != _hash_of(data):
                raise _damaged(path, "its content is not that of its hash")
            return _READER.validate_json(json.dumps(data), strict=True, extra="forbid")
        except (ValidationError, RecursionError) as error:
            reason = fault_in_words(error) if isinstance(error, ValidationError) else error
            raise _damaged(path, reason) from error


_READER = TypeAdapter(Manifest)


def refuse_damaged(directory: Path) -> None:
    """Refuse an artifact whose files are not those of its manifest; a directory without one is not looked into.

    For what is read outside the chain of stages, which verifies its inputs itself.

    Raises:
        ArtifactError: a file is missing or was altered, or the manifest is damaged.
    """
    manifest = Manifest.read(directory)
    broken = changed_files(directory, manifest.outputs, full=True) if manifest is not None else []
    if broken:
        raise ArtifactError(
            f"{broken[0]} is missing or was altered since it was published",
            where=str(directory / broken[0]),
            hint=f"copy it again, or run `rlhf all --force {directory.name}` in its run",
        )


def refuse_damaged_model(name: str) -> None:
    """Refuse a model that a stage of some run published, where the stage is damaged; any other name is left alone.

    Raises:
        ArtifactError: see `refuse_damaged`.
    """
    path = Path(name).expanduser().absolute()
    if path.is_dir() and path.name in PUBLISHED:
        refuse_damaged(path.parent)


PUBLISHED = ("model", "best")
"""Directories of models in an artifact."""


def simulated_among(directories: Iterable[Path]) -> list[str]:
    """The stages among these artifacts, and among all that they were made from, whose labels no human gave."""
    names: set[str] = set()
    for manifest in filter(None, map(Manifest.read, directories)):
        names.update([manifest.stage] if manifest.notes.get("simulated") else [])
        names.update(manifest.notes.get("simulated_inputs", []))
    return sorted(names)


def fault_in_words(error: ValidationError) -> str:
    """Place and reason of the first fault that pydantic names."""
    first = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _hash_of(data: Mapping[str, Any]) -> str:
    """Hash of the content of a manifest."""
    canonical = json.dumps({key: value for key, value in data.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _damaged(path: Path, error: object) -> ArtifactError:
    return ArtifactError(
        f"the manifest is damaged: {error}",
        where=str(path),
        hint=f"make the stage again: rlhf all --force {path.parent.name}",
    )


def digest_of(records: list[FileRecord]) -> str:
    """One hash over names and contents."""
    lines = sorted(f"{record.path}\0{record.sha256}" for record in records)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def record_files(directory: Path, *, but: Iterable[str] = ()) -> list[FileRecord]:
    """Records of all files below `directory`, except those under the names in `but`."""
    records = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name.split("/")[0] not in (*but, MANIFEST):
            records.append(FileRecord.of(path, name))
    return records


def changed_files(directory: Path, records: list[FileRecord], *, full: bool = False) -> list[str]:
    """Names of recorded files that are missing or differ.

    Size and modification time suffice; where only the time differs (a copied run) the content decides. `full` always
    reads the content.
    """

    def differs(record: FileRecord) -> bool:
        path = directory / record.path
        touched = not path.exists() or path.stat().st_mtime_ns != record.mtime_ns
        return record.fault(directory, full=full or touched) is not None

    return [record.path for record in records if differs(record)]


def fingerprint_of(section: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Hash of the values that affect a stage's result, the digests of its inputs and the schema version."""
    canonical = json.dumps([SCHEMA_VERSION, section, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


RECORDED_PACKAGES = (
    *("rlhf", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "tokenizers"),
    *("safetensors", "pydantic"),
)


def utc_now() -> str:
    """Now, in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@cache
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
    then = manifest.versions.items()
    return [f"{name} {version} -> {now.get(name, 'missing')}" for name, version in then if now.get(name) != version]


@cache
def git_commit() -> str | None:
    """Commit of the code that ran, where it ran from a checkout of this project."""
    root = Path(__file__).parents[2]
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


@cache
def machine() -> dict[str, Any]:
    """Describe the machine: its system, processor, cores that may be used, memory in bytes, and GPUs that were used."""
    import platform

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {"system": f"{platform.system()} {platform.machine()}", "cores": cores}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        facts["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        facts |= {"processor": models[0]} if models else {}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return facts


def describe_differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Return a line ``key: old -> new`` for every value that differs between two JSON trees."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in (*new, *(key for key in old if key not in new)):
            dotted = f"{prefix}.{key}" if prefix else key
            lines += describe_differences(old.get(key), new.get(key), dotted)
        return lines
    return [] if old == new else [f"{prefix}: {json.dumps(old)} -> {json.dumps(new)}"]
