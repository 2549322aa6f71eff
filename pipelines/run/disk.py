"""Files that are written whole or not at all, and recognition of a full disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.errors import DiskError, RlhfError

_DISK_FULL = (
    *("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing"),
    *("unexpected pos ", "basic_ios::clear: iostream error"),
)
"""What the libraries that write in C++ and Rust say of it: which of the lines of torch comes depends on the byte."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader finds the old or the new content, never half of it.

    Raises:
        DiskError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with disk_errors(path.absolute().parent):
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


def is_sqlite(path: Path) -> bool:
    """Whether a file is an SQLite database, by how it begins."""
    begins = b"SQLite format 3\0"
    with path.open("rb") as file:
        return file.read(len(begins)) == begins


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    for codes, hint in _REFUSALS.items():
        if isinstance(error, OSError) and code in codes:
            return DiskError(f"the file system refuses: {error.strerror}", where=str(error.filename or path), hint=hint)
    return None


_REFUSALS = {
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG): (
        "check the path and its permissions"
    ),
    (errno.EIO, errno.ESTALE): "the disk or the network drive is at fault: check it, then run the same command again",
    (errno.EMFILE, errno.ENFILE): "raise the limit of open files (`ulimit -n`)",
    (errno.EFBIG,): "raise the limit of a file's size (`ulimit -f`), or use another file system",
    (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP): "use a directory on a local disk: this file system knows no locks",
}
"""Remedies, by the error numbers of a file system that refuses."""
