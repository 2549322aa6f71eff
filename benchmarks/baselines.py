"""PPO and the baselines on the quickstart: SFT, PPO, RLOO, GRPO, DPO and best of n in one table. Prints Markdown.

    python -m benchmarks.baselines [--seeds 1 2 3 4] [--best-of-n 64] [--keep DIRECTORY]

One run a seed by the command line: all have the same SFT model, reward model, judge and held-out prompts. A run that is
in DIRECTORY already goes on from where it is. Of every training the processor seconds are noted, with the start of the
program in them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from pipelines.report.bootstrap import estimate
from pipelines.report.estimates import Estimate, short

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
POLICIES = {"sft": "SFT", "ppo": "PPO", "rloo": "RLOO", "grpo": "GRPO", "dpo": "DPO", "bon": "best of n"}
STEPS = {
    "shared": ("all", "--until", "reward"),
    "ppo": ("ppo",),
    "rloo": ("baseline", "rloo"),
    "grpo": ("baseline", "grpo"),
    "dpo": ("baseline", "dpo"),
    "judge": ("judge",),
}
"""What is timed, and the command of each."""


def lines(seeds: list[int], best_of_n: int, place: Path) -> Iterator[str]:
    """Yield the tables, line by line."""
    results, seconds = {}, {}
    for seed in seeds:
        seconds[seed] = make(seed, best_of_n, place)
        results[seed] = json.loads((place / f"seed-{seed}" / "eval" / "results.json").read_text())
    scorers = ("gold", "judge")
    yield "| policy | seed | gold | wins by gold | wins by the judge | KL, nats | unlike SFT's | tokens | processor s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for policy, name in POLICIES.items():
        for seed in seeds:
            measures = results[seed]["measures"][policy]
            rates = [told(measures.get("win_rate", {}).get(scorer)) for scorer in scorers]
            figures = [told(measures.get("kl")), told(measures.get("unlike")), f"{measures['length']['value']:.1f}"]
            cells = [name, seed, told(measures["mean"]["gold"]), *rates, *figures, seconds[seed].get(policy, "-")]
            yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    yield "| policy | gold: mean, worst seed | wins by gold: mean, worst | KL: mean, most | gold less PPO's, by seed |"
    yield "|---|---|---|---|---|"
    for policy, name in POLICIES.items():
        of_seeds = [results[seed]["measures"][policy] for seed in seeds]
        gold = [measures["mean"]["gold"]["value"] for measures in of_seeds]
        cells = [f"{short(fmean(gold))}, {short(min(gold))}"]
        wins = [measures["win_rate"]["gold"]["value"] for measures in of_seeds if "win_rate" in measures]
        kl = [measures["kl"]["value"] for measures in of_seeds if "kl" in measures]
        cells.append(f"{short(fmean(wins))}, {short(min(wins))}" if wins else "-")
        cells.append(f"{fmean(kl):.1f}, {max(kl):.1f}" if kl else "-")
        cells.append("; ".join(less_than_ppo(policy, place / f"seed-{seed}") for seed in seeds))
        yield f"| {' | '.join([name, *cells])} |"
    yield ""
    yield "Best of n by n, mean of the seeds (the same candidates for all n):"
    yield ""
    yield "| n | KL at most | reward | gold | judge |"
    yield "|---|---|---|---|---|"
    for points in zip(*(results[seed]["best_of_n"]["points"] for seed in seeds), strict=True):
        scores = [(point["optimized"], *(point["judged"][name] for name in scorers)) for point in points]
        cells = [short(fmean(entry["value"] for entry in of_seeds)) for of_seeds in zip(*scores, strict=True)]
        yield f"| {points[0]['n']} | {points[0]['kl']['value']:.2f} | {' | '.join(cells)} |"


def make(seed: int, best_of_n: int, place: Path) -> dict[str, float]:
    """Make what is missing of a run; return the processor seconds of its steps."""
    run, notes = place / f"seed-{seed}", place / f"seed-{seed}.json"
    seconds: dict[str, float] = json.loads(notes.read_text()) if notes.exists() else {}
    settings = ("--config", str(QUICKSTART), "--run-dir", str(run), "--set", f"run.seed={seed}")
    for name, words in STEPS.items():
        if name not in seconds:
            seconds[name] = timed(*words, *settings)
            notes.write_text(json.dumps(seconds))
    policies = f"eval.policies=[{', '.join(POLICIES)}]"
    timed("eval", *settings, "--set", policies, "--set", f"eval.best_of_n={best_of_n}")
    return seconds


def timed(*words: str) -> float:
    """Run a command of the program; return its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        (sys.executable, "-m", "rlhf_cli", *words, "--quiet", "--json"), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr + done.stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


def less_than_ppo(policy: str, run: Path) -> str:
    """Mean difference of gold to PPO over the prompts, with its 95 % interval."""
    answers = [json.loads(row)["answers"] for row in (run / "eval" / "answers.jsonl").read_text().splitlines()]
    gold = [[answer[name]["scores"]["gold"] for answer in answers] for name in (policy, "ppo")]
    difference = estimate([ours - of_ppo for ours, of_ppo in zip(*gold, strict=True)], 2000)
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def told(entry: dict[str, Any] | None) -> str:
    """An estimate with its interval."""
    return "-" if entry is None else Estimate.of(entry).text()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--best-of-n", type=int, default=64, help="number of answers that best of n chooses from")
    parser.add_argument("--keep", type=Path, help="directory for the runs; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        for line in lines(options.seeds, options.best_of_n, place):
            print(line, flush=True)


if __name__ == "__main__":
    main()
