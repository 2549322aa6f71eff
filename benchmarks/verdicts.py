"""Verdicts of quickstart runs whose outcome is known: good labels, shuffled ones, too much PPO. Prints Markdown.

    python -m benchmarks.verdicts [--seeds 1 2 3 4] [--keep DIRECTORY]

- good: the quickstart as it is.
- shuffled: annotators so noisy that their choices are random. The gate has to refuse the reward model; then PPO is
  forced by `ppo.reward_gate: warn`.
- no KL: the reward model of the good run, with a KL coefficient of 0 and six times as many updates.

Beside gold, which is the truth here, the independent judge is asked, the only one that a real project has. Every cell
is a run by the command line; a run that is in DIRECTORY already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
SHUFFLED = "feedback.simulated.noise=1000"
NO_KL = ("ppo.kl_coef=0", "ppo.total_episodes=11520", "ppo.eval_steps=30")
REFUSED = 7


def lines(seeds: list[int], place: Path) -> Iterator[str]:
    """Yield the table, line by line."""
    yield "| case | seed | reward model | gate | KL | wins by the reward | by gold | by the judge | judge right on |"
    yield "|---|---|---|---|---|---|---|---|---|"
    calls = []
    for seed in seeds:
        good, shuffled, no_kl = (place / f"{case}-{seed}" for case in ("good", "shuffled", "no-kl"))
        of_seed = ("--config", str(QUICKSTART), "--set", f"run.seed={seed}")
        rlhf(good, *of_seed)
        yield row("good", seed, good, "passed", calls)
        if not (shuffled / "eval").exists():
            code = rlhf(shuffled, *of_seed, "--set", SHUFFLED, expected=(0, REFUSED))
            (place / f"shuffled-{seed}.code").write_text(str(code))
            rlhf(shuffled, *of_seed, "--set", SHUFFLED, "--set", "ppo.reward_gate=warn")
        refused = (place / f"shuffled-{seed}.code").read_text() == str(REFUSED)
        yield row("shuffled, forced", seed, shuffled, "refused" if refused else "passed", calls)
        if not (no_kl / "eval").exists():
            shutil.copytree(good, no_kl, dirs_exist_ok=True)
            sets = (word for entry in NO_KL for word in ("--set", entry))
            rlhf(no_kl, *of_seed, *sets, "--force", "ppo")
        yield row("no KL, 6 times as long", seed, no_kl, "passed", calls)
    both = [(gold, judge) for gold, judge in calls if judge is not None]
    yield ""
    yield f"Gold and judge make the same call in {sum(a == b for a, b in both)} of {len(both)} runs with a judge."


def row(case: str, seed: int, run: Path, gate: str, calls: list[tuple[str, str | None]]) -> str:
    """Make a line of the table, and note the calls of gold and of the judge."""
    results = json.loads((run / "eval" / "results.json").read_text())
    reward = json.loads((run / "reward" / "manifest.json").read_text())["metrics"]
    opinions = {opinion["scorer"]: opinion for opinion in results["verdict"]["opinions"]}
    judge = opinions.get("judge")
    calls.append((opinions["gold"]["call"], judge and judge["call"]))
    accuracy = results["judge"].get("accuracy")
    cells = [
        *(case, seed, f"{reward['heldout_accuracy_after']:.3f}", gate),
        f"{results['measures']['ppo']['kl']['value']:.1f}",
        told(opinions["reward_model"]["win_rate"]),
        f"{told(opinions['gold']['win_rate'])} {opinions['gold']['call']}",
        "none" if judge is None else f"{told(judge['win_rate'])} {judge['call']}",
        "-" if accuracy is None else f"{accuracy:.3f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def told(rate: dict[str, Any]) -> str:
    """A win rate with its interval."""
    return f"{rate['value']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"


def rlhf(run: Path, *arguments: str, expected: tuple[int, ...] = (0,)) -> int:
    """Run the whole chain, or what is missing of it."""
    words = (sys.executable, "-m", "rlhf_cli", "all", "--run-dir", str(run), "--quiet", "--json", *arguments)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode not in expected:
        raise SystemExit(done.stderr)
    return done.returncode


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--keep", type=Path, help="directory for the runs; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        for line in lines(options.seeds, place):
            print(line, flush=True)


if __name__ == "__main__":
    main()
