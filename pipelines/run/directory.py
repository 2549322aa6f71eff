"""A run directory: its paths, lock and events, and artifacts that are complete or absent.

A stage works in ``<stage>.partial/``; its manifest is written last and the directory is renamed to ``<stage>/``.
Only relative paths are recorded, so that a run directory can be moved.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.errors import DiskError, LockedError
from pipelines.run.disk import disk_error, disk_errors, fsync, read_json, write_atomic
from pipelines.run.manifest import MANIFEST, FileRecord, Manifest, describe_differences, utc_now
from pipelines.run.processes import is_alive

LOCK_OWNER_VARIABLE = "RLHF_LOCK_OWNER"
ROUNDS = "rounds"
"""Directory of the stages of the second round of feedback and later ones."""
BASELINES = "baselines"
"""Directory of the policies that PPO's is compared with."""
CHECKPOINTS = "checkpoints"
"""Where a stage that trains keeps its state, below its working directory; never published."""


class RunDir:
    """The run directory at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock_descriptor: int | None = None  # while this process holds the lock

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def log_path(self) -> Path:
        """Everything that was logged, tracebacks too."""
        return self.root / "rlhf.log"

    @property
    def report_path(self) -> Path:
        """The report of the run, one HTML file."""
        return self.root / "report.html"

    @property
    def label_store(self) -> Path:
        """Path of the label store of all rounds, which the label page serves and no stage deletes."""
        return self.root / "labels.sqlite"

    @property
    def blind_store(self) -> Path:
        """Path of the label store of people who compare the answers of the evaluation; never trained on."""
        return self.root / "blind.sqlite"

    def stage(self, name: str) -> Path:
        """Directory of the published artifact of stage `name`."""
        return self.root / name

    def partial(self, name: str) -> Path:
        """Directory in which stage `name` works before it is published."""
        return self.root / f"{name}.partial"

    def newest(self, name: str) -> Path:
        """Directory of stage `name` in the last round that has completed it; that of the first one where none has."""
        later = sorted(self.root.glob(f"{ROUNDS}/*/{name}/{MANIFEST}"), reverse=True)
        return later[0].parent if later else self.stage(name)

    def create(self) -> None:
        """Make the directory.

        Raises:
            DiskError: no permission, or a file stands there.
        """
        try:
            with disk_errors(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # what /proc and its like say
            raise DiskError("the run directory cannot be made here", where=str(self.root)) from error

    def event(self, what: str, **fields: Any) -> None:
        """Append one line to events.jsonl."""
        line = json.dumps({"time": utc_now(), "event": what, **fields})
        with disk_errors(self.root), (self.root / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def waiting(self) -> dict[str, str]:
        """The stages that wait for people, and what they said last."""
        messages: dict[str, str] = {}
        path = self.root / "events.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ()
        for line in lines:
            try:
                event = json.loads(line)
                messages.pop(event.get("stage"), None)
                if event["event"] == "stage_waiting":
                    messages[event["stage"]] = event["message"]
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError):  # cut off, or damaged
                continue
        return messages

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory; a child of the holder passes freely.

        Raises:
            LockedError: another process holds it.
            DiskError: a link stands in it, or its file system knows no locks.
        """
        self._refuse_links()
        owner_path = self.root / ".lock.json"
        inherited = os.environ.get(LOCK_OWNER_VARIABLE)
        if inherited is not None and inherited == _read_owner(owner_path).get("pid"):
            yield
            return
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise self._held() from None
        except (OSError, NotImplementedError) as error:
            mapped = disk_error(error, self.root) if isinstance(error, OSError) else None
            raise mapped or DiskError(
                f"the run directory cannot be locked: {error}",
                where=str(self.root),
                hint="use a directory on a local disk: this file system knows no locks",
            ) from error
        self.lock_descriptor = lock._context.lock_file_fd  # it has no public name
        try:
            owner = {"pid": str(os.getpid()), "host": socket.gethostname(), "since": utc_now()}
            write_atomic(owner_path, json.dumps(owner))
            self._finish_interrupted_publish()
            yield
        finally:
            if _read_owner(owner_path).get("pid") == str(os.getpid()):
                owner_path.unlink(missing_ok=True)
            self.lock_descriptor = None
            lock.release()

    def _held(self) -> LockedError:
        """Say who holds the run directory."""
        owner = _read_owner(self.root / ".lock.json")
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
        if owner and self.holder() is None:
            return LockedError(
                f"a stage still works on this run that {who} started, which is gone",
                where=str(self.root),
                hint=f"end it: `fuser {self.root / '.lock'}` names it",
            )
        return LockedError(
            f"{who} works on this run since {owner.get('since', '?')}",
            where=str(self.root),
            hint="wait for it, or use another --run-dir",
        )

    def _refuse_links(self) -> None:
        """Refuse links, which would lead what is written and deleted elsewhere; the run directory may be one itself."""
        for directory, names, files in os.walk(self.root):
            for name in (*names, *files):
                path = Path(directory, name)
                if path.is_symlink():
                    raise DiskError(
                        f"{path.relative_to(self.root)} is a link, and nothing is written or deleted through links",
                        where=str(path),
                        hint="put what it points to in its place, or remove it; the run directory itself may be a link",
                    )

    def holder(self) -> dict[str, str] | None:
        """Return pid, host and start time of the process that holds this run; None: none known to this machine."""
        owner = _read_owner(self.root / ".lock.json")
        if not owner.get("pid", "").isdigit():
            return None
        killed = owner.get("host") == socket.gethostname() and not is_alive(int(owner["pid"]))
        return None if killed else owner  # it could not tidy up

    def begin(self, stage: str, *, go_on: bool = False) -> Path:
        """The working directory of `stage`: empty or, to go on, with its checkpoints and logs and nothing else."""
        partial = self.partial(stage)
        with disk_errors(self.root):
            if not go_on:
                shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True, exist_ok=True)
            for path in partial.iterdir():
                if path.is_dir() and not path.is_symlink():
                    if path.name != CHECKPOINTS:
                        shutil.rmtree(path)
                elif path.suffix != ".jsonl":
                    path.unlink()
        return partial

    def discard(self, stage: str) -> None:
        """Leave nothing of the working directory of `stage`."""
        with disk_errors(self.root):
            shutil.rmtree(self.partial(stage), ignore_errors=True)

    def publish(self, stage: str, manifest: Manifest) -> None:
        """Make the finished working directory the artifact of `stage`: manifest last, then one rename.

        The checkpoints go as soon as the manifest says that they are no longer needed.
        """
        partial, final = self.partial(stage), self.stage(stage)
        with disk_errors(self.root):
            files = [partial / record.path for record in manifest.outputs]
            for path in (*files, *{file.parent for file in files}):
                fsync(path)
            manifest.write(partial)
            fsync(partial)
            self._put_in_place(partial, final)

    @staticmethod
    def _put_in_place(partial: Path, final: Path) -> None:
        trash = final.with_name(f"{final.name}.old")
        shutil.rmtree(partial / CHECKPOINTS, ignore_errors=True)
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
        patterns = (f"*{suffix}", f"*/*{suffix}", f"{ROUNDS}/*/*{suffix}")
        paths = [path for pattern in patterns for path in self.root.glob(pattern)]
        own = (".partial", ".old")
        return [
            path
            for path in paths
            if path.is_dir() and not (path.parent / MANIFEST).exists() and path.parent.suffix not in own
        ]


