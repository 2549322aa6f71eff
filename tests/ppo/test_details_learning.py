"""Details of an update that no other test would miss; the numbers are those of the table in docs/ppo.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from pipelines.ppo.checkpoint import RandomNumbers, load_state, save_state
from pipelines.ppo.learner import Learner
from pipelines.ppo.roles import Roles
from pipelines.ppo.types import Rollout, Update
from tests.ppo.cast import Kind, cast, learner
from tests.ppo.test_update import SETTINGS, TOKENIZER, make, rollout_of
from tests.tiny import tiny_llama

ONE_PASS = SETTINGS.model_copy(update={"num_ppo_epochs": 1, "num_mini_batches": 1})


def moved() -> tuple[Roles, Rollout]:
    """Roles whose value model knows something, and a rollout of theirs."""
    roles = make("llama", "full")
    torch.nn.init.normal_(roles.value.head.weight)
    return roles, rollout_of(roles)


def still(roles: Roles, rollout: Rollout, **changes: object) -> tuple[Update, list[Tensor], list[Tensor]]:
    """An update whose optimizer stands still: its figures, and the last gradients of policy and value."""
    trainer = learner(roles, ONE_PASS.model_copy(update=changes))
    trainer.optimizer.step = lambda: None  # type: ignore[method-assign]
    update = trainer.update(rollout, torch.Generator().manual_seed(0))
    policy, value = (
        [p.grad.clone() for p in parameters if p.grad is not None]
        for parameters in (trainer.policy_parameters, trainer.value_parameters)
    )
    return update, policy, value


def test_27_the_value_learns_returns_that_no_whitening_touched() -> None:
    roles, rollout = moved()
    white, white_policy, white_value = still(roles, rollout, whiten_advantages=True)
    plain, plain_policy, plain_value = still(roles, rollout, whiten_advantages=False)
    assert any(not torch.allclose(one, two) for one, two in zip(white_policy, plain_policy, strict=True))
    assert all(torch.equal(one, two) for one, two in zip(white_value, plain_value, strict=True))
    assert white.value_loss == plain.value_loss > 0


def test_29_equal_rewards_and_single_tokens_give_finite_and_no_gradients() -> None:
    roles = make("llama", "full")
    rollout = rollout_of(roles)
    equal = replace(rollout, advantages=torch.where(rollout.response_mask, 0.37, 0.0))
    update, policy, _ = still(roles, equal)
    assert update.policy_grad_norm < 1e-2
    assert all(torch.isfinite(gradient).all() for gradient in policy)
    single = rollout.rows([0, 0, 0, 0])
    assert single.response_mask.sum() == 4
    update, policy, value = still(roles, single)
    assert update.optimizer_steps == 1
    assert all(torch.isfinite(gradient).all() for gradient in [*policy, *value])


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_40_a_small_step_is_not_lost_though_the_weights_came_in_bf16(kind: Kind) -> None:
    roles = cast(tiny_llama(TOKENIZER), kind)
    for model in roles.models():
        model.to(torch.bfloat16)
    roles.freeze_but_trained()
    trained = roles.policy.parameters()
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    before = [parameter.detach().clone() for parameter in trained]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    learner(roles, SETTINGS.model_copy(update={"learning_rate": 1e-6})).optimizer.step()
    share = [float((one != two).float().mean()) for one, two in zip(before, trained, strict=True)]
    assert min(share) > 0.9


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_43_what_goes_on_from_a_checkpoint_is_what_never_stopped(tmp_path: Path, kind: Kind) -> None:
    rollout = rollout_of(make("llama", kind, sft=kind == "lora"))
    accelerator = Accelerator(cpu=True)

    def begin() -> tuple[Roles, Learner, torch.Generator]:
        roles = make("llama", kind, sft=kind == "lora")
        return roles, learner(roles, SETTINGS), torch.Generator().manual_seed(0)

    roles, trainer, shuffle = begin()
    trainer.update(rollout, shuffle)
    parts = {"optimizer": trainer.optimizer}
    save_state(tmp_path, roles.trained, parts, RandomNumbers(shuffle), accelerator)
    trainer.update(rollout, shuffle)
    other, again, draw = begin()
    load_state(tmp_path, other.trained, {"optimizer": again.optimizer}, RandomNumbers(draw), accelerator)
    again.update(rollout, draw)
    assert not torch.equal(roles.policy_logprobs(rollout, 0.7, 8), rollout.logprobs)
    for one, two in zip(roles.trained.parameters(), other.trained.parameters(), strict=True):
        assert torch.equal(one, two)
