"""An attack on the program: signals, failing calls and flipped bits, from a seed. What is lost is what counts.

    python -m tests.attack [--seed 0] [--interruptions 12] [--calls 18] [--flips 200]

`make attack` takes a sample in minutes, `make attack-full` every call that changes the run directory, with SIGKILL, a
full disk and a disk at fault each. After each blow the same command goes on to the end, whose models must be those of a
run that nobody disturbed. It prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import programs

CONFIG = """
run: {device: cpu}
model:
  init: scratch
  scratch: {vocab_size: 320, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
data: {task: {name: support, demonstrations: 60, comparisons: 60, prompts: 40}}
sft: {max_length: 96, max_steps: 6, save_steps: 2}
reward: {max_length: 96, max_steps: 6, save_steps: 2, normalization_prompts: 4}
ppo:
  {max_prompt_length: 64, response_length: 6, total_episodes: 24, rollout_batch_size: 8, num_mini_batches: 2,
   save_steps: 1}
eval: {num_prompts: 4}
"""
STOPS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FAILURES = ("KILL", "ENOSPC", "EIO")
CLEAN = {0, 1, 6, 9, 129, 130, 137, 143, -signal.SIGKILL}
"""Exit codes after a blow; 1 is none of ours but that of a library that died in the middle of a call."""


@dataclass
class Tally:
    """Blows by kind: how many were tried, and after how many the end was that of the undisturbed run."""

    tried: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, kind: str, fault: str | None) -> None:
        """Note a blow, and what was wrong after it."""
        self.tried[kind] += 1
        self.held[kind] += fault is None
        if fault is not None:
            self.faults.append(f"{kind}: {fault}")

    def lines(self) -> Iterator[str]:
        """Yield the table."""
        yield "| blow | held / tried | lost |"
        yield "|---|---|---|"
        for kind, tried in self.tried.items():
            yield f"| {kind} | {self.held[kind]} / {tried} | {tried - self.held[kind]} |"
        yield from (f"\n{fault}" for fault in self.faults)


class Target:
    """A small run of all stages, and the same run undisturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "my.yaml").write_text(CONFIG, encoding="utf-8")
        began = time.monotonic()
        code, err = self.go("whole")
        assert code == 0, err
        self.seconds = time.monotonic() - began
        self.models = models_of(folder / "whole")

    def start(self, name: str, **changes: str) -> subprocess.Popen[str]:
        """Start `rlhf all` on the run of this name."""
        return programs.program(self.folder, *("all", "--config", "my.yaml", "--run-dir", name), **changes)

    def go(self, name: str, **changes: str) -> tuple[int, str]:
        """Run it to its end; exit code and stderr."""
        process = self.start(name, **changes)
        _, err = process.communicate(timeout=600)
        return process.returncode, err

    def fault_after(self, name: str, code: int, err: str) -> str | None:
        """Go on after a blow; what is wrong with that, or with the end. The run is removed where nothing is."""
        if code not in CLEAN:
            return f"exit code {code}: {err[-300:]}"
        if code == 1 and "this is a bug" in err:
            return f"called a bug: {err[-300:]}"
        for _ in range(3):  # a child of a parent that was killed may hold the run for a moment
            code, err = self.go(name)
            if code != 5:
                break
            time.sleep(1)
        if code != 0:
            return f"the same command ends with {code}: {err[-300:]}"
        if models_of(self.folder / name) != self.models:
            return f"other models than undisturbed: {name}"
        left = [path.name for path in (self.folder / name).rglob("*.partial")]
        if left:
            return f"left behind: {left}"
        shutil.rmtree(self.folder / name)
        return None


