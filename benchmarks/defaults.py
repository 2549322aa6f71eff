"""Learning rates tried for the defaults: SFT, reward model and PPO, full fine-tuning and LoRA. Prints Markdown.

    python -m benchmarks.defaults MODEL [--stages sft reward ppo] [--kinds full lora] [--keep DIRECTORY]

All of it learns the self-made task `support`, so that nothing has to be downloaded. MODEL is a directory, a GGUF file,
`package:...`, or `quickstart`: the model from scratch of that configuration. Every cell is a run of its own by the
command line; PPO's cells share the SFT and the reward model of the default rates.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs"
RATES: Mapping[str, Mapping[str, Sequence[float]]] = {
    "sft": {"full": (5e-6, 2e-5, 1e-4), "lora": (2e-5, 2e-4, 1e-3)},
    "reward": {"full": (3e-6, 1e-5, 5e-5), "lora": (1e-5, 1e-4, 5e-4)},
    "ppo": {"full": (1e-6, 2e-6, 1e-5), "lora": (1e-5, 2e-5, 5e-5)},
}
BEFORE = {"ppo.num_ppo_epochs": 4, "ppo.adam_eps": 1e-5, "ppo.value_learning_rate": 5e-5, "ppo.warmup_updates": 0}
"""Defaults of PPO until 2026-11-26, with a learning rate of 1e-5."""


def lines(options: argparse.Namespace, place: Path) -> Iterator[str]:
    """Yield the tables, line by line."""
    for stage in options.stages:
        yield f"\n**{stage}**\n"
        yield from {"sft": sft, "reward": reward, "ppo": ppo}[stage](options, place)


def sft(options: argparse.Namespace, place: Path) -> Iterator[str]:
    """Yield the held-out losses of SFT."""
    yield "| kind | learning rate | held-out loss before | after |"
    yield "|---|---|---|---|"
    for kind in options.kinds:
        for rate in RATES["sft"][kind]:
            metrics = rlhf("sft", place / f"sft-{kind}-{rate:g}", of_model(options, kind), {"sft.learning_rate": rate})
            yield f"| {kind} | {rate:g} | {metrics['heldout_loss_before']:.3f} | {metrics['heldout_loss_after']:.3f} |"


def reward(options: argparse.Namespace, place: Path) -> Iterator[str]:
    """Yield the held-out accuracies of reward models on the base."""
    yield "| kind | learning rate | held-out pairs | accuracy before | after |"
    yield "|---|---|---|---|---|"
    for kind in options.kinds:
        for rate in RATES["reward"][kind]:
            told = {"reward.learning_rate": rate, "sft.enabled": options.model == "quickstart"}
            metrics = rlhf("reward", place / f"reward-{kind}-{rate:g}", of_model(options, kind), told)
            before, after = metrics["heldout_accuracy_before"], metrics["heldout_accuracy_after"]
            yield f"| {kind} | {rate:g} | {metrics['rows_heldout']} | {before:.3f} | {after:.3f} |"


def ppo(options: argparse.Namespace, place: Path) -> Iterator[str]:
    """Yield how PPO went: the held-out figures after it, and the largest steps on the way."""
    yield "| kind | learning rate | seed | score before | after | KL | finished | largest KL of an update | clipped |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for kind in options.kinds:
        for seed in options.seeds:
            if not (start := place / f"start-{kind}-{seed}").exists():
                began = dict(entry.split("=") for entry in options.start) | {"run.seed": seed}
                rlhf("all", start, of_model(options, kind), began, "--until", "reward")
        cells: list[tuple[str, Mapping[str, Any]]] = [(f"{r:g}", {"ppo.learning_rate": r}) for r in RATES["ppo"][kind]]
        for name, told in [*cells, ("before: 1e-05", {**BEFORE, "ppo.learning_rate": 1e-5})]:
            for seed in options.seeds:
                run = place / f"ppo-{kind}-{name.replace(' ', '')}-{seed}"
                if not run.exists():
                    shutil.copytree(place / f"start-{kind}-{seed}", run)
                metrics = rlhf("ppo", run, {}, {**told, "ppo.total_episodes": options.episodes})
                updates = [json.loads(line) for line in (run / "ppo" / "metrics.jsonl").read_text().splitlines()]
                yield (
                    f"| {kind} | {name} | {seed} | {metrics['start/eval/score']:.3f} | {metrics['eval/score']:.3f} | "
                    f"{metrics['eval/kl']:.2f} | {metrics['eval/finished']:.2f} | "
                    f"{max(line['policy/approxkl_avg'] for line in updates):.4f} | "
                    f"{mean(line['policy/clipfrac_avg'] for line in updates):.3f} |"
                )


def of_model(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Return the settings of the model and its data."""
    if options.model == "quickstart":
        shipped = {"_config": str(CONFIGS / "quickstart.yaml"), "feedback.source": "file"}
        return {**shipped, "model.use_peft": kind == "lora"}
    rows = {"demonstrations": options.rows, "comparisons": options.rows, "prompts": 200}
    lengths = {"sft.max_length": 256, "reward.max_length": 256, "ppo.max_prompt_length": 128, "ppo.response_length": 48}
    evaluated = {"ppo.num_eval_prompts": 32, "reward.normalization_prompts": 32}
    return {
        "model.name_or_path": options.model,
        "model.use_peft": kind == "lora",
        "data.task": {"name": "support", **rows},
        "ppo.rollout_batch_size": options.rollout,
        **lengths,
        **evaluated,
    }


def rlhf(stage: str, run: Path, model: Mapping[str, Any], told: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Run a stage and return its metrics."""
    settings = {**model, **told}
    config = settings.pop("_config", None)
    command = [sys.executable, "-m", "rlhf_cli", stage, "--run-dir", str(run), "--json", *more]
    if config or not (run / "config.yaml").exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        empty = run.parent / "empty.yaml"
        empty.write_text("", encoding="utf-8")
        command += ["--config", config or str(empty)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    metrics: dict[str, Any] = answer.get("metrics", {})
    return metrics


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("model")
    options.add_argument("--stages", nargs="+", choices=RATES, default=list(RATES))
    options.add_argument("--kinds", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--rows", type=int, default=1000, help="demonstrations, and comparisons")
    options.add_argument("--episodes", type=int, default=640)
    options.add_argument("--rollout", type=int, default=64)
    options.add_argument("--start", nargs="*", default=[], help="KEY=VALUE of the models that PPO starts from")
    options.add_argument("--keep", type=Path, help="where the runs stay; runs that are there are not repeated")
    return options


def main() -> None:
    """Print the tables of one model."""
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in lines(options, options.keep or Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
