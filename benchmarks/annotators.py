"""What more annotators per task bring: agreement, right pairs, and the reward model's accuracy. Prints markdown.

    python -m benchmarks.annotators --annotators 1 3 5 --seed 0 1

One run of the quickstart up to `sample` for each seed; then, for each number of annotators, labels, pairs and a reward
model from these pairs alone (the task's own comparisons are left out, so that nothing else teaches it). Gold judges: of
the pairs to train on, the share that it orders as the annotators did; and on the answers to held-out prompts, the share
of pairs that the reward model orders as gold does. Pairs that gold ties are left out of both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"


def rows(arguments: argparse.Namespace) -> Iterator[str]:
    """A table, line by line."""
    yield "| annotators of each task | seed | alpha | two agree | pairs to train on | right by gold | held out, by the labels | held out, by gold |"  # noqa: E501
    yield "|---|---|---|---|---|---|---|---|"
    for seed in arguments.seed:
        with tempfile.TemporaryDirectory() as folder:
            start = Path(folder) / "start"
            common = [f"run.seed={seed}", f"feedback.simulated.noise={arguments.noise}", *arguments.set]
            _all(start, "sample", common, config=CONFIG)
            for number in arguments.annotators:
                run = Path(folder) / str(number)
                shutil.copytree(start, run)
                sets = [f"feedback.simulated.annotators={number}", f"feedback.label.overlap={number}"]
                _all(run, "reward", [*common, *sets])
                yield _row(number, seed, run)
                shutil.rmtree(run)


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--annotators", type=int, nargs="+", default=[1, 3, 5])
    options.add_argument("--seed", type=int, nargs="+", default=[0])
    options.add_argument("--noise", type=float, default=0.2, help="deviation of a slip, in points of gold")
    options.add_argument("--set", nargs="*", default=[], help="further SECTION.KEY=VALUE of the configuration")
    return options


def _all(run: Path, last: str, sets: Sequence[str], config: Path | None = None) -> None:
    command = [sys.executable, "-m", "rlhf_cli", "all", "--run-dir", str(run), "--until", last, "--quiet"]
    command += ["--config", str(config)] if config else []
    for entry in ("data.task.comparisons=0", *sets):
        command += ["--set", entry]
    subprocess.run(command, check=True)


def _row(number: int, seed: int, run: Path) -> str:
    labels, reward = _manifest(run / "labels"), _manifest(run / "reward")
    report = json.loads((run / "labels" / "agreement.json").read_text(encoding="utf-8"))["questions"][0]
    right, pairs = right_pairs(run)
    by_gold, judged = against_gold(run)
    cells = [
        f"{number}",
        f"{seed}",
        _interval(report["alpha"]),
        _interval(report["pairwise"]),
        f"{labels['tasks']} tasks, {pairs:,}",
        f"{right:.3f}",
        f"{reward['heldout_accuracy_after']:.3f} [{reward['heldout_accuracy_low_after']:.3f}, "
        f"{reward['heldout_accuracy_high_after']:.3f}]",
        f"{by_gold:.3f} ({judged:,} pairs)",
    ]
    return f"| {' | '.join(cells)} |"


def right_pairs(run: Path) -> tuple[float, int]:
    """The share of training pairs that gold orders alike, ties left out, and the number of all."""
    from pipelines.data.canonical import read_rows
    from pipelines.data.rows import Comparison

    found, gold = list(read_rows(run / "pairs" / "train.jsonl", Comparison)), _gold(run)
    better = [(gold(row.prompt, row.chosen), gold(row.prompt, row.rejected)) for row in found]
    told = [one > two for one, two in better if one != two]
    return sum(told) / len(told), len(found)


def against_gold(run: Path) -> tuple[float, int]:
    """The share of pairs of answers to held-out prompts that the reward model orders as gold does, and their number."""
    import torch

    from pipelines.config import load_config
    from pipelines.data.split import is_held_out
    from pipelines.labels.tasks_file import read_tasks
    from pipelines.models.published_reward import PublishedReward
    from pipelines.models.reward_model import open_reward_model

    torch.set_num_threads(1)
    config, gold = load_config(run / "config.yaml", recorded=run / "config.yaml"), _gold(run)
    model = open_reward_model(PublishedReward.read(run / "reward"), config.model, torch.device("cpu"), batch_size=100)
    tasks = read_tasks(run / "sample" / "tasks.jsonl").tasks.values()
    right: list[float] = []
    for task in tasks:
        if not is_held_out(task.prompt, config.data.eval_fraction, config.data.split_by):
            continue
        texts = [answer.text for answer in task.answers]
        scores = model.scores([model.row(task.prompt, text) for text in texts])
        true = [gold(task.prompt, text) for text in texts]
        for one, two in combinations(range(len(texts)), 2):
            if true[one] != true[two]:
                same = (scores[one] > scores[two]) == (true[one] > true[two])
                right.append(0.5 if scores[one] == scores[two] else float(same))
    return sum(right) / len(right), len(right)


def _gold(run: Path) -> Any:
    from pipelines.config import load_config
    from pipelines.tasks import load_task

    made = load_config(run / "config.yaml").data.task
    assert made is not None
    task = load_task(made.name)
    return lambda prompt, text: task.gold(prompt, text)["gold"]


def _manifest(stage: Path) -> Mapping[str, Any]:
    metrics: Mapping[str, Any] = json.loads((stage / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    return metrics


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return f"n/a: {figure['reason']}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


if __name__ == "__main__":
    for line in rows(parser().parse_args()):
        print(line, flush=True)
