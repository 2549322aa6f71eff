"""What further rounds of feedback bring: gold, round by round, on the same held-out prompts. Prints markdown.

    python -m benchmarks.rounds --rounds 3 --seed 0

The whole quickstart with `--rounds N`: every round samples from the policy of the round before, has the answers ranked
by simulated annotators, adds the pairs to all earlier ones, trains the reward model anew and goes on with PPO. With
`--run-dir` a run that is there already is tabled (what is missing of it is run).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.run.directory import in_round

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
SHOWN = ("relevance", "courtesy", "next_step", "brevity")


def rows(arguments: argparse.Namespace) -> Iterator[str]:
    """A table, line by line: a policy a line."""
    attributes = " | ".join(name.replace("_", " ") for name in SHOWN)
    yield (
        f"| seed | policy | gold | wins against SFT, gold | {attributes} | its reward model | KL to SFT | "
        "annotators agree | pairs to train on | held out | wall |"
    )
    yield "|---" * (10 + len(SHOWN)) + "|"
    for seed in arguments.seed:
        with tempfile.TemporaryDirectory() as folder:
            run = (arguments.run_dir or Path(folder)) / f"seed-{seed}"
            command = [sys.executable, "-m", "rlhf_cli", "all", "--run-dir", str(run), "--quiet"]
            command += [] if (run / "config.yaml").exists() else ["--config", str(CONFIG)]
            for entry in (f"run.seed={seed}", *arguments.set):
                command += ["--set", entry]
            subprocess.run([*command, "--rounds", str(arguments.rounds)], check=True, stdout=sys.stderr)
            yield from table(run, seed, arguments.rounds)


def table(run: Path, seed: int, rounds: int) -> Iterator[str]:
    """The lines of one finished run: SFT, then PPO after each round."""
    measures = json.loads((run / "eval" / "results.json").read_text(encoding="utf-8"))["measures"]
    for number in range(rounds + 1):
        policy = "sft" if not number else "ppo" if number == 1 else f"ppo-{number}"
        found = measures[policy]
        cells = [str(seed), policy, _interval(found["mean"]["gold"])]
        cells += [_interval(found["win_rate"]["gold"]) if number else "-"]
        cells += [f"{found['attribute'][name]['value']:.3f}" for name in SHOWN]
        cells += _of_round(run, number, found) if number else ["-"] * 6
        yield f"| {' | '.join(cells)} |"


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seed", type=int, nargs="+", default=[0])
    options.add_argument("--run-dir", type=Path, help="keep the runs here, one directory a seed")
    options.add_argument("--set", nargs="*", default=[], help="further SECTION.KEY=VALUE of the configuration")
    return options


def _of_round(run: Path, number: int, found: Mapping[str, Any]) -> list[str]:
    stages = {name: run / in_round(name, number) for name in ("sample", "labels", "pairs", "reward", "ppo")}
    made = {name: json.loads((path / "manifest.json").read_text(encoding="utf-8")) for name, path in stages.items()}
    labels, reward = made["labels"]["metrics"], made["reward"]["metrics"]
    return [
        f"{found['mean']['reward_model']['value']:.2f}",
        f"{found['kl']['value']:.1f}",
        f"{labels['pairwise_agreement']:.3f} (alpha {labels['alpha']:.2f})",
        f"{reward['rows_used']:,}",
        f"{reward['heldout_accuracy_after']:.3f}",
        f"{sum(one['wall_seconds'] for one in made.values()):.0f} s",
    ]


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


if __name__ == "__main__":
    for line in rows(parser().parse_args()):
        print(line, flush=True)
