"""The independent judge: whose rows it is trained on, when there is one, and when it may judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pipelines.config import Config
from pipelines.data.rows import Comparison
from pipelines.data.split import is_held_out
from pipelines.report.pair_accuracy import PairAccuracy
from pipelines.reward import judge, shares
from pipelines.reward import stage as reward
from pipelines.reward.assessment import agreement
from pipelines.reward.shares import Withheld, rows_of, share_of_reward
from pipelines.run.manifest import Manifest
from pipelines.sft import stage as sft
from tests.models.helpers import WORDS, config_for, demonstrations, outside_base, run_stage, write_data


def row(prompt: str, chosen: str = "yes", rejected: str = "no") -> Comparison:
    return Comparison.model_validate(
        {"prompt": [{"role": "user", "content": prompt}], "chosen": chosen, "rejected": rejected}
    )


def rows(n: int, start: int = 0, *, by_length: bool = False) -> list[dict[str, Any]]:
    """The polite answer is the better one; the longer one only if asked for."""
    return [
        {
            "prompt": [
                {"role": "user", "content": f"say {WORDS[i % 10]} {WORDS[i // 10 % 10]} {WORDS[i // 100 % 10]}"}
            ],
            "chosen": f"thank you , {WORDS[i % 10]}",
            "rejected": "1" if by_length or i % 2 else "1 2 3 4 5 6 7 8",
        }
        for i in range(start, start + n)
    ]


def test_the_shares_part_the_prompts_whatever_the_split_does() -> None:
    every = [row(f"question {number // 2}", f"answer {number}") for number in range(4000)]
    parts = {share: list(rows_of(every, share, "question")) for share in ("reward", "judge")}
    prompts = {share: {part.prompt[0].content for part in part_rows} for share, part_rows in parts.items()}
    assert not prompts["reward"] & prompts["judge"]
    assert len(parts["reward"]) + len(parts["judge"]) == len(list(rows_of(every, "all", "question"))) == 4000
    assert len(prompts["judge"]) / 2000 == pytest.approx(shares.WITHHELD, abs=0.03)
    held_out = [is_held_out(part.prompt, 0.5) for part in parts["judge"]]
    assert sum(held_out) / len(held_out) == pytest.approx(0.5, abs=0.06), "the two draws are independent"


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ((500, 100, 200), None),
        ((499, 100, 200), "499 rows to train it on, and 500 are needed"),
        ((900, 99, 200), "99 prompts to train it on, and 100 are needed"),
        ((500, 100, 199), "199 held-out rows to assess it by, and 200 are needed"),
    ],
)
def test_a_judge_needs_rows_prompts_and_held_out_rows(counts: tuple[int, int, int], reason: str | None) -> None:
    assert Withheld(*counts).too_few == reason


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ({}, True),
        ({"eval": {"independent_judge": "off"}}, False),
        ({"eval": {"enabled": False}}, False),
        ({"ppo": {"enabled": False}, "eval": {"scorers": [{"kind": "run"}]}}, False),
        ({"ppo": {"reward": {"kind": "length", "target": 9}}, "eval": {"scorers": [{"kind": "run"}]}}, False),
    ],
)
def test_a_run_has_a_judge_where_ppo_optimizes_its_reward_model(sets: dict[str, Any], expected: bool) -> None:
    config = Config.model_validate(sets)
    assert config.has_judge is expected
    assert any(scorer.kind == "judge" for scorer in config.eval_scorers) is expected


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"ppo": {"reward": {"kind": "judge"}}, "reward": {"enabled": True}}, "judges what PPO optimizes"),
        ({"eval": {"independent_judge": "off", "scorers": [{"kind": "judge"}]}}, "independent_judge is auto"),
        ({"eval": {"scorers": [{"kind": "sum", "parts": [{"kind": "judge"}]}]}}, "cannot be a part of a sum"),
    ],
)
def test_the_judge_stands_alone(sets: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.model_validate(sets)


def test_the_agreement_of_two_models() -> None:
    one = ([2.0, 1.0, 0.0, 5.0], [1.0, 2.0, 0.0, 4.0])
    other = ([9.0, 7.0, 3.0, 0.0], [1.0, 8.0, 1.0, 4.0])  # alike, alike, one undecided, against
    assert agreement(one, other)["agreement"] == 2.5 / 4
    assert agreement(one, one)["agreement"] == 3.5 / 4
    assert agreement(([], []), ([], [])) == {}


def trained(run: Path, base: Path | None, *, by_length: bool = False, **sections: Any) -> tuple[Any, dict[str, Any]]:
    """SFT and the reward model, with held-out rows enough for a judge."""
    config = config_for(base, **{"sft": {"max_steps": 2}, **sections})
    write_data(run, "demonstrations", demonstrations(48), demonstrations(10, start=60))
    write_data(run, "comparisons", rows(200, by_length=by_length), rows(220, start=500, by_length=by_length))
    run_stage(run, "sft", sft.run, config, "data/demonstrations")
    return config, run_stage(run, "reward", reward.run, config, "data/comparisons", "sft")


def judged(run: Path, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    metrics = run_stage(run, "judge", judge.run, config, "data/comparisons", "sft", "reward")
    manifest = Manifest.read(run / "judge")
    assert manifest is not None
    return metrics, manifest.notes


@pytest.fixture
def few_rows_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "FEWEST_ROWS", 30)
    monkeypatch.setattr(shares, "FEWEST_PROMPTS", 30)


@pytest.mark.parametrize("model", [{}, {"use_peft": True, "lora_r": 4}], ids=["full", "lora"])
def test_the_judge_is_another_model_of_other_rows(tmp_path: Path, few_rows_suffice: None, model: Any) -> None:
    run = tmp_path / "run"
    config, of_reward = trained(run, outside_base(tmp_path / "base"), model=model)
    metrics, notes = judged(run, config)
    assert of_reward["rows_used"] + metrics["rows_used"] == 200
    assert of_reward["rows_withheld"] == metrics["rows_used"] > 30
    assert "no_judge" not in notes
    accuracy = PairAccuracy.of(metrics)
    assert accuracy is not None
    assert accuracy.pairs == 220
    assert accuracy.value > 0.9
    assert 0.9 < metrics["agreement"] <= 1
    assert metrics["agreement_low"] < metrics["agreement"]
    weights = "adapter_model.safetensors" if model else "model.safetensors"
    first, second = (load_file(run / stage / "model" / weights) for stage in ("reward", "judge"))
    assert all(not first[name].equal(second[name]) for name in first if "score" in name)
    assert json.loads((run / "judge" / "golden.json").read_text())["rows"]


def test_the_judge_of_single_answers(tmp_path: Path, few_rows_suffice: None) -> None:
    run = tmp_path / "run"
    config, of_reward = trained(run, outside_base(tmp_path / "base"), reward={"objective": "pointwise"})
    metrics, notes = judged(run, config)
    assert of_reward["rows_used"] + metrics["rows_used"] == 400, "two answers a pair"
    assert "no_judge" not in notes
    assert metrics["heldout_pair_accuracy_after"] > 0.9


def test_a_judge_that_measures_length_may_not_judge(tmp_path: Path, few_rows_suffice: None) -> None:
    run = tmp_path / "run"
    config, _ = trained(run, outside_base(tmp_path / "base"), by_length=True)
    _, notes = judged(run, config)
    assert "choosing by length alone is right on 1.000" in notes["no_judge"]


def test_too_few_rows_cost_the_reward_model_nothing_and_no_model_is_loaded(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config, of_reward = trained(run, outside_base(tmp_path / "base"))
    assert of_reward["rows_used"] == 200
    assert "rows_withheld" not in of_reward
    assert share_of_reward({"data/comparisons": run / "data" / "comparisons"}, config) == ("all", 0)
    metrics, notes = judged(run, config)
    assert metrics == {}
    assert notes["no_judge"].endswith("rows to train it on, and 500 are needed")
    assert not (run / "judge" / "model").exists()


def test_a_reward_model_that_saw_every_row_has_no_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    config, _ = trained(run, outside_base(tmp_path / "base"))
    monkeypatch.setattr(shares, "FEWEST_ROWS", 30)
    monkeypatch.setattr(shares, "FEWEST_PROMPTS", 30)
    metrics, notes = judged(run, config)
    assert metrics == {}
    assert "trained on all rows" in notes["no_judge"]
