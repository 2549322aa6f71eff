"""What the program costs before it does anything: processor seconds of commands, and of the stages of a tiny run.

    python -m benchmarks.startup [--repeats 5] [--root DIRECTORY]

Each figure is the least of the repeats, with its ratio to `import typer` in the same run. `--root` measures another
checkout, as it was before a change.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

COMMANDS = ("--help", "ppo --help", "label --help", "agreement --help", "pairs --help", "config show --config my.yaml")
TINY = """
run: {device: cpu}
model:
  init: scratch
  scratch: {vocab_size: 320, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
data: {task: {name: support, demonstrations: 60, comparisons: 60, prompts: 40}}
sft: {max_length: 96, max_steps: 6}
reward: {max_length: 96, max_steps: 6, normalization_prompts: 4}
ppo: {max_prompt_length: 64, response_length: 6, total_episodes: 24, rollout_batch_size: 8, num_mini_batches: 2}
eval: {num_prompts: 4}
"""
FIRST_LINE = "CPU thread"
"""In the line that the function of a stage says first: by then it has loaded all that it needs."""


def seconds_of(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Processor seconds of a command and of its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_to_first_line(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Processor seconds of a stage until its own first line."""
    quiet, heard = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=quiet, stderr=heard) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if FIRST_LINE in line:
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                process.stderr.read()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    raise RuntimeError(f"{command} never said `{FIRST_LINE}`")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "my.yaml").write_text(TINY)
        environment = os.environ | {"PYTHONPATH": str(told.root.resolve()), "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}

        def least(measure: Callable[..., float], *command: str, fresh: bool = False) -> float:
            figures = []
            for number in range(told.repeats + 1):  # the first one compiles
                words = [sys.executable, *command, *(["--run-dir", f"run-{number}"] if fresh else [])]
                figures.append(measure(words, folder, environment))
            return min(figures[1:])

        rlhf = ("-m", "rlhf_cli")
        unit = least(seconds_of, "-c", "import typer")
        rows = {"python -c 'import typer'": unit}
        print("| command | processor seconds | x import typer |\n|---|---|---|", flush=True)
        rows |= {f"rlhf {line}": least(seconds_of, *rlhf, *line.split()) for line in COMMANDS}
        on = ("--config", "my.yaml")
        rows["rlhf all, a tiny run"] = least(seconds_of, *rlhf, "all", *on, fresh=True)
        rows["rlhf all, when it is finished"] = least(seconds_of, *rlhf, "all", *on, "--run-dir", "run-0")
        rows["rlhf status"] = least(seconds_of, *rlhf, "status", "--run-dir", "run-0")
        for stage in ("sft", "reward", "ppo", "eval"):
            line = (*rlhf, stage, *on, "--run-dir", "run-0", "--force")
            rows[f"rlhf {stage}, to its first line"] = least(seconds_to_first_line, *line)
        for label, seconds in rows.items():
            print(f"| {label} | {seconds:.2f} | {seconds / unit:.1f} |", flush=True)


if __name__ == "__main__":
    main()
