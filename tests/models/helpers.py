"""A run directory in miniature: easy data, a context for one stage, and its publishing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.run.directory import RunDir
from pipelines.run.manifest import Manifest
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import StageContext
from tests.tiny import save_pair, tiny_gpt2, tiny_llama, tiny_tokenizer

WORDS = ["cat", "dog", "red", "ball", "world", "story", "mat", "day", "answer", "kind"]


def outside_base(directory: Path, kind: str = "llama", **tokenizer: Any) -> Path:
    """A plain model directory outside any run."""
    made = tiny_tokenizer(**tokenizer)
    return save_pair({"llama": tiny_llama, "gpt2": tiny_gpt2}[kind](made), made, directory)


def config_for(base: Path | None = None, **sections: dict[str, Any]) -> Config:
    """A configuration for the CPU; `base=None`: from scratch."""
    model: dict[str, Any] = {"init": "scratch", "scratch": TINY} if base is None else {"name_or_path": str(base)}
    stage = {"max_length": 64, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "logging_steps": 5}
    return Config.model_validate(
        {
            "run": {"device": "cpu"} | sections.pop("run", {}),
            "model": model | sections.pop("model", {}),
            "sft": stage | sections.pop("sft", {}),
            "reward": stage | {"normalization_prompts": 8} | sections.pop("reward", {}),
            "ppo": {"response_length": 8} | sections.pop("ppo", {}),
            **sections,
        }
    )


TINY = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def demonstrations(n: int, start: int = 0) -> list[dict[str, Any]]:
    """The answer repeats the question's word."""
    words = [f"{WORDS[i % 10]} {WORDS[(i // 10) % 10]}" for i in range(start, start + n)]
    return [{"messages": [_user(f"say {word}"), {"role": "assistant", "content": word}]} for word in words]


def comparisons(n: int, start: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """The polite answer is the better one."""
    return [
        {"prompt": [_user(f"say {word}")], "chosen": f"thank you , {word}", "rejected": f"1 2 3 {word}", **fields}
        for word in (f"{WORDS[i % 10]} {WORDS[(i // 10) % 10]}" for i in range(start, start + n))
    ]


def write_data(run: Path, name: str, train: Iterable[dict[str, Any]], heldout: Iterable[dict[str, Any]]) -> None:
    """The two files of a data stage."""
    directory = run / "data" / name
    directory.mkdir(parents=True, exist_ok=True)
    for side, rows in (("train", train), ("heldout", heldout)):
        (directory / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_stage(run: Path, stage: str, runner: Any, config: Config, *needs: str) -> dict[str, Any]:
    """Run a stage function as the chain would, publish it, and return its metrics."""
    run_dir = RunDir(run)
    out = run_dir.begin(stage)
    ctx = StageContext(config, out, {name: run_dir.stage(name) for name in needs}, SilentReporter())
    metrics: dict[str, Any] = runner(ctx)
    json.dumps(metrics, allow_nan=False)
    empty: dict[str, Any] = {}
    run_dir.publish(
        stage, Manifest(stage, "", empty, {}, [], metrics, config.run.seed, {}, None, "", 0.0, 0, ctx.notes)
    )
    return metrics


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