def models_of(run: Path) -> dict[str, str]:
    """Hash of every file of every published model."""
    files = (path for path in run.rglob("model/**/*") if path.is_file())
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def interrupt(target: Target, count: int, chance: random.Random, tally: Tally) -> None:
    """Send a signal at a random time, to the program or to the stage that it runs, some runs several times."""
    for number in range(count):
        name, stop = f"signal-{number}", chance.choice(STOPS)
        child = stop == signal.SIGKILL and chance.random() < 0.5
        code, err = 0, ""
        for _ in range(chance.randint(1, 3)):
            process = target.start(name)
            wait_for_time(process, chance.uniform(0.1, 0.9) * target.seconds)
            for pid in children_of(process.pid) if child else [process.pid]:
                try:
                    os.kill(pid, stop)
                except ProcessLookupError:
                    continue
            _, err = process.communicate(timeout=600)
            code = process.returncode
        tally.add(f"{stop.name} to {'a stage' if child else 'the program'}", target.fault_after(name, code, err))


def wait_for_time(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait so long, or until the process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    """Processes that a process has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def fail_calls(target: Target, count: int | None, chance: random.Random, tally: Tally) -> None:
    """Let the n-th call that changes the run directory fail, or be the last of its process; None: every one."""
    log = target.folder / "calls"
    code, err = target.go("counted", FAIL_AT=f"{target.folder / 'counted'}:0:{log}")
    assert code == 0, err
    most = max(map(int, log.read_text().split()))
    blows = [(number, what) for number in range(1, most + 1) for what in FAILURES]
    for number, what in blows if count is None else chance.sample(blows, min(count, len(blows))):
        name = f"call-{number}-{what}"
        code, err = target.go(name, FAIL_AT=f"{target.folder / name}:{number}:{what}")
        tally.add(f"call fails: {what}", target.fault_after(name, code, err))


def flip_bits(target: Target, count: int, chance: random.Random, tally: Tally) -> None:
    """Flip a bit of a file of the finished run: what a manifest holds is damage, anything else stops nothing."""
    from rlhf_cli.app import run as rlhf

    run = target.folder / "whole"
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    for _ in range(count):
        path = chance.choice(files)
        whole, stat = path.read_bytes(), path.stat()
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        recorded = any(
            (above / "manifest.json").exists() for above in path.relative_to(run).parents for above in [run / above]
        )
        same = path.name == "manifest.json" and _same_json(data, whole)
        with open(os.devnull, "w") as nowhere:
            code = _quietly(rlhf, ["status", "--run-dir", str(run), "--verify", "--json"], nowhere)
        kind = (
            "flipped bit: manifest"
            if path.name == "manifest.json"
            else "flipped bit: artifact"
            if recorded
            else "flipped bit: other"
        )
        wanted = {6} if recorded and not same else {0, 2, 6}
        tally.add(kind, None if code in wanted else f"{path.relative_to(run)}: exit code {code}")
        path.write_bytes(whole)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _same_json(data: bytes, whole: bytes) -> bool:
    try:
        return bool(json.loads(data) == json.loads(whole))
    except ValueError:
        return False


def _quietly(rlhf: object, arguments: Sequence[str], nowhere: object) -> int:
    import contextlib

    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):  # type: ignore[type-var]
        return int(rlhf(arguments))  # type: ignore[operator]


def attack(folder: Path, seed: int, interruptions: int, calls: int | None, flips: int) -> Tally:
    """Strike all blows."""
    chance, tally, target = random.Random(seed), Tally(), Target(folder)
    flip_bits(target, flips, chance, tally)
    interrupt(target, interruptions, chance, tally)
    fail_calls(target, calls, chance, tally)
    return tally


def main() -> None:
    """Print the table; exit code 1 where something was lost."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--interruptions", type=int, default=12)
    options.add_argument("--calls", type=int, default=18, help="-1: all of them")
    options.add_argument("--flips", type=int, default=200)
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calls = None if told.calls < 0 else told.calls
        tally = attack(Path(folder), told.seed, told.interruptions, calls, told.flips)
    print("\n".join(tally.lines()))
    raise SystemExit(bool(tally.faults))


if __name__ == "__main__":
    main()
