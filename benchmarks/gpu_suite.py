"""Everything that wants a GPU, in one command; the table goes to benchmarks/results/.

    python -m benchmarks.gpu_suite                     # on a CUDA machine
    python -m benchmarks.gpu_suite --tiny --device cpu # the same road in small, anywhere

1. the tests marked `gpu`; 2. a QLoRA `rlhf all` on a small model of random weights; 3. PPO step time and peak memory at
a small and an 8 B shape. Every part runs in a process of its own; one that fails is named and the others still run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines.run.manifest import package_versions

ROOT = Path(__file__).parent.parent
FULL_STEPS = (
    ("--shape", "small"),
    ("--shape", "small", "--load-in-4bit"),
    ("--shape", "8b", "--micro-batch", "8", "--forward-batch", "32", "--gradient-checkpointing"),
    ("--shape", "8b", "--load-in-4bit", "--micro-batch", "8", "--forward-batch", "32", "--gradient-checkpointing"),
    ("--shape", "8b", "--load-in-4bit", "--micro-batch", "2", "--batch", "16", "--forward-batch", "16"),
)
SMALL = ("--shape", "tiny", "--batch", "8", "--micro-batch", "4", "--prompt", "8", "--response", "8", "--updates", "1")
TINY_STEPS = (SMALL, (*SMALL, "--load-in-4bit"))


def main() -> int:
    """Run the parts; 0 when all passed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tiny", action="store_true", help="the smallest of everything")
    options.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the table")
    options.add_argument("--only", choices=("tests", "qlora", "steps"), help="one part alone")
    arguments = options.parse_args()
    parts = {"tests": run_tests, "qlora": run_qlora, "steps": run_steps}
    lines, failed = [], []
    for name, part in parts.items():
        if arguments.only in (None, name):
            started = time.monotonic()
            passed, text = part(arguments.device, arguments.tiny)
            lines += [
                f"## {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - started:.0f} s",
                "",
                text,
                "",
            ]
            print(*lines[-4:], sep="\n", flush=True)
            failed += [] if passed else [name]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = arguments.output / f"{today}-gpu-suite-{'tiny-' if arguments.tiny else ''}{arguments.device}.md"
    report.write_text(
        "\n".join([f"# GPU suite, {today}", "", describe(arguments.device), "", *lines]), encoding="utf-8"
    )
    print(f"written to {report}")
    return 1 if failed else 0


def describe(device: str) -> str:
    """The machine and the versions, in one line."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {os.cpu_count()} cores"
    cuda = f"CUDA {torch.version.cuda}, " if device == "cuda" else ""
    return f"{name}; {cuda}" + ", ".join(f"{key} {value}" for key, value in package_versions().items())


def run_tests(device: str, tiny: bool) -> tuple[bool, str]:
    """The tests marked `gpu`; without CUDA they are only collected."""
    extra = ["--collect-only", "-q"] if device == "cpu" else []
    done = _run([sys.executable, "-m", "pytest", "tests", "-m", "gpu", "-p", "no:cacheprovider", *extra])
    return done.returncode == 0, f"`{_last_line(done.stdout)}`" + _failure(done)


def run_qlora(device: str, tiny: bool) -> tuple[bool, str]:
    """`rlhf all` with an NF4 base of random weights: the whole road, through the command line."""
    with tempfile.TemporaryDirectory() as folder:
        model, run_dir = Path(folder) / "model", Path(folder) / "run"
        build = (
            "from pathlib import Path; from benchmarks.ppo_step import random_model; "
            f"random_model({'tiny' if tiny else 'small'!r}, Path({str(model)!r}), {device!r})"
        )
        built = _run([sys.executable, "-c", build])
        if built.returncode:
            return False, _failure(built)
        config = ROOT / "benchmarks" / "qlora_small.yaml"
        command = [sys.executable, "-m", "rlhf_cli", "all", "--config", str(config), "--run-dir", str(run_dir)]
        command += ["--model", str(model), "--set", f"run.device={device}", "--json"]
        if tiny:
            for entry in ("data.task.demonstrations=60", "data.task.comparisons=60", "data.task.prompts=60"):
                command += ["--set", entry]
            command += ["--set", "ppo.total_episodes=16", "--set", "ppo.rollout_batch_size=8"]
            command += ["--set", "ppo.response_length=8", "--set", "eval.num_prompts=4"]
        done = _run(command)
        if done.returncode:
            return False, _failure(done)
        rows = ["| stage | seconds | peak memory, GiB |", "|---|---|---|"]
        for name in ("sft", "reward", "ppo", "eval"):
            manifest = json.loads((run_dir / name / "manifest.json").read_text(encoding="utf-8"))
            rows.append(f"| {name} | {manifest['wall_seconds']:.1f} | {manifest['peak_memory_bytes'] / 2**30:.2f} |")
        first = json.loads((run_dir / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
        rows += [
            "",
            f"KL at step 0: {first['objective/kl']}; largest |ratio - 1|: {first['val/first_ratio_deviation']:.2e}",
        ]
        return first["objective/kl"] == 0.0, "\n".join(rows)


def run_steps(device: str, tiny: bool) -> tuple[bool, str]:
    """Step time and peak memory of PPO at each shape."""
    columns = [
        "shape",
        "weights",
        "episodes",
        "prompt",
        "response",
        "epochs",
        "update_s",
        "generation_s",
        "scoring_s",
        "training_s",
        "tokens_per_second",
        "generated_per_second",
        "peak_gib",
        "kl_at_start",
        "first_ratio_deviation",
    ]
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    passed, failures = True, ""
    for step in TINY_STEPS if tiny else FULL_STEPS:
        done = _run([sys.executable, "-m", "benchmarks.ppo_step", "--device", device, *step])
        if done.returncode:
            passed, failures = False, failures + f"\n\n`{' '.join(step)}` failed:" + _failure(done)
            continue
        result = json.loads(_last_line(done.stdout))
        rows.append("| " + " | ".join(_shown(result[column]) for column in columns) + " |")
    return passed, "\n".join(rows) + failures


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == 0:
        return ""
    return "\n\n```\n" + "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:]) + "\n```"


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
