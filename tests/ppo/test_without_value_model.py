"""A PPO stage with `advantage_estimator: rloo` or `grpo`: nothing of a value model is loaded, saved or logged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.ppo_section import PpoSection
from pipelines.run.manifest import Manifest
from tests.ppo.test_controls import EOS, TOKENIZER, Bench
from tests.ppo.test_ppo_resume import ESTIMATED, LORA, settings
from tests.trainers.test_trainer_resume import Interrupter, Killed, go, kill

A = TOKENIZER.convert_tokens_to_ids("a")
VALUE_METRICS = {
    "loss/value_avg",
    "val/clipfrac_avg",
    "val/explained_variance",
    "val/grad_norm",
    "val/value_mean",
    "value_lr",
}


def metrics(stage: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("estimator", "model"), [("rloo", {}), ("grpo", LORA)], ids=["rloo-full", "grpo-lora"])
def test_a_checkpoint_and_the_metrics_know_no_value_model(
    tmp_path: Path, estimator: str, model: dict[str, Any]
) -> None:
    config = settings(tmp_path, model, **ESTIMATED[estimator], save_steps=2)
    with pytest.raises(Killed):
        go(tmp_path / "run", config, "ppo", Interrupter(3, kill))
    checkpoint = tmp_path / "run/ppo.partial/checkpoints/checkpoint-2"
    weights = load_file(checkpoint / "trained.safetensors")
    assert weights
    assert [name for name in weights if "value" in name] == []
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    (group,) = state["parts"]["optimizer"]["param_groups"]
    assert len(group["params"]) == len(weights)
    go(tmp_path / "run", config, "ppo")
    assert len(metrics(tmp_path / "run/ppo")) == 6
    for line in metrics(tmp_path / "run/ppo"):
        assert line.keys().isdisjoint(VALUE_METRICS)
        assert line["objective/no_advantage"] < 1
        assert line["policy/grad_norm"] > 0
    assert abs(metrics(tmp_path / "run/ppo")[-1]["objective/kl"]) > 0.01, "the policy has learned something"
    manifest = Manifest.read(tmp_path / "run/ppo")
    assert manifest is not None
    assert manifest.metrics.keys().isdisjoint(VALUE_METRICS)
    assert manifest.section["ppo"]["advantage_estimator"] == estimator


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_the_kl_is_part_of_the_reward_of_a_response(estimator: str) -> None:
    """Equal scores: of two responses, the one nearer to the reference has the higher advantage."""
    still = {"scale": 0.0, "missing_eos_penalty": 0.0, "learning_rate": 1e-2}
    still |= {"advantage_estimator": estimator, "num_generations": 4}
    first, second, _ = Bench().run(**still, kl_coef=0.1).rollouts
    assert not first.advantages.any(), "KL 0 and equal scores"
    kl = torch.where(second.response_mask, second.logprobs - second.ref_logprobs, 0.0).sum(-1)
    for rows in range(0, len(second), 4):
        nearest_first = kl[rows : rows + 4].argsort()
        assert nearest_first.equal(second.advantages[rows : rows + 4, 0].argsort(descending=True))
    bench = Bench().run(**still, kl_coef=0.0)
    assert not any(rollout.advantages.any() for rollout in bench.rollouts)
    assert bench.of("objective/no_advantage") == [1.0] * 3
    assert any("100% of the responses of the first update teach nothing" in text for text in bench.reporter.warned)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_responses_that_teach_nothing_are_counted(estimator: str) -> None:
    """The first prompt's responses are equal, of the second's one differs."""

    class Fixed:
        def generate(self, ids: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
            return [[20, EOS]] * (len(ids) - 1) + [[A, EOS]]

    bench = Bench().run(engine=Fixed(), total_episodes=8, advantage_estimator=estimator, num_generations=4)
    assert bench.of("objective/no_advantage") == [0.5]
    assert not any("teach nothing" in text for text in bench.reporter.warned)


def test_settings_that_nothing_reads_are_named(tmp_path: Path) -> None:
    reporter = Interrupter()
    config = settings(tmp_path, LORA, **ESTIMATED["rloo"], value_model="shared", vf_coef=0.5, num_eval_prompts=0)
    go(tmp_path / "run", config, "ppo", reporter)
    assert "ppo: rloo has no value model; without effect: ppo.vf_coef, ppo.value_model" in reporter.said
    assert PpoSection(value_model="shared").idle_settings == []


def test_gae_logs_what_the_others_leave_out(tmp_path: Path) -> None:
    go(tmp_path / "run", settings(tmp_path, LORA), "ppo")
    assert all(line.keys() >= VALUE_METRICS for line in metrics(tmp_path / "run/ppo"))


def test_a_value_model_that_diverges_is_not_looked_for(tmp_path: Path) -> None:
    """A rate that breaks a value model at once does nothing where there is none."""
    config = settings(tmp_path, {}, **ESTIMATED["rloo"], value_learning_rate=1e25, num_eval_prompts=0)
    go(tmp_path / "run", config, "ppo")
    assert len(metrics(tmp_path / "run/ppo")) == 6
