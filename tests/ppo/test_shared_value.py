"""The value model as a head on the policy: one forward, the head alone is its own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipelines.models.forward import hidden_states, response_logprobs
from pipelines.ppo.roles import Roles
from tests.ppo.cast import Kind, cast, learner, random_adapter
from tests.ppo.test_update import SETTINGS, TOKENIZER, gradients, rollout_of, scorer_role
from tests.tiny import FAMILIES, tiny_causal, tiny_llama

both = pytest.mark.parametrize("kind", ["full", "lora"])


def make(kind: Kind, *, shared: bool = True) -> Roles:
    base = tiny_llama(TOKENIZER)
    roles = cast(base, kind, sft=random_adapter(base) if kind == "lora" else None, shared=shared)
    torch.manual_seed(1)
    nn.init.normal_(roles.value.head.weight, std=0.5)  # as after some training: at zero no gradient passes it
    return scorer_role(roles)


def forwards(roles: Roles, kind: Kind) -> list[int]:
    """Counts the forwards of the trunks that train."""
    count = [0]
    for model in {id(role.model): role.model for role in (roles.policy, roles.value)}.values():
        trunk = (model.get_base_model() if kind == "lora" else model).base_model
        trunk.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    return count


@both
def test_the_learner_makes_one_forward_for_both(kind: Kind) -> None:
    for shared, wanted in ((True, 1), (False, 2)):
        roles = make(kind, shared=shared)
        rollout = rollout_of(roles)
        count = forwards(roles, kind)
        with torch.no_grad():
            logprobs, _, values = roles.trained(rollout, SETTINGS.temperature)
            values = roles.trained.own_values(rollout) if values is None else values
        assert count == [wanted]
        mask = rollout.response_mask
        torch.testing.assert_close(logprobs[mask], rollout.logprobs[mask], rtol=0, atol=1e-5)
        torch.testing.assert_close(values[mask], rollout.values[mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_is_overheard_is_what_the_trunk_gives(family: str) -> None:
    rollout = rollout_of(make("full"))
    model = tiny_causal(family, TOKENIZER)
    with torch.no_grad():
        assert torch.equal(response_logprobs(model, rollout, 1.0).hidden, hidden_states(model, rollout))


@both
def test_the_head_alone_is_the_values_and_the_trunk_feels_its_loss(kind: Kind) -> None:
    roles = make(kind)
    assert [p.shape for p in roles.value.parameters()] == [(1, 32), (1,)]
    assert len(roles.models()) == (2 if kind == "full" else 1)
    rollout = rollout_of(roles)
    half = len(roles.policy.parameters())
    weak, strong = (
        gradients(roles, rollout, SETTINGS.model_copy(update={"vf_coef": coef, "max_grad_norm": 1e9}))
        for coef in (1e-6, 10.0)
    )
    moved = [not torch.allclose(a, b, rtol=1e-3) for a, b in zip(weak[:half], strong[:half], strict=True)]
    assert sum(moved) > 0.8 * half
    for one, two in zip(weak[half:], strong[half:], strict=True):
        torch.testing.assert_close(one * 1e7, two, rtol=1e-3, atol=1e-4)


@both
def test_every_parameter_that_trains_gets_a_gradient(kind: Kind) -> None:
    """Else the processes would sum zeros for it, which Adam counts as a gradient."""
    for train_policy in (True, False):
        for shared in (True, False):
            roles = make(kind, shared=shared)
            trainer = learner(roles, SETTINGS)
            reached = []
            for name, parameter in roles.trained.named_parameters():
                if parameter.requires_grad:
                    parameter.register_hook(lambda _, name=name, reached=reached: reached.append(name))
            trainer._gradients(rollout_of(roles), torch.arange(8), train_policy=train_policy)
            expected = {name for name, parameter in roles.trained.named_parameters() if parameter.requires_grad}
            assert set(reached) == expected


@both
def test_checkpointing_changes_no_gradient(kind: Kind) -> None:
    plain, saving = make(kind), make(kind)
    saving.enable_gradient_checkpointing()
    rollout = rollout_of(plain)
    for one, two in zip(gradients(plain, rollout, SETTINGS), gradients(saving, rollout, SETTINGS), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shared", [True, False])
@both
def test_warming_up_the_value_moves_nothing_of_the_policy(kind: Kind, shared: bool) -> None:
    roles = make(kind, shared=shared)
    rollout = rollout_of(roles)
    trainer = learner(roles, SETTINGS)
    draw = torch.Generator().manual_seed(0)
    trainer.update(rollout, draw)  # Adam has a memory now, by which it would go on
    policy = [p.detach().clone() for p in roles.policy.parameters()]
    value = [p.detach().clone() for p in roles.value.parameters()]
    memory = copy.deepcopy([trainer.optimizer.state[p] for p in roles.policy.parameters()])
    result = trainer.update(rollout, draw, train_policy=False)
    assert result.optimizer_steps == 4
    assert result.policy_grad_norm == 0.0 < result.value_grad_norm
    assert all(torch.equal(a, b) for a, b in zip(policy, roles.policy.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(value, roles.value.parameters(), strict=True))
    for before, parameter in zip(memory, roles.policy.parameters(), strict=True):
        after = trainer.optimizer.state[parameter]
        assert all(torch.equal(before[name], after[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
