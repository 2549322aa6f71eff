"""A run of the real chain whose stages only write what a test gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines.chain import chain, execute
from pipelines.chain.table import select
from pipelines.config import Config, load_config
from pipelines.run.directory import RunDir
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import Stage, StageContext
from tests.evaluate.test_results_table import RESULTS


def lines(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def answer(text: str, gold: float, reward: float = 0.0) -> dict[str, Any]:
    scores = {"reward_model": reward, "gold": gold}
    return {"text": text, "finished": True, "length": 4, "scores": scores, "attributes": {}}


def row(prompt: str, sft: dict[str, Any], ppo: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": prompt}], "answers": {"base": sft, "sft": sft, "ppo": ppo}}


def ppo_line(update: int, **values: float) -> dict[str, float]:
    names = ("objective/scores", "objective/kl", "val/response_length", "loss/value_avg", "policy/entropy_avg")
    return {"update": update, **dict.fromkeys(names, update / 10), **values}


@dataclass
class Bench:
    """A run directory, and what its stages write and return.

    Attributes:
        files: text by stage and name of the file.
        metrics: final metrics by stage.
        notes: notes by stage.
    """

    run: RunDir
    sets: tuple[str, ...]
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return load_config(None, self.sets)

    def work(self, stage: Stage, context: StageContext) -> dict[str, Any]:
        for name, text in self.files.get(stage.name, {"made": stage.name}).items():
            (context.out / name).parent.mkdir(exist_ok=True)
            (context.out / name).write_text(text, encoding="utf-8")
        context.notes.update(self.notes.get(stage.name, {}))
        return self.metrics.get(stage.name, {})

    def go(self, last: str | None = None, *, force: Sequence[str] = ()) -> None:
        stages = select(None, last, self.config)
        with self.run.lock():
            chain.run_chain(stages, self.config, self.run, SilentReporter(), force=force)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("one\n")
    model = tmp_path / "base"
    model.mkdir()
    (model / "config.json").write_text("{}")
    run = RunDir(tmp_path / "runs" / "mine")
    run.create()
    bench = Bench(run, (f"data.comparisons={rows}", f"model.name_or_path={model}"))
    bench.files = {
        "sft": {"metrics.jsonl": lines(*({"step": step, "loss": 3 / step} for step in (1, 10, 20)))},
        "reward": {
            "model/weights": "1",
            "metrics.jsonl": lines(*({"step": step, "loss": 0.6, "accuracy": 0.7} for step in (1, 50))),
        },
        "ppo": {
            "model/weights": "2",
            "metrics.jsonl": lines(*(ppo_line(update) for update in range(1, 6))),
            "heldout.jsonl": lines({"update": 0, "eval/score": 0.1, "eval/kl": 0.0}, {"update": 5, "eval/score": 1.0}),
        },
        "eval": {
            "results.json": json.dumps(RESULTS),
            "answers.jsonl": lines(
                *(row(f"Prompt {n}?", answer(f"old {n}", 0.5), answer(f"new {n}", n / 30)) for n in range(31))
            ),
        },
    }
    bench.metrics = {
        "data/comparisons": {"train": 90, "heldout": 10},
        "sft": {"rows_used": 90, "steps": 20, "heldout_loss_before": 3.0, "heldout_loss_after": 0.5426},
        "reward": {"rows_used": 90, "heldout_accuracy_after": 0.91},
        "ppo": {"objective/scores": 0.5, "alarms": 1},
    }
    monkeypatch.setattr(execute, "call_runner", bench.work)
    return bench
