"""The real `rlhf ppo` on tiny models: SIGKILL at chosen and at any moments, signals, a full disk."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipelines.config import dump_config
from pipelines.errors import DiskError
from tests.ppo.test_ppo_resume import KINDS, LORA, settings
from tests.run.test_run_killed import program, run, small_disk, status
from tests.trainers.test_trainer_resume import Interrupter, Killed, go, kill, result

__all__ = ["small_disk"]
NEVER = "never"


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.slow if kind != "lora" else ()) for kind in KINDS]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind of fine-tuning that was never interrupted, and beside it what it was made from."""
    folder = tmp_path_factory.mktemp(request.param)
    config = settings(folder, KINDS[request.param], save_steps=2)
    (folder / "my.yaml").write_text(dump_config(config))
    go(folder / NEVER, config, "ppo")
    return folder


POINTS = {
    "in the second save": "os.rename:checkpoint.json:2",
    "between updates": "open:metrics.jsonl:3",
}
MORE = {
    "before the first save": "open:metrics.jsonl:1",
    "before the marker of the first": "os.rename:checkpoint.json:1",
    "before the marker of the last": "os.rename:checkpoint.json:3",
    "in an evaluation": "open:heldout.jsonl:3",
    "before the manifest": "os.rename:manifest.json:2",
    "before the publishing": "os.rename:ppo:1",
}


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(point, marks=pytest.mark.slow) for point in MORE)])
def test_killed_for_real(folder: Path, tmp_path: Path, point: str) -> None:
    root = tmp_path / "run"
    code, err = run(folder, root, "ppo", kill_at=(POINTS | MORE)[point], cold=point == "between updates")
    assert code == -signal.SIGKILL, err
    code, err = run(folder, root, "ppo")
    assert code == 0, err
    assert result(root, "ppo") == result(folder / NEVER, "ppo")


def partial_lines(root: Path) -> int:
    """Updates that the unfinished stage has logged."""
    path = root / "ppo.partial" / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_time_again_and_again(folder: Path, tmp_path: Path, seed: int) -> None:
    times, root, went_on = random.Random(seed), tmp_path / "run", 0
    for _ in range(40):
        process = program(folder, root, "ppo", "--set", "ppo.save_steps=1")
        lines = partial_lines(root)
        while process.poll() is None and partial_lines(root) == lines:  # until the training itself has begun
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=times.uniform(0, 1.5))
        process.kill()
        _, err = process.communicate()
        went_on += "goes on from update" in err
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert went_on > 0
    assert result(root, "ppo") == result(folder / NEVER, "ppo")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_the_update_and_saves(tmp_path: Path, number: signal.Signals) -> None:
    config = settings(tmp_path, LORA, total_episodes=80_000)
    (tmp_path / "my.yaml").write_text(dump_config(config))
    root = tmp_path / "run"
    process = program(tmp_path, root, "ppo")
    metrics = root / "ppo.partial" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=240)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], err
    (saved,) = (root / "ppo.partial" / "checkpoints").glob("checkpoint-*")
    done = int(saved.name.partition("-")[2])
    assert json.loads(metrics.read_text().splitlines()[-1])["update"] == done
    code, out = status(tmp_path, root)
    assert code == 0
    assert f"resumes at step {done}" in out


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, small_disk: Path) -> None:
    """The disk fills up in the save after update 4, every time at another file."""
    config = settings(tmp_path, LORA, save_steps=2)
    go(tmp_path / NEVER, config, "ppo")
    root, ballast = small_disk / "run", small_disk / "ballast"
    with pytest.raises(Killed):
        go(root, config, "ppo", Interrupter(3, kill))
    saved = root / "ppo.partial" / "checkpoints"
    size = sum(path.stat().st_size for path in (saved / "checkpoint-2").rglob("*"))
    for free in (4096, size // 4, size // 2, size - 4096):

        def fill(free: int = free) -> None:
            ballast.write_bytes(bytes(max(shutil.disk_usage(small_disk).free - free, 0)))

        with pytest.raises(DiskError, match="no space left"):
            go(root, config, "ppo", Interrupter(1, fill))  # after update 3 is done
        ballast.unlink()
        assert (saved / "checkpoint-2" / "checkpoint.json").exists()
    go(root, config, "ppo")
    assert result(root, "ppo") == result(tmp_path / NEVER, "ppo")
