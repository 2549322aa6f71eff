"""The controls through the `ppo` stage itself: from the configuration to what it publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import GenerationConfig

from pipelines.errors import UsageError
from pipelines.ppo import stage
from pipelines.run.stage import StageContext
from tests.models.helpers import WORDS, config_for, outside_base, run_stage, write_data
from tests.recorders import Recorder
from tests.tiny import tiny_tokenizer

CONTROLS: dict[str, Any] = {
    "kl_coef": 0.2,
    "kl_target": 0.01,
    "kl_horizon": 64,
    "kl_early_stop": 10.0,
    "reward_normalization": "running",
    "reward_clip": 0.5,
    "stop_tokens": list("abcdefghijklmnopqrstuvwxyz"),
    "value_model": "shared",
    "lr_scheduler_type": "cosine",
    "warmup_updates": 1,
    "value_warmup_updates": 1,
    "num_generations": 4,
    "top_k": 50,
    "top_p": 0.99,
    "mask_truncated_completions": True,
    "num_eval_prompts": 2,
    "eval_steps": 2,
}


def length(prompts: list[list[dict[str, str]]], completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


def prepared(place: Path, ppo: dict[str, Any], model: dict[str, Any] | None = None) -> Any:
    settings = {
        "reward": {"kind": "function", "function": f"{__name__}:length"},
        "total_episodes": 48,
        "rollout_batch_size": 16,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "learning_rate": 1e-2,
        "response_length": 12,
    }
    rows = [{"prompt": [{"role": "user", "content": f"say {word}"}]} for word in WORDS]
    write_data(place / "run", "prompts", rows, rows[:4])
    off = {"enabled": False}
    return config_for(outside_base(place / "base"), model=model or {}, sft=off, reward=off, ppo=settings | ppo)


def lines(place: Path, name: str = "metrics") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "run" / "ppo" / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("model", [{}, {"use_peft": True, "lora_r": 4}], ids=["full", "lora"])
def test_all_controls_together(tmp_path: Path, model: dict[str, Any]) -> None:
    config = prepared(tmp_path, CONTROLS, model)
    run_stage(tmp_path / "run", "ppo", stage.run, config, "data/prompts")
    first, second, third = lines(tmp_path)
    assert first["val/finished"] > 0.3 < second["val/finished"], "EOS alone ends 1 in 30"
    assert first["objective/kl"] == second["objective/kl"] == 0.0 < abs(third["objective/kl"])
    assert [line["objective/kl_coef"] for line in (first, second)] == [0.2, 0.2]
    assert third["objective/kl_coef"] == pytest.approx(0.2 * (1 - 0.2 * 16 / 64))
    assert [line["lr"] for line in (first, second, third)] == pytest.approx([5e-3, 1e-2, 5e-3])
    assert all(0 < line["objective/scores_clipped"] < 1 for line in (first, second, third))
    samples = lines(tmp_path, "samples")
    assert sorted({sample["update"] for sample in samples}) == [0, 2, 3]
    names = load_file(next((tmp_path / "run" / "ppo" / "model").glob("*.safetensors")))
    assert not any("value" in name for name in names), "the head is no part of what is published"


def test_the_course_of_the_held_out_objective_is_told(tmp_path: Path) -> None:
    """A reward for length, of responses that never end: the score rises, and the objective is far below it."""
    config = prepared(tmp_path, {"num_eval_prompts": 4, "eval_steps": 1, "missing_eos_penalty": 7.0})
    reporter, out = Recorder(), tmp_path / "run" / "ppo.partial"
    out.mkdir(parents=True)
    stage.run(StageContext(config, out, {"data/prompts": tmp_path / "run/data/prompts"}, reporter))
    rows = [json.loads(line) for line in (out / "heldout.jsonl").read_text().splitlines()]
    course = next(text for text in reporter.said if text.startswith("ppo: held-out"))
    assert f"objective {rows[0]['eval/objective']:.3f} to {rows[-1]['eval/objective']:.3f}" in course
    unfinished = [1 - row["eval/finished"] for row in rows]
    assert max(unfinished) > 0.3
    assert any("the responses of the first update" in text for text in reporter.warned)
    assert all(row["eval/objective"] < 3 - 7 * share for row, share in zip(rows, unfinished, strict=True))


@pytest.mark.parametrize("model", [{}, {"use_peft": True, "lora_r": 4}], ids=["full", "lora"])
@pytest.mark.parametrize("ends", [[], ["t", "e"]])
def test_what_is_published_samples_as_in_training(tmp_path: Path, model: dict[str, Any], ends: list[str]) -> None:
    ppo = {"temperature": 0.7, "top_p": 0.9, "stop_tokens": ends, "total_episodes": 16, "num_eval_prompts": 0}
    run_stage(tmp_path / "run", "ppo", stage.run, prepared(tmp_path, ppo, model), "data/prompts")
    directory = tmp_path / "run" / "ppo" / "model"
    tokenizer, config = tiny_tokenizer(), GenerationConfig.from_pretrained(directory)
    assert (config.do_sample, config.temperature, config.top_p, config.top_k) == (True, 0.7, 0.9, 0)
    eos = tokenizer.eos_token_id
    assert config.eos_token_id == ([eos, *map(tokenizer.convert_tokens_to_ids, ends)] if ends else eos)
    assert config.pad_token_id == tokenizer.pad_token_id


def test_an_unknown_stop_token_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "build_roles", lambda *_: pytest.fail("the models were loaded"))
    config = prepared(tmp_path, {"stop_tokens": ["<|nowhere|>"]})
    with pytest.raises(UsageError, match=r"<\|nowhere\|>"):
        run_stage(tmp_path / "run", "ppo", stage.run, config, "data/prompts")
