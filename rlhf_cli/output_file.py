"""Checks of the file that a command will write, made before its work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.errors import ConflictError, UsageError
from pipelines.run.disk import disk_errors, is_sqlite


def make_room(out: Path, inputs: Iterable[Path | str] = (), *, replace: bool = False, write: bool = True) -> None:
    """Check that a file can be written without losing anything, as far as that is known beforehand.

    A file that is there may be replaced, but never an input or a part of one, and never a label store. `write`: make
    the folder that it goes into.

    Raises:
        UsageError: `out` is a directory, one of the inputs, or a label store, whose answers are nowhere else.
        ConflictError: the file is there already.
        DiskError: the folder cannot be made.
    """
    with disk_errors(out):
        if out.is_dir():
            raise UsageError("this is a directory, not a file", where=str(out), hint="--out names the file to write")
        if out.is_file():
            _check_no_loss(out, [Path(path) for path in inputs])
            if not replace:
                hint = "name another with --out, or replace it with --force"
                raise ConflictError("the file is there already", where=str(out), hint=hint)
        if write:
            out.absolute().parent.mkdir(parents=True, exist_ok=True)


def _check_no_loss(out: Path, inputs: Sequence[Path]) -> None:
    hint = "--out names another file"
    whole = any(path.is_file() and out.samefile(path) for path in inputs)
    if whole or any(path.is_dir() and path.resolve() in out.resolve().parents for path in inputs):
        raise UsageError("this file is read: writing to it would destroy it", where=str(out), hint=hint)
    if is_sqlite(out):
        message = "this is a database, such as a label store, whose answers are nowhere else"
        raise UsageError(message, where=str(out), hint=hint)