def in_round(stage: str, number: int) -> str:
    """Name of a stage of the loop in a round of feedback; the first round's have no prefix."""
    return stage if number == 1 else f"{ROUNDS}/{number:02d}/{stage}"


def split_round(stage: str) -> tuple[str, int]:
    """Split a name made by `in_round` into the stage's own name and its round."""
    top, _, rest = stage.partition("/")
    number, _, name = rest.partition("/")
    return (name, int(number)) if top == ROUNDS and number.isdigit() and name else (stage, 1)


def run_of(stage_dir: Path) -> tuple[Path, int]:
    """The run directory and the round that the directory of a stage or baseline, finished or not, belongs to.

    Not for the data stages, which lie one deeper.
    """
    parent = stage_dir.parent
    if parent.name == BASELINES and not (parent / "config.yaml").exists():
        return parent.parent, 1
    if parent.parent.name == ROUNDS and parent.name.isdigit() and not (parent / "config.yaml").exists():
        return parent.parent.parent, int(parent.name)
    return parent, 1


def _read_owner(path: Path) -> dict[str, str]:
    return {key: str(value) for key, value in read_json(path).items()}


START_RECORD = "started.json"


@dataclass(frozen=True)
class StageStart:
    """Settings and inputs of a stage at its start, recorded beside its checkpoints; the fields are its manifest's."""

    fingerprint: str
    section: dict[str, Any]
    inputs: dict[str, list[FileRecord]]

    def write(self, directory: Path) -> None:
        """Write the record into the working directory of the stage."""
        (directory / CHECKPOINTS).mkdir(exist_ok=True)
        write_atomic(directory / CHECKPOINTS / START_RECORD, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, directory: Path) -> StageStart | None:
        """Read the record of the stage that works in `directory`; None: there is none that can be read."""
        data = read_json(directory / CHECKPOINTS / START_RECORD)
        try:
            inputs = {name: [FileRecord(**record) for record in records] for name, records in data["inputs"].items()}
            return cls(str(data["fingerprint"]), dict(data["section"]), inputs)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def differences(self, section: Mapping[str, Any]) -> tuple[str, ...]:
        """Return a line for every setting of `section` that differs from the recorded one."""
        return tuple(describe_differences(self.section, section))
