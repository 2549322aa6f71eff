"""The roles as the stage casts them from what SFT and reward published, not from the tests' own cast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipelines.config import Config
from pipelines.models.base_ref import BaseRef
from pipelines.models.forward import TokenBatch, hidden_states
from pipelines.models.policies import open_policy, open_tokenizer
from pipelines.models.publish import publish_model
from pipelines.models.sequence_scores import apply_head, pool_last
from pipelines.ppo.load_roles import RoleSources, build_roles
from pipelines.ppo.types import Normalization
from pipelines.reward import stage as reward
from pipelines.sft import stage as sft
from tests.models.helpers import comparisons, config_for, demonstrations, outside_base, run_stage, write_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[{}, {"use_peft": True, "lora_r": 4}], ids=["full", "lora"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A run directory with SFT and reward model."""
    place = tmp_path_factory.mktemp("published")
    run, model = place / "run", request.param
    config = config_for(outside_base(place / "base"), model=model, sft={"max_steps": 4}, reward={"max_steps": 6})
    write_data(run, "demonstrations", demonstrations(32), demonstrations(6, start=60))
    write_data(run, "comparisons", comparisons(32), comparisons(8, start=60))
    run_stage(run, "sft", sft.run, config, "data/demonstrations")
    run_stage(run, "reward", reward.run, config, "data/comparisons", "sft")
    return run, config


def test_roles_are_what_the_stages_published(published: tuple[Path, Config]) -> None:
    run, config = published
    mean, std = 3.0, 2.0
    roles = build_roles(RoleSources(config, run, run / "sft", run / "reward", Normalization(mean, std), CPU))
    roles.freeze_but_trained()

    golden = json.loads((run / "reward" / "golden.json").read_text())["rows"]
    ids = [row["input_ids"] for row in golden]
    batch = TokenBatch.of([row[:-2] for row in ids], [row[-2:] for row in ids], ids[0][-1])
    expected = torch.tensor([row["score"] for row in golden])
    torch.testing.assert_close(roles.scores(batch, 3), expected, rtol=0, atol=1e-4)

    # the value model begins as the reward model in normalized units
    with torch.no_grad(), roles.value.active() as trunk:
        first = apply_head(roles.value.head, pool_last(hidden_states(trunk, batch), batch.attention_mask))
    torch.testing.assert_close(first, (expected - mean) / std, rtol=0, atol=1e-4)

    # policy and reference begin as SFT
    plain = open_policy(run / "sft", config.model, CPU)
    with torch.no_grad():
        told = plain(input_ids=torch.tensor(ids[:1])).logits
        for role in (roles.policy, roles.reference):
            with role.active() as opened:
                torch.testing.assert_close(opened(input_ids=torch.tensor(ids[:1])).logits, told, rtol=0, atol=1e-5)

    # training moves policy and value; reference and reward stay
    before = roles.reference_logprobs(batch, 1.0, 8)
    with torch.no_grad():
        for parameter in [*roles.policy.parameters(), *roles.value.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert torch.equal(roles.reference_logprobs(batch, 1.0, 8), before)
    assert not torch.allclose(roles.policy_logprobs(batch, 1.0, 8), before)
    torch.testing.assert_close(roles.scores(batch, 3), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["zero", "shared"])
def test_the_value_model_starts_as_asked(published: tuple[Path, Config], kind: str) -> None:
    """Zero: the trunk of SFT. Shared: the policy's own, and no third model or adapter."""
    run, config = published
    config = config.model_copy(update={"ppo": config.ppo.model_copy(update={"value_model": kind})})
    roles = build_roles(RoleSources(config, run, run / "sft", run / "reward", Normalization(3.0, 2.0), CPU))
    roles.freeze_but_trained()
    ids = [row["input_ids"] for row in json.loads((run / "reward" / "golden.json").read_text())["rows"]]
    batch = TokenBatch.of([row[:-2] for row in ids], [row[-2:] for row in ids], ids[0][-1])
    assert roles.values(batch, 3).abs().max() == 0.0
    with torch.no_grad():
        with roles.value.active() as trunk:
            own = hidden_states(trunk, batch)
        with roles.reference.active() as trunk:
            assert torch.equal(own, hidden_states(trunk, batch))
        for parameter in roles.policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        with roles.value.active() as trunk:
            assert torch.equal(own, hidden_states(trunk, batch)) == (kind == "zero")
    models = {id(role.model) for role in (roles.policy, roles.value)}
    if config.model.use_peft:
        assert ("value" in roles.value.model.peft_config) == (kind == "zero")
    else:
        assert len(models) == (2 if kind == "zero" else 1)
    assert roles.reward is not None, "the reward model judges all the same"


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_no_value_model_is_loaded_where_none_is_needed(published: tuple[Path, Config], estimator: str) -> None:
    run, config = published
    changes = {"advantage_estimator": estimator, "num_generations": 2}
    config = config.model_copy(update={"ppo": config.ppo.model_copy(update=changes)})
    roles = build_roles(RoleSources(config, run, run / "sft", run / "reward", Normalization(3.0, 2.0), CPU))
    roles.freeze_but_trained()
    assert roles.value is None
    assert roles.reward is not None
    trained = {id(parameter) for parameter in roles.trained.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in roles.policy.parameters()}
    if config.model.use_peft:
        assert sorted(roles.policy.model.peft_config) == ["policy", "reference", "reward"]
    else:
        assert len(roles.models()) == 3, "policy, reference and reward model"


def test_a_later_round_goes_on_from_the_policy_before_and_keeps_the_reference(
    published: tuple[Path, Config], tmp_path: Path
) -> None:
    run, config = published
    first = build_roles(RoleSources(config, run, run / "sft", run / "reward", Normalization(3.0, 2.0), CPU))
    with torch.no_grad():
        for parameter in first.policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    before, base = tmp_path / "ppo", BaseRef.of(config)
    tokenizer = open_tokenizer(run / "sft", config.model)
    adapter = first.policy.adapter or ""
    publish_model(first.policy.model, tokenizer, before / "model", base=base, run_dir=run, adapter=adapter)

    roles = build_roles(
        RoleSources(config, run, run / "sft", run / "reward", Normalization(3.0, 2.0), CPU, before=before)
    )
    batch = TokenBatch.of([[5, 6], [7, 8, 9]], [[10, 11], [12]], 1)
    wanted = first.policy_logprobs(batch, 1.0, 8)
    torch.testing.assert_close(roles.policy_logprobs(batch, 1.0, 8), wanted, rtol=0, atol=1e-5)
    assert torch.equal(roles.reference_logprobs(batch, 1.0, 8), first.reference_logprobs(batch, 1.0, 8))
    assert not torch.allclose(roles.reference_logprobs(batch, 1.0, 8), wanted)
