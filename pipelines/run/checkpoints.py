"""Checkpoints that are complete or not used: a marker, written last, lists every file with its size and hash. No torch.

A checkpoint also knows how long the stage's logs were, so that a run which goes on from it writes every line once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.run.disk import disk_errors, fsync, read_json, write_atomic
from pipelines.run.manifest import FileRecord, record_files

MARKER = "checkpoint.json"
PICKLED_ARGUMENTS = "training_args.bin"
"""What Hugging Face's trainer adds to a checkpoint: a pickle that can hold a token, and that nothing here reads."""
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its directory, and the optimizer steps, or PPO updates, done when it was written."""

    path: Path
    step: int


class Checkpoints:
    """The checkpoints of one stage, ``checkpoint-<step>/`` below `root`, of which `keep` complete ones are kept.

    `logs` is the stage's working directory, whose ``*.jsonl`` grow; `warn` is told of every one that cannot be used.
    """

    def __init__(self, root: Path, *, keep: int, logs: Path, warn: Callable[[str], None]) -> None:
        self._root, self._keep, self._logs, self._warn = root, keep, logs, warn
        self._read: dict[int, str | None] = {}  # what a full check found, so that files are hashed and named once

    def newest(self) -> Checkpoint | None:
        """The newest complete one, its files hashed; every newer one that is not complete is named by a warning."""
        faults: list[str] = []
        newest: Checkpoint | None = None
        for step, path in _newest_first(self._root):
            if step not in self._read:
                self._read[step] = _fault(path, step, full=True)
                if (fault := self._read[step]) is not None:
                    faults.append(f"{path.name} is left out: {fault}")
            if self._read[step] is None:
                newest = Checkpoint(path, step)
                break
        used = f"the one of step {newest.step} is used" if newest else "there is no other: training starts again"
        for fault in faults:
            self._warn(f"{fault}; {used}")
        return newest

    def begin(self, step: int) -> Path:
        """An empty directory for the checkpoint of `step`, to write into; see `disk_errors`."""
        path = self.path(step)
        self._read.pop(step, None)
        with disk_errors(path):
            _remove(path)
            path.mkdir(parents=True)
        return path

    def complete(self, step: int) -> None:
        """Make what was written for `step` a complete checkpoint, and remove those that are no longer kept.

        Newer ones go too: the run has gone back to an older one since. See `disk_errors`.
        """
        path = self.path(step)
        with disk_errors(path):
            (path / PICKLED_ARGUMENTS).unlink(missing_ok=True)
            files = record_files(path, but=(MARKER,))
            logs = sorted(self._logs.glob("*.jsonl"))
            for file in (*(path / record.path for record in files), *logs):
                fsync(file)
            for directory in {path, *(path / record.path for record in files)}:
                fsync(directory if directory.is_dir() else directory.parent)
            sizes = {log.name: log.stat().st_size for log in logs}
            marker = {"step": step, "files": [asdict(record) for record in files], "logs": sizes}
            write_atomic(path / MARKER, json.dumps(marker, indent=2) + "\n")
            fsync(path)
            fsync(self._root)
            self._read[step] = None
            self._prune(step)

    def restore_logs(self, checkpoint: Checkpoint) -> None:
        """Cut every log back to its length at `checkpoint`; one that did not exist yet is removed."""
        sizes = read_json(checkpoint.path / MARKER).get("logs", {})
        with disk_errors(self._logs):
            for log in sorted(self._logs.glob("*.jsonl")):
                if log.name not in sizes:
                    log.unlink()
                elif log.stat().st_size > sizes[log.name]:
                    os.truncate(log, sizes[log.name])
        for name, size in sizes.items():
            log = self._logs / name
            if (log.stat().st_size if log.exists() else 0) < size:
                self._warn(f"{name} has lost lines since {checkpoint.path.name} was written; they stay lost")

    def _prune(self, step: int) -> None:
        kept = 0
        for other, path in _newest_first(self._root):
            whole = other <= step and _fault(path, other, full=False) is None
            if other == step or (whole and kept < self._keep):
                kept += 1
                continue
            _remove(path)
            self._read.pop(other, None)

    def path(self, step: int) -> Path:
        """Directory of the checkpoint of `step`, complete or not."""
        return self._root / f"checkpoint-{step}"


def newest_at_a_glance(root: Path, *, full: bool = False) -> Checkpoint | None:
    """The newest one below `root` whose files have their sizes: for a plan, not for use. `full` reads the contents."""
    for step, path in _newest_first(root):
        if _fault(path, step, full=full) is None:
            return Checkpoint(path, step)
    return None


def _newest_first(root: Path) -> list[tuple[int, Path]]:
    if not root.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in root.iterdir() if path.is_dir())
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _remove(path: Path) -> None:
    """Remove a checkpoint, its marker first: half removed it must not pass for a complete one."""
    (path / MARKER).unlink(missing_ok=True)
    if path.exists():
        shutil.rmtree(path)


def _fault(path: Path, step: int, *, full: bool) -> str | None:
    """Return the reason why the checkpoint at `path` cannot be used; None: it can."""
    if not (path / MARKER).exists():
        return f"it has no {MARKER}, so its saving was interrupted"
    marker: dict[str, Any] = read_json(path / MARKER)
    try:
        if marker["step"] != step:
            return f"it is the checkpoint of step {marker['step']}"
        records = [FileRecord(**record) for record in marker["files"]]
        dict(marker["logs"])
    except (KeyError, TypeError, ValueError):
        return f"its {MARKER} is damaged"
    faults = (record.fault(path, full=full) for record in records)
    return next((fault for fault in faults if fault is not None), None)
