"""The run directory: lock, atomic publish, damage found."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.errors import ArtifactError, DiskError, LockedError
from pipelines.run.directory import LOCK_OWNER_VARIABLE, RunDir
from pipelines.run.disk import disk_errors, write_atomic
from pipelines.run.manifest import MANIFEST, Manifest, changed_files, fingerprint_of, record_files


def manifest_of(directory: Path, stage: str = "sft") -> Manifest:
    return Manifest(
        stage=stage,
        fingerprint="f",
        section={"seed": 0},
        inputs={},
        outputs=record_files(directory, but=("checkpoints",)),
        metrics={"loss": 0.5},
        seed=0,
        versions={},
        git_commit=None,
        started="2026-11-21T00:00:00.000+00:00",
        wall_seconds=1.0,
        peak_memory_bytes=1,
        notes={},
    )


def publish(run: RunDir, text: str, stage: str = "sft") -> Manifest:
    out = run.begin(stage)
    (out / "model").mkdir()
    (out / "model" / "weights").write_text(text)
    manifest = manifest_of(out, stage)
    run.publish(stage, manifest)
    return manifest


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create()
    return run


HOLD = """
import sys, time
from pathlib import Path
from pipelines.run.directory import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def holder(run: RunDir) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_at_once_and_a_killed_one_frees_at_once(run: RunDir) -> None:
    process = holder(run)
    try:
        start = time.monotonic()
        with pytest.raises(LockedError, match=str(process.pid)), run.lock():
            pass
        assert time.monotonic() - start < 0.5
        owner = run.holder()
        assert owner is not None
        assert owner["pid"] == str(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run.holder() is None, "a dead process holds nothing, whatever its file says"
    with run.lock():
        pass


def test_a_child_of_the_holder_passes(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    process = holder(run)
    try:
        monkeypatch.setenv(LOCK_OWNER_VARIABLE, str(process.pid))
        with run.lock():
            pass
        monkeypatch.setenv(LOCK_OWNER_VARIABLE, "1")
        with pytest.raises(LockedError), run.lock():
            pass
    finally:
        process.kill()
        process.wait()


def test_the_lock_is_free_after_an_error(run: RunDir) -> None:
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with run.lock():
        assert run.holder() is not None
    assert run.holder() is None


def test_publish_replaces_the_old_artifact_whole(run: RunDir) -> None:
    publish(run, "one")
    publish(run, "two")
    assert (run.stage("sft") / "model/weights").read_text() == "two"
    assert Manifest.read(run.stage("sft")) == manifest_of(run.stage("sft"))
    assert sorted(path.name for path in run.root.iterdir()) == ["sft"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("stage", ["sft", "data/prompts"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_kill_within_publish_is_mended(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, old: bool, stage: str, call: int
) -> None:
    """Stop before the n-th rename of a directory: the artifact is the old or the new one, never half of one."""
    if old:
        publish(run, "one", stage)
    calls = 0
    rename = Path.rename

    def stop(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stop)
    interrupted = False
    try:
        publish(run, "two", stage)
    except KeyboardInterrupt:
        interrupted = True
    monkeypatch.undo()
    assert interrupted == (call <= 1 + old)
    with run.lock():
        pass
    assert (run.stage(stage) / "model/weights").read_text() == "two"
    assert Manifest.read(run.stage(stage)) is not None
    left = {path.name for path in run.stage(stage).parent.iterdir()}
    assert not [name for name in left if name.endswith((".partial", ".old"))]


def test_a_kill_before_the_manifest_leaves_the_old_artifact(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(run, "one")
    monkeypatch.setattr(Manifest, "write", lambda self, directory: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        publish(run, "two")
    with run.lock():
        pass
    assert (run.stage("sft") / "model/weights").read_text() == "one"
    assert run.partial("sft").exists()


def test_mending_leaves_alone_what_a_stage_wrote(run: RunDir) -> None:
    publish(run, "one")
    kept = run.stage("sft") / "notes.old"
    kept.mkdir()
    (run.root / "letters.old").write_text("mine")
    with run.lock():
        pass
    assert kept.is_dir()
    assert (run.root / "letters.old").exists()


def test_checkpoints_are_not_part_of_the_artifact(run: RunDir) -> None:
    out = run.begin("sft")
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "state").write_text("x")
    (out / "a").write_text("x")
    assert [record.path for record in manifest_of(out).outputs] == ["a"]


def test_change_is_seen_by_size_time_or_content(run: RunDir) -> None:
    manifest = publish(run, "one")
    directory, path = run.stage("sft"), run.stage("sft") / "model/weights"
    stat = path.stat()
    assert changed_files(directory, manifest.outputs) == []
    path.touch()
    assert changed_files(directory, manifest.outputs) == [], "only the time differs: the content decides"
    path.write_text("onf")
    assert changed_files(directory, manifest.outputs) == ["model/weights"]
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert changed_files(directory, manifest.outputs) == [], "size and time suffice for a quick look"
    assert changed_files(directory, manifest.outputs, full=True) == ["model/weights"]
    path.unlink()
    assert changed_files(directory, manifest.outputs) == ["model/weights"]


def test_a_copied_and_moved_run_is_still_whole(run: RunDir, tmp_path: Path) -> None:
    manifest = publish(run, "one")
    shutil.copytree(run.root, tmp_path / "copy", copy_function=shutil.copy)
    run.root.rename(tmp_path / "moved")
    for name in ("copy", "moved"):
        there = RunDir(tmp_path / name).stage("sft")
        assert Manifest.read(there) == manifest
        assert changed_files(there, manifest.outputs, full=True) == []
    assert str(tmp_path) not in (tmp_path / "moved/sft" / MANIFEST).read_text()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"x"', '{"schema_version": 1}', '{"schema_version": 1, "outputs": [3], "inputs": {}}', "\xff"],
)
def test_a_damaged_manifest_is_named(run: RunDir, text: str) -> None:
    publish(run, "one")
    (run.stage("sft") / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError) as caught:
        Manifest.read(run.stage("sft"))
    assert str(run.stage("sft") / MANIFEST) == caught.value.where


def test_a_manifest_of_another_version_is_refused(run: RunDir) -> None:
    publish(run, "one")
    path = run.stage("sft") / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(ArtifactError, match="99"):
        Manifest.read(run.stage("sft"))


def test_no_manifest_means_not_complete(run: RunDir) -> None:
    assert Manifest.read(run.stage("sft")) is None
    run.stage("ppo").write_text("a file")
    assert Manifest.read(run.stage("ppo")) is None


def test_events_are_lines_of_json(run: RunDir) -> None:
    run.event("stage_started", stage="sft")
    run.event("stage_ended", stage="sft")
    lines = [json.loads(line) for line in (run.root / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["stage_started", "stage_ended"]
    assert lines[0]["time"].endswith("+00:00")


def test_a_fingerprint_depends_on_values_and_inputs_not_on_order() -> None:
    assert fingerprint_of({"a": 1, "b": 2}, {"x": "1"}) == fingerprint_of({"b": 2, "a": 1}, {"x": "1"})
    assert fingerprint_of({"a": 1}, {"x": "1"}) != fingerprint_of({"a": 2}, {"x": "1"})
    assert fingerprint_of({"a": 1}, {"x": "1"}) != fingerprint_of({"a": 1}, {"x": "2"})


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        RuntimeError("basic_ios::clear: iostream error"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_disk_trouble_is_exit_9(error: Exception) -> None:
    with pytest.raises(DiskError) as caught, disk_errors(Path("here")):
        raise error
    assert caught.value.exit_code == 9


def test_other_errors_pass(tmp_path: Path) -> None:
    for error in (FileNotFoundError(errno.ENOENT, "x"), ValueError("x"), RuntimeError("PytorchStreamReader failed")):
        with pytest.raises(type(error)), disk_errors(tmp_path):
            raise error


def test_a_file_in_the_way_is_exit_9(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DiskError):
            RunDir(path).create()


def test_write_atomic_leaves_no_rest(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "one")
    write_atomic(tmp_path / "a", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "two"


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EFBIG, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSPC])
def test_a_file_system_at_fault_is_no_bug(tmp_path: Path, code: int) -> None:
    with pytest.raises(DiskError) as caught, disk_errors(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "x"))
    assert caught.value.hint


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "bad"), NotImplementedError("no flock")])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(DiskError, match="cannot be locked"), RunDir(tmp_path).lock():
        pass
