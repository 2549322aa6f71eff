"""The real program on tiny models: SIGKILL at chosen moments, a full disk, then the same command again."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.config import Config, dump_config
from pipelines.errors import DiskError
from tests import programs
from tests.models.helpers import outside_base
from tests.trainers.test_trainer_resume import LORA, Interrupter, Killed, go, kill, result, settings, went_on

NEVER = "never"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose SFT and reward model were never interrupted, and beside it what it was made from."""
    folder = tmp_path_factory.mktemp("kill")
    base = outside_base(folder / "base")
    sft = settings(folder, base, "sft", LORA).sft.model_dump()
    config = settings(folder, base, "reward", LORA)
    config = Config.model_validate(config.model_dump() | {"sft": sft})
    (folder / "my.yaml").write_text(dump_config(config))
    go(folder / NEVER, config, "reward")
    return folder


def program(folder: Path, root: Path, *args: str, kill_at: str = "", cold: bool = False) -> subprocess.Popen[str]:
    return programs.program(folder, *args, "--config", "my.yaml", "--run-dir", str(root), cold=cold, KILL_AT=kill_at)


def run(folder: Path, root: Path, *args: str, kill_at: str = "", cold: bool = False) -> tuple[int, str]:
    process = program(folder, root, *args, kill_at=kill_at, cold=cold)
    _, err = process.communicate(timeout=240)
    return process.returncode, err


def often(stage: str) -> tuple[str, ...]:
    return (stage, "--set", f"{stage}.save_steps=4")


def finish(folder: Path, root: Path, stage: str) -> list[str]:
    """The same command to its end, in this process; the result is that of the run that was never killed."""
    from pipelines.config import load_config

    reporter = Interrupter()
    go(root, load_config(folder / "my.yaml", (f"{stage}.save_steps=4",)), stage, reporter)
    assert result(root, stage) == result(folder / NEVER, stage)
    assert not list(root.rglob("*.partial"))
    assert not list(root.rglob("checkpoints"))
    return went_on(reporter.said)


POINTS = {
    "before the first save": ("open:metrics.jsonl:1", []),
    "between steps": ("open:metrics.jsonl:3", ["step 4"]),  # The second time is the save of step 4.
    "within the second save": ("open:trainer_state.json:4", ["step 4"]),  # A save opens it three times.
}
MORE = {
    "within the first save": ("open:trainer_state.json:1", []),
    "before the sums of the second": ("os.rename:sums.json:2", ["step 4"]),
    "before the marker of the third": ("os.rename:checkpoint.json:3", ["step 8"]),
    "before the manifest": ("os.rename:manifest.json:2", ["step 14"]),  # The first is that of the data.
    "before the publishing": ("os.rename:sft:1", []),
}


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(point, marks=pytest.mark.slow) for point in MORE)])
def test_killed_in_sft(folder: Path, tmp_path: Path, point: str) -> None:
    kill_at, expected = (POINTS | MORE)[point]
    root = tmp_path / "run"
    code, err = run(folder, root, *often("sft"), kill_at=kill_at, cold=point == "between steps")
    assert code == -signal.SIGKILL, err
    assert finish(folder, root, "sft") == expected


def test_killed_in_the_reward_model_as_a_child_of_all(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(folder / NEVER, root)
    shutil.rmtree(root / "reward")
    line = ("all", "--until", "reward", "--set", "reward.save_steps=4")
    code, err = run(folder, root, *line, kill_at="open:trainer_state.json:4")
    assert code == 137, err
    assert "stage reward was killed" in err
    code, err = run(folder, root, *line)
    assert code == 0, err
    assert "resumes at step 4" in err
    assert "checkpoint-8 is left out" in err
    assert "Writing model shards" not in err
    assert result(root, "reward") == result(folder / NEVER, "reward")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_saves_and_says_how_to_go_on(folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    root = tmp_path / "run"
    process = program(folder, root, "sft", "--set", "sft.logging_steps=1", "--set", "sft.num_train_epochs=500.0")
    metrics = root / "sft.partial" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=240)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], err
    assert f"{number.name}: this step is finished and saved" in err
    assert "goes on from the last checkpoint" in err
    (saved,) = (root / "sft.partial" / "checkpoints").glob("checkpoint-*")
    code, out = status(folder, root)
    assert code == 0
    assert f"resumes at step {saved.name.partition('-')[2]}" in out


def status(folder: Path, root: Path) -> tuple[int, str]:
    process = programs.program(folder, "status", "--run-dir", str(root))
    out, _ = process.communicate(timeout=240)
    return process.returncode, out


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_time_again_and_again(folder: Path, tmp_path: Path, seed: int) -> None:
    """Every part lasts a little longer, so that it comes to its end."""
    times, root = random.Random(seed), tmp_path / "run"
    for attempt in range(40):
        process = program(folder, root, "all", "--until", "reward", "--set", "sft.save_steps=1")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=times.uniform(2, 12) + attempt)
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    for stage in ("sft", "reward"):
        assert result(root, stage) == result(folder / NEVER, stage)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_exit_9_and_the_older_checkpoint_stands(tmp_path: Path, small_disk: Path) -> None:
    """The disk fills up in the second save, every time at another file, until it no longer does."""
    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", LORA, save_steps=4)
    go(tmp_path / NEVER, config, "sft")
    root, ballast = small_disk / "run", small_disk / "ballast"
    with pytest.raises(Killed):
        go(root, config, "sft", Interrupter(7, kill))
    saved = root / "sft.partial" / "checkpoints"
    size = sum(path.stat().st_size for path in (saved / "checkpoint-4").rglob("*"))
    failed_at = set()
    for free in range(0, size + 60_000, max(size // 8, 1)):

        def fill(free: int = free) -> None:
            room = shutil.disk_usage(small_disk).free
            ballast.write_bytes(bytes(max(room - free, 0)))

        with contextlib.ExitStack() as stack:
            if free < size:
                stack.enter_context(pytest.raises(DiskError, match="no space left"))
            else:
                stack.enter_context(contextlib.suppress(DiskError))
            go(root, config, "sft", Interrupter(4, fill))
        failed_at.add(frozenset(path.name for path in (saved / "checkpoint-8").glob("*")))
        ballast.unlink()
        assert (saved / "checkpoint-4" / "checkpoint.json").exists() or not saved.exists()
        if not saved.exists():
            break
    assert len(failed_at) > 4, failed_at
    finish = Interrupter()
    go(root, config, "sft", finish)
    assert result(root, "sft") == result(tmp_path / NEVER, "sft")


def test_the_program_says_so(tmp_path: Path, small_disk: Path, folder: Path) -> None:
    root = small_disk / "run"
    shutil.copytree(folder / NEVER / "data", root / "data")
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 300_000))
    code, err = run(folder, root, *often("sft"))
    assert code == 9, err
    assert "no space left on the disk" in err
    assert "Traceback" not in err
    (small_disk / "ballast").unlink()
    finish(folder, root, "sft")
