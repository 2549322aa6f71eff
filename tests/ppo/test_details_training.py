"""Details of a whole `ppo` stage that no other test would miss; the numbers are those of the table in docs/ppo.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from pipelines.models.forward import TokenBatch
from pipelines.ppo import stage
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.learner import Learner
from pipelines.ppo.load_roles import RoleSources, build_roles
from pipelines.ppo.objective import explained_variance
from pipelines.ppo.types import AS_IT_IS, Rollout
from tests.models.helpers import WORDS, config_for, outside_base, run_stage, write_data

CPU = torch.device("cpu")


def letters(prompts: list[list[dict[str, str]]], completions: list[str]) -> list[float]:
    return [float(text.count("a")) for text in completions]


@dataclass
class Recorded:
    """What passed through a training: seeds of all draws, rollouts, optimizers, lines of metrics.jsonl."""

    seeds: list[int] = field(default_factory=list)
    rollouts: list[Rollout] = field(default_factory=list)
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    lines: list[dict[str, float]] = field(default_factory=list)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Three updates of a policy that moves far, by the stage itself."""
    place, seen = tmp_path_factory.mktemp("details"), Recorded()
    generate, update = TransformersEngine.generate, Learner.update

    def noting_seeds(self: TransformersEngine, prompts: Any, *, seed: int) -> list[list[int]]:
        seen.seeds.append(seed)
        return generate(self, prompts, seed=seed)

    def noting_rollouts(self: Learner, rollout: Rollout, *args: Any, **kwargs: Any) -> Any:
        seen.rollouts.append(rollout)
        seen.optimizers.append(self.optimizer)
        return update(self, rollout, *args, **kwargs)

    off = {"enabled": False}
    settings = {
        "reward": {"kind": "function", "function": f"{__name__}:letters"},
        "total_episodes": 24,
        "rollout_batch_size": 8,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "learning_rate": 1e-2,
        "stop_tokens": ["a", "e", "i", "o"],  # or hardly a response would end
        "adam_eps": 1e-5,  # other than the default
    }
    config = config_for(outside_base(place / "base"), sft=off, reward=off, ppo=settings)
    rows = [{"prompt": [{"role": "user", "content": word}]} for word in WORDS]
    write_data(place / "run", "prompts", rows, rows[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersEngine, "generate", noting_seeds)
        patch.setattr(Learner, "update", noting_rollouts)
        run_stage(place / "run", "ppo", stage.run, config, "data/prompts")
    text = (place / "run" / "ppo" / "metrics.jsonl").read_text(encoding="utf-8")
    seen.lines += [json.loads(line) for line in text.splitlines()]
    return seen


def test_09_the_share_that_ended_is_logged(recorded: Recorded) -> None:
    for line, rollout in zip(recorded.lines, recorded.rollouts, strict=True):
        assert line["val/finished"] == pytest.approx(float(rollout.finished.float().mean()))
        assert line["val/response_length"] == pytest.approx(float(rollout.response_mask.sum()) / len(rollout))
    shares = [line["val/finished"] for line in recorded.lines]
    assert max(shares) > 0
    assert min(shares) < 1


def test_13_the_logged_kl_is_the_one_in_the_reward_and_k3_stands_beside_it(recorded: Recorded) -> None:
    for line, rollout in zip(recorded.lines, recorded.rollouts, strict=True):
        log_ratio = torch.where(rollout.response_mask, rollout.logprobs - rollout.ref_logprobs, 0.0)
        assert line["objective/kl"] == pytest.approx(float(log_ratio.sum(-1).mean()), rel=1e-5, abs=1e-6)
        k3 = (-log_ratio).exp() - 1 + log_ratio
        assert line["objective/kl_k3"] == pytest.approx(float(k3.sum(-1).mean()), rel=1e-4, abs=1e-6)
        assert line["objective/kl_k3"] >= 0
    assert recorded.lines[0]["objective/kl"] == 0
    assert abs(recorded.lines[-1]["objective/kl"]) > 0.1
    assert recorded.lines[-1]["objective/kl"] != pytest.approx(recorded.lines[-1]["objective/kl_k3"], rel=1e-3)


def test_31_the_explained_variance_is_logged(recorded: Recorded) -> None:
    for line, rollout in zip(recorded.lines, recorded.rollouts, strict=True):
        expected = explained_variance(rollout.values, rollout.returns, rollout.response_mask)
        assert line["val/explained_variance"] == pytest.approx(float(expected), abs=1e-5)


def test_37_adam_has_the_epsilon_of_ppo_and_no_weight_decay(recorded: Recorded) -> None:
    for optimizer in recorded.optimizers:
        assert {group["eps"] for group in optimizer.param_groups} == {1e-5}
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}


def test_42_every_rollout_is_drawn_from_a_seed_of_its_own(recorded: Recorded) -> None:
    assert len(recorded.rollouts) == 3
    assert len(set(recorded.seeds)) >= 3  # the held-out prompts share one among themselves
    answers = {tuple(rollout.responses.flatten().tolist()) for rollout in recorded.rollouts}
    assert len(answers) == 3


@pytest.mark.parametrize("model", [{}, {"use_peft": True, "lora_r": 4, "lora_dropout": 0.5}], ids=["full", "lora"])
def test_18_no_role_has_dropout_not_even_where_the_model_and_the_adapter_ask_for_it(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    base = outside_base(tmp_path / "base")
    asking = LlamaForCausalLM.from_pretrained(base)
    asking.config.attention_dropout = 0.5
    asking.save_pretrained(base)
    config = config_for(base, model=model)
    roles = build_roles(RoleSources(config, tmp_path, None, None, AS_IT_IS, CPU))
    roles.freeze_but_trained()
    for each in roles.models():
        each.train()
    with torch.no_grad():
        for parameter in [*roles.policy.parameters(), *roles.value.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = TokenBatch.of([[3, 20, 21, 4]], [[30, 31, 32, 33, 34, 1]], 1)
    for forward in (roles.policy_logprobs, roles.reference_logprobs):
        assert torch.equal(forward(batch, 1.0, 1), forward(batch, 1.0, 1))
    assert torch.equal(roles.values(batch, 1), roles.values(batch, 1))
