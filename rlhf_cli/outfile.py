"""The file that a command is to write: seen to before the work, not after it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipelines.disk import disk_errors
from pipelines.errors import ConflictError, UsageError

_SQLITE = b"SQLite format 3\0"


def make_room(out: Path, inputs: Iterable[Path | str] = (), *, force: bool = False, write: bool = True) -> None:
    """See to it that the file can be written and that nothing is lost by it, as far as that can be told beforehand.

    Args:
        out: the file.
        inputs: what the command reads; what is no file here is not looked at.
        force: replace a file that is there; never an input, and never a label store.
        write: make the folder that it goes into.

    Raises:
        UsageError: `out` is a directory, one of the inputs, or a label store, whose answers are nowhere else.
        ConflictError: the file is there already.
        DiskError: the folder cannot be made.
    """
    if out.is_dir():
        raise UsageError("this is a directory, not a file", where=str(out), hint="--out names the file to write")
    if out.is_file():
        if any(Path(path).is_file() and out.samefile(path) for path in inputs):
            raise UsageError(
                "this file is read: writing to it would destroy it", where=str(out), hint="--out names another file"
            )
        with out.open("rb") as file:
            if file.read(len(_SQLITE)) == _SQLITE:
                raise UsageError(
                    "this file is a label store, and its answers are nowhere else",
                    where=str(out),
                    hint="--out names another file",
                )
        if not force:
            raise ConflictError(
                "the file is there already", where=str(out), hint="name another with --out, or replace it with --force"
            )
    if write:
        folder = out.absolute().parent
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
