"""One run directory: its paths, its lock, its events, and artifacts that are whole or not there.

A stage works in ``<stage>.partial/``; its manifest is written last and the directory is renamed to ``<stage>/``.
Only relative paths are recorded, so that a run directory can be moved.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.errors import ArtifactError, DiskError, LockedError, RlhfError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
LOCK_OWNER_VARIABLE = "RLHF_LOCK_OWNER"
_DISK_FULL = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing", "unexpected pos ")


@dataclass(frozen=True)
class FileRecord:
    """A file as a manifest knows it."""

    path: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str) -> FileRecord:
        """Read and hash `path`; it is recorded as `name`."""
        stat = path.stat()
        return cls(name, stat.st_size, stat.st_mtime_ns, sha256_of(path))


@dataclass(frozen=True)
class Manifest:
    """What made an artifact, from what, and what is in it. Its existence means that the artifact is complete."""

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
        """Write the manifest into `directory`, by rename."""
        write_atomic(directory / MANIFEST, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """The manifest of a complete artifact, or None.

        Raises:
            ArtifactError: the manifest is damaged or of another schema version.
        """
        path = directory / MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ArtifactError(f"the manifest cannot be read: {error.strerror}", where=str(path)) from error
        except ValueError as error:
            raise _damaged(path, error) from error
        try:
            version = data.get("schema_version")
            if version != SCHEMA_VERSION:
                raise ArtifactError(
                    f"the manifest has schema version {version}, this program reads {SCHEMA_VERSION}", where=str(path)
                )
            data["outputs"] = [FileRecord(**record) for record in data["outputs"]]
            data["inputs"] = {k: [FileRecord(**record) for record in v] for k, v in data["inputs"].items()}
            return cls(**data)
        except (TypeError, KeyError, AttributeError) as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"the manifest is damaged: {error}",
        where=str(path),
        hint=f"make the stage again: rlhf all --force {path.parent.name}",
    )


class RunDir:
    """The run directory at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def log_path(self) -> Path:
        """Everything that was logged, tracebacks too."""
        return self.root / "rlhf.log"

    def stage(self, name: str) -> Path:
        """Directory of the published artifact of stage `name`."""
        return self.root / name

    def partial(self, name: str) -> Path:
        """Directory in which stage `name` works before it is published."""
        return self.root / f"{name}.partial"

    def create(self) -> None:
        """Make the directory.

        Raises:
            DiskError: no permission, or a file stands there.
        """
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)

    def event(self, what: str, **fields: Any) -> None:
        """Append one line to events.jsonl."""
        line = json.dumps({"time": utc_now(), "event": what, **fields})
        with disk_errors(self.root), (self.root / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory; a child of the holder passes freely.

        Raises:
            LockedError: another process holds it.
        """
        owner_path = self.root / ".lock.json"
        inherited = os.environ.get(LOCK_OWNER_VARIABLE)
        if inherited is not None and inherited == _read_owner(owner_path).get("pid"):
            yield
            return
        lock = FileLock(self.root / ".lock")
        try:
            with disk_errors(self.root):
                lock.acquire(blocking=False)
        except Timeout:
            owner = _read_owner(owner_path)
            raise LockedError(
                f"process {owner.get('pid', '?')} on {owner.get('host', '?')} works on this run since "
                f"{owner.get('since', '?')}",
                where=str(self.root),
                hint="wait for it, or use another --run-dir",
            ) from None
        try:
            owner = {"pid": str(os.getpid()), "host": socket.gethostname(), "since": utc_now()}
            write_atomic(owner_path, json.dumps(owner))
            self._finish_interrupted_publish()
            yield
        finally:
            owner_path.unlink(missing_ok=True)
            lock.release()

    def holder(self) -> dict[str, str] | None:
        """Who works on this run now: pid, host and since when; None: nobody that this machine knows of."""
        owner = _read_owner(self.root / ".lock.json")
        if not owner.get("pid", "").isdigit():
            return None
        if owner.get("host") == socket.gethostname():
            try:
                os.kill(int(owner["pid"]), 0)
            except ProcessLookupError:  # It was killed and could not tidy up.
                return None
            except PermissionError:
                pass
        return owner

    def begin(self, stage: str) -> Path:
        """An empty working directory for `stage`."""
        partial = self.partial(stage)
        with disk_errors(self.root):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        return partial

    def publish(self, stage: str, manifest: Manifest) -> None:
        """Make the finished working directory the artifact of `stage`: manifest last, then one rename."""
        partial, final = self.partial(stage), self.stage(stage)
        with disk_errors(self.root):
            for record in manifest.outputs:
                fsync(partial / record.path)
            manifest.write(partial)
            fsync(partial)
            self._put_in_place(partial, final)

    @staticmethod
    def _put_in_place(partial: Path, final: Path) -> None:
        trash = final.with_name(f"{final.name}.old")
        if final.exists():
            shutil.rmtree(trash, ignore_errors=True)
            final.rename(trash)
        partial.rename(final)
        fsync(final.parent)
        shutil.rmtree(trash, ignore_errors=True)

    def _finish_interrupted_publish(self) -> None:
        """A process killed within `publish` left a working directory with a manifest: it is complete."""
        for partial in self._directories(".partial"):
            if (partial / MANIFEST).exists():
                self._put_in_place(partial, partial.with_suffix(""))
        for trash in self._directories(".old"):
            final = trash.with_suffix("")
            if (final / MANIFEST).exists():
                shutil.rmtree(trash, ignore_errors=True)
            elif (trash / MANIFEST).exists() and not final.exists():
                trash.rename(final)

    def _directories(self, suffix: str) -> list[Path]:
        """Stage directories with `suffix`; what a stage itself wrote below its own directory is left alone."""
        found = [*self.root.glob(f"*{suffix}"), *self.root.glob(f"*/*{suffix}")]
        own = (".partial", ".old")
        return [
            path
            for path in found
            if path.is_dir() and not (path.parent / MANIFEST).exists() and path.parent.suffix not in own
        ]


def _read_owner(path: Path) -> dict[str, str]:
    return {key: str(value) for key, value in read_json(path).items()}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_atomic(path: Path, text: str) -> None:
    """Write a small text file so that a reader finds the old or the new content, never half of it."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def fsync(path: Path) -> None:
    """Force a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(records: list[FileRecord]) -> str:
    """One hash over names and contents."""
    lines = sorted(f"{record.path}\0{record.sha256}" for record in records)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def record_files(directory: Path, *, but: Iterable[str] = ()) -> list[FileRecord]:
    """Records of all files below `directory`, except those under the names in `but`."""
    found = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name.split("/")[0] not in (*but, MANIFEST):
            found.append(FileRecord.of(path, name))
    return found


def changed_files(directory: Path, records: list[FileRecord], *, full: bool = False) -> list[str]:
    """Names of recorded files that are missing or differ.

    Size and modification time suffice; where only the time differs (a copied run) the content decides. `full` always
    reads the content.
    """
    changed = []
    for record in records:
        path = directory / record.path
        try:
            stat = path.stat()
        except OSError:
            changed.append(record.path)
            continue
        same = stat.st_size == record.size
        if same and (full or stat.st_mtime_ns != record.mtime_ns):
            same = sha256_of(path) == record.sha256
        if not same:
            changed.append(record.path)
    return changed


def fingerprint_of(section: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Hash of the values that affect a stage's result, the digests of its inputs and the schema version."""
    canonical = json.dumps([SCHEMA_VERSION, section, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def utc_now() -> str:
    """Now, in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into a DiskError."""
    try:
        yield
    except RlhfError:
        raise
    except Exception as error:
        if mapped := disk_error(error, path):
            raise mapped from error
        raise


def disk_error(error: Exception, path: Path) -> DiskError | None:
    """The DiskError that `error` amounts to, if it does.

    torch and safetensors do not raise OSError on a full disk: they are known by their text.
    """
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT) or any(words in str(error) for words in _DISK_FULL):
        return DiskError(
            "no space left on the disk", where=str(path), hint="free some space and run the same command again"
        )
    if isinstance(error, OSError) and code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return DiskError(
            f"the file system refuses: {error.strerror}",
            where=str(error.filename or path),
            hint="check the path and its permissions",
        )
    return None
