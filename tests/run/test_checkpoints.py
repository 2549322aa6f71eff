"""Checkpoints: whole or not used, kept in number, and the logs that go with them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import DiskError
from pipelines.run import checkpoints as module
from pipelines.run.checkpoints import MARKER, Checkpoint, Checkpoints, newest_at_a_glance


class Bench:
    """A stage's working directory with its checkpoints; `again()` is what a new process sees."""

    def __init__(self, out: Path, keep: int = 2) -> None:
        self.out, self.keep = out, keep
        self.warnings: list[str] = []
        self.again()

    def again(self) -> Checkpoints:
        root = self.out / "checkpoints"
        self.checkpoints = Checkpoints(root, keep=self.keep, logs=self.out, warn=self.warnings.append)
        return self.checkpoints

    def log(self, text: str, name: str = "metrics.jsonl") -> None:
        with (self.out / name).open("a") as file:
            file.write(f"{text}\n")

    def save(self, *steps: int) -> None:
        for step in steps:
            self.log(f"line {step}")
            path = self.checkpoints.begin(step)
            (path / "model").mkdir()
            (path / "model" / "weights").write_text(f"weights of {step}")
            (path / "optimizer.pt").write_text("moments")
            self.checkpoints.complete(step)

    def path(self, step: int) -> Path:
        return self.out / "checkpoints" / f"checkpoint-{step}"

    @property
    def steps(self) -> list[int]:
        return sorted(int(path.name.partition("-")[2]) for path in (self.out / "checkpoints").iterdir())

    def newest(self) -> int | None:
        found = self.again().newest()
        return found.step if found else None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_newest_complete_one_is_found_by_number_not_by_name(bench: Bench) -> None:
    assert bench.newest() is None
    bench.save(9, 10)
    assert bench.again().newest() == Checkpoint(bench.path(10), 10)
    assert bench.warnings == []


def test_one_without_its_marker_is_named_and_left_out(bench: Bench) -> None:
    bench.save(3)
    (bench.checkpoints.begin(6) / "optimizer.pt").write_text("half")
    assert bench.newest() == 3
    (warning,) = bench.warnings
    assert "checkpoint-6" in warning
    assert "the one of step 3 is used" in warning


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    stat = path.stat()
    path.write_bytes(bytes(data))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (lambda path: _flip(path / "model/weights"), "model/weights was altered"),
    "missing": (lambda path: (path / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "cut": (lambda path: os.truncate(path / "optimizer.pt", 3), "optimizer.pt has 3 bytes, not 7"),
    "half a marker": (lambda path: os.truncate(path / MARKER, 40), "is damaged"),
    "a list": (lambda path: (path / MARKER).write_text("[]"), "is damaged"),
    "no logs": (
        lambda path: (path / MARKER).write_text(json.dumps({"step": 6, "files": []})),
        "is damaged",
    ),
    "renamed": (
        lambda path: (path / MARKER).write_text((path / MARKER).read_text().replace('"step": 6', '"step": 7')),
        "of step 7",
    ),
    "a directory": (
        lambda path: ((path / "optimizer.pt").unlink(), (path / "optimizer.pt").mkdir()),
        "optimizer.pt",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_altered_one_is_named_with_what_is_wrong(bench: Bench, fault: str) -> None:
    damage, words = FAULTS[fault]
    bench.save(3, 6)
    damage(bench.path(6))
    assert bench.newest() == 3
    (warning,) = bench.warnings
    assert words in warning
    assert "checkpoint-6" in warning
    assert "step 3 is used" in warning


def test_when_all_are_altered_there_is_none(bench: Bench) -> None:
    bench.save(3, 6)
    for step in (3, 6):
        _flip(bench.path(step) / "optimizer.pt")
    assert bench.newest() is None
    assert len(bench.warnings) == 2
    assert all("starts again" in warning for warning in bench.warnings)


def test_a_file_is_hashed_and_a_fault_named_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.save(3, 6)
    _flip(bench.path(6) / "optimizer.pt")
    checkpoints = bench.again()
    assert checkpoints.newest() == Checkpoint(bench.path(3), 3)
    monkeypatch.setattr("pipelines.run.manifest.sha256_of", lambda path: pytest.fail("read again"))
    assert checkpoints.newest() == Checkpoint(bench.path(3), 3)
    assert len(bench.warnings) == 1


def test_a_glance_goes_by_sizes_and_a_full_one_by_contents(bench: Bench) -> None:
    root = bench.out / "checkpoints"
    assert newest_at_a_glance(root) is None
    bench.save(3, 6)
    _flip(bench.path(6) / "optimizer.pt")
    glance, full = newest_at_a_glance(root), newest_at_a_glance(root, full=True)
    assert (glance and glance.step, full and full.step) == (6, 3)
    (bench.path(6) / "optimizer.pt").unlink()
    glance = newest_at_a_glance(root)
    assert glance is not None
    assert glance.step == 3


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=3)
    bench.save(1, 2, 3, 4, 5)
    assert bench.steps == [3, 4, 5]
    bench.keep = 1
    bench.again()
    bench.save(6)
    assert bench.steps == [6]


def test_an_incomplete_older_one_goes_and_does_not_count(bench: Bench) -> None:
    bench.save(1)
    bench.checkpoints.begin(2)
    bench.save(3)
    assert bench.steps == [1, 3]


def test_one_that_is_newer_than_what_is_saved_now_goes(tmp_path: Path) -> None:
    """The run went back to step 3; what is left of step 6 must not win over the new step 4."""
    bench = Bench(tmp_path, keep=1)
    bench.keep = 2
    bench.again().newest()
    bench.save(3, 6)
    _flip(bench.path(6) / "optimizer.pt")
    assert bench.newest() == 3
    bench.save(4)
    assert bench.steps == [3, 4]


def test_begin_empties_what_a_killed_save_left(bench: Bench) -> None:
    (bench.checkpoints.begin(3) / "shard").write_text("of a killed save")
    bench.save(3)
    assert not (bench.path(3) / "shard").exists()
    assert bench.newest() == 3


def test_pickled_arguments_do_not_stay(bench: Bench) -> None:
    (bench.checkpoints.begin(3) / "training_args.bin").write_bytes(b"a pickle with a token")
    bench.checkpoints.complete(3)
    assert [path.name for path in bench.path(3).iterdir()] == [MARKER]
    assert bench.newest() == 3


def test_the_marker_is_written_last_and_everything_is_forced_to_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, write = module.fsync, module.write_atomic
    monkeypatch.setattr(module, "fsync", lambda path: (order.append(path.name), fsync(path)))
    monkeypatch.setattr(module, "write_atomic", lambda path, text: (order.append(path.name), write(path, text)))
    bench.save(3)
    marker = order.index(MARKER)
    assert {"weights", "optimizer.pt", "metrics.jsonl", "model"} <= set(order[:marker])
    assert order[marker + 1 :] == ["checkpoint-3", "checkpoints"]


@pytest.mark.parametrize("call", range(1, 8))
def test_stopped_anywhere_within_a_save_the_older_one_stands(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Stop before the n-th write, fsync or removal of a save: the newest complete one is 3 or 6, and whole."""
    bench.save(1, 3)
    calls = 0

    def stops(function: Callable[..., object]) -> Callable[..., object]:
        def stopping(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == call:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return stopping

    for name in ("fsync", "write_atomic", "_remove"):
        monkeypatch.setattr(module, name, stops(getattr(module, name)))
    with pytest.raises(KeyboardInterrupt):
        bench.save(6)
    monkeypatch.undo()
    assert bench.newest() in (3, 6)
    bench.save(6)
    assert bench.newest() == 6
    assert bench.steps == [3, 6]


def test_a_full_disk_is_exit_9_and_the_older_one_stands(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.save(3)

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(DiskError):
        bench.save(6)
    monkeypatch.undo()
    assert bench.newest() == 3


def test_logs_are_cut_back_to_the_checkpoint(bench: Bench) -> None:
    bench.log("begun")
    bench.save(3)
    bench.log("line 4")
    bench.log("new", name="samples.jsonl")
    checkpoint = bench.again().newest()
    assert checkpoint is not None
    bench.checkpoints.restore_logs(checkpoint)
    assert (bench.out / "metrics.jsonl").read_text() == "begun\nline 3\n"
    assert not (bench.out / "samples.jsonl").exists()
    assert bench.warnings == []


def test_a_log_that_lost_lines_is_named_and_not_filled_up(bench: Bench) -> None:
    bench.save(3)
    (bench.out / "metrics.jsonl").write_text("li")
    checkpoint = bench.again().newest()
    assert checkpoint is not None
    bench.checkpoints.restore_logs(checkpoint)
    assert (bench.out / "metrics.jsonl").read_text() == "li"
    assert "metrics.jsonl has lost lines" in bench.warnings[0]


def test_other_things_beside_the_checkpoints_are_left_alone(bench: Bench) -> None:
    root = bench.out / "checkpoints"
    (root / "checkpoint-x").mkdir(parents=True)
    (root / "checkpoint-99").write_text("a file")
    (root / "started.json").write_text("{}")
    bench.save(3)
    assert bench.newest() == 3
    assert sorted(path.name for path in root.iterdir()) == [
        "checkpoint-3",
        "checkpoint-99",
        "checkpoint-x",
        "started.json",
    ]
