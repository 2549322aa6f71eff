"""The maths of PPO against numbers worked by hand, and the properties that must hold whatever the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.models.log_probabilities import token_entropy, token_logprobs
from pipelines.ppo import objective as obj

NAN = float("nan")
MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_token_logprobs_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)]]])
    tokens = torch.tensor([[1]])
    assert token_logprobs(logits, tokens, 1.0).item() == pytest.approx(math.log(0.75), abs=1e-6)
    root3 = math.sqrt(3.0)  # temperature 2 takes the square root of the odds
    assert token_logprobs(logits, tokens, 2.0).item() == pytest.approx(math.log(root3 / (1 + root3)), abs=1e-6)


def test_token_logprobs_are_fp32_from_bf16_logits() -> None:
    logits = (torch.randn(2, 3, 50) * 5).bfloat16()
    tokens = torch.randint(0, 50, (2, 3))
    exact = torch.log_softmax(logits.double(), -1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    assert (token_logprobs(logits, tokens, 1.0).double() - exact).abs().max() < 1e-5


def test_entropy_of_a_uniform_distribution() -> None:
    assert token_entropy(torch.zeros(1, 1, 8), 0.7).item() == pytest.approx(math.log(8), abs=1e-6)


def test_kl_estimators_are_unbiased_and_k3_is_never_negative() -> None:
    torch.manual_seed(0)
    p, q = torch.log_softmax(torch.randn(50), 0), torch.log_softmax(torch.randn(50), 0)
    exact = (p.exp() * (p - q)).sum()
    assert (p.exp() * obj.k1(p, q)).sum().item() == pytest.approx(exact.item(), abs=1e-6)
    assert (p.exp() * obj.k3(p, q)).sum().item() == pytest.approx(exact.item(), abs=1e-5)
    assert (obj.k3(p, q) >= 0).all()


def test_rewards_put_the_score_on_the_last_token_of_each_row() -> None:
    kl = torch.tensor([[0.5, -0.5, 1.0], [2.0, NAN, NAN]])
    rewards = obj.token_rewards(torch.tensor([10.0, 20.0]), kl, MASK, kl_coef=0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.05, 9.9], [19.8, 0.0, 0.0]]))


def test_gae_by_hand() -> None:
    # gamma .5, lambda .5: delta_2 = 4 - 3 = 1; delta_1 = 0 + .5*3 - 2 = -.5; delta_0 = 1 + .5*2 - 1 = 1
    # A_2 = 1; A_1 = -.5 + .25*1 = -.25; A_0 = 1 + .25*(-.25) = .9375
    rewards = torch.tensor([[1.0, 0.0, 4.0], [7.0, NAN, NAN]])
    values = torch.tensor([[1.0, 2.0, 3.0], [5.0, NAN, NAN]])
    advantages, returns = obj.advantages_and_returns(rewards, values, MASK, gamma=0.5, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.9375, -0.25, 1.0], [2.0, 0.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[1.9375, 1.75, 4.0], [7.0, 0.0, 0.0]]))


def test_returns_at_lambda_one_are_rewards_to_go() -> None:
    torch.manual_seed(1)
    rewards, values = torch.randn(4, 6), torch.randn(4, 6)
    mask = torch.arange(6) < torch.tensor([[6], [1], [3], [5]])
    _, returns = obj.advantages_and_returns(rewards, values, mask, gamma=1.0, lam=1.0)
    to_go = torch.where(mask, rewards, 0.0).flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(returns, torch.where(mask, to_go, 0.0))


def test_advantages_of_a_row_do_not_depend_on_its_neighbors() -> None:
    rewards, values = torch.tensor([[0.1, 0.2]]), torch.tensor([[0.3, 0.4]])
    alone, _ = obj.advantages_and_returns(rewards, values, torch.ones(1, 2, dtype=torch.bool), 1.0, 0.95)
    wide = torch.full((2, 5), 9.0)
    wide[0, :2] = rewards
    wide_values = torch.full((2, 5), 1e6)
    wide_values[0, :2] = values
    mask = torch.tensor([[True, True, False, False, False], [True] * 5])
    beside, _ = obj.advantages_and_returns(wide, wide_values, mask, 1.0, 0.95)
    torch.testing.assert_close(beside[0, :2], alone[0], rtol=0, atol=0)


# two prompts with three responses each; the rewards of whole responses are 1, 2, 6 and 5, 5, -4
GROUPS_MASK = torch.tensor([[True, True], [True, False], [True, True], [True, False], [True, True], [True, True]])
GROUPS = torch.tensor([[0.5, 0.5], [2.0, NAN], [7.0, -1.0], [5.0, NAN], [2.0, 3.0], [-1.0, -3.0]])


def test_rloo_by_hand() -> None:
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2; 5 - (5 - 4) / 2 twice, -4 - (5 + 5) / 2
    advantages = obj.rloo_advantages(GROUPS, GROUPS_MASK, 3)
    expected = [[-3.0, -3.0], [-1.5, 0.0], [4.5, 4.5], [4.5, 0.0], [4.5, 4.5], [-9.0, -9.0]]
    torch.testing.assert_close(advantages, torch.tensor(expected))


def test_grpo_by_hand() -> None:
    # means 3 and 2; sample deviations sqrt((4 + 1 + 9) / 2) = sqrt 7 and sqrt((9 + 9 + 36) / 2) = sqrt 27
    advantages = obj.grpo_advantages(GROUPS, GROUPS_MASK, 3)
    first, second = math.sqrt(7) + 1e-4, math.sqrt(27) + 1e-4
    expected = [[-2.0, -2.0], [-1.0, 0.0], [3.0, 3.0]], [[3.0, 0.0], [3.0, 3.0], [-6.0, -6.0]]
    torch.testing.assert_close(
        advantages, torch.cat([torch.tensor(expected[0]) / first, torch.tensor(expected[1]) / second])
    )


@pytest.mark.parametrize("estimate", [obj.rloo_advantages, obj.grpo_advantages])
def test_responses_of_equal_reward_have_no_advantage(estimate: Callable[..., torch.Tensor]) -> None:
    """Exactly none, though the mean of two of them is not .7 to the last bit."""
    equal = estimate(torch.full((6, 1), 0.7), torch.ones(6, 1).bool(), 3)
    assert equal.tolist() == [[0.0]] * 6


@pytest.mark.parametrize("estimate", [obj.rloo_advantages, obj.grpo_advantages])
def test_a_prompts_responses_are_compared_with_each_other_only(estimate: Callable[..., torch.Tensor]) -> None:
    """What every response to a prompt gets on top changes nothing, and other prompts do not either."""
    easier = GROUPS.clone()
    easier[3:, 0] += 100.0
    before, after = estimate(GROUPS, GROUPS_MASK, 3), estimate(easier, GROUPS_MASK, 3)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=0)


def test_grpo_does_not_depend_on_the_scale_of_the_rewards_and_rloo_does() -> None:
    same, scaled = (obj.grpo_advantages(factor * GROUPS, GROUPS_MASK, 3) for factor in (1.0, 10.0))
    torch.testing.assert_close(same, scaled, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        obj.rloo_advantages(10.0 * GROUPS, GROUPS_MASK, 3), 10.0 * obj.rloo_advantages(GROUPS, GROUPS_MASK, 3)
    )


def test_the_gradient_of_rloo_is_that_of_the_expected_reward() -> None:
    """Exact: over all pairs of responses that a policy over five can give."""
    torch.manual_seed(0)
    logits, reward = torch.randn(5, dtype=torch.double, requires_grad=True), torch.randn(5, dtype=torch.double)
    logp = torch.log_softmax(logits, 0)
    (exact,) = torch.autograd.grad((logp.exp() * reward).sum(), logits, retain_graph=True)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5))  # [25, 2], one group a row
    rows = pairs.reshape(-1, 1)
    advantages = obj.rloo_advantages(reward[rows], torch.ones_like(rows, dtype=torch.bool), 2)
    chance = logp.exp().detach()[pairs].prod(-1).repeat_interleave(2)
    surrogate = (chance * advantages.squeeze(-1) * logp[rows.squeeze(-1)]).sum() / 2
    (gradient,) = torch.autograd.grad(surrogate, logits)
    torch.testing.assert_close(gradient, exact)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-100, 100), st.floats(0.01, 100))
def test_whitening_gives_mean_zero_and_variance_one(seed: int, shift: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(7) < torch.randint(2, 8, (5, 1), generator=generator)
    values = torch.where(mask, torch.randn(5, 7, generator=generator) * scale + shift, NAN)
    white = obj.whiten(values.double(), mask)
    assert white[mask].mean().abs() < 1e-6
    assert white[mask].var(unbiased=False).item() == pytest.approx(1.0, abs=1e-3)
    assert (white[~mask] == 0).all()


def test_whitening_of_equal_values_is_finite_and_zero() -> None:
    assert obj.whiten(torch.full((2, 3), 5.0), MASK).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [(1.0, 2.0, -2.0, 0), (1.5, 2.0, -2.4, 1), (0.5, 2.0, -1.0, 0), (1.5, -2.0, 3.0, 0), (0.5, -2.0, 1.6, 1)],
)
def test_policy_loss_by_hand_on_both_sides(ratio: float, advantage: float, loss: float, clipped: int) -> None:
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    result = obj.policy_loss(new, torch.zeros(1, 1), torch.tensor([[advantage]]), torch.ones(1, 1).bool(), 0.2)
    assert result.total.item() == pytest.approx(loss, abs=1e-6)
    assert int(result.clipped) == clipped
    result.total.backward()
    assert new.grad is not None
    expected = 0.0 if clipped else -advantage * ratio
    assert new.grad.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    # clipped to [.8, 1.4]: 1.3 is within it, 1.5 counts as 1.4; the lower bound is where it was
    [(1.3, 2.0, -2.6, 0), (1.5, 2.0, -2.8, 1), (1.5, -2.0, 3.0, 0), (0.7, -2.0, 1.6, 1), (0.9, -2.0, 1.8, 0)],
)
def test_the_upper_clip_is_a_bound_of_its_own(ratio: float, advantage: float, loss: float, clipped: int) -> None:
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    mask = torch.ones(1, 1).bool()
    result = obj.policy_loss(new, torch.zeros(1, 1), torch.tensor([[advantage]]), mask, 0.2, 0.4)
    assert result.total.item() == pytest.approx(loss, abs=1e-6)
    assert int(result.clipped) == clipped
    result.total.backward()
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(0.0 if clipped else -advantage * ratio, abs=1e-6)


def test_a_higher_advantage_raises_the_probability() -> None:
    new = torch.zeros(1, 2, requires_grad=True)
    obj.policy_loss(new, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), torch.ones(1, 2).bool(), 0.2).total.backward()
    assert new.grad is not None
    assert new.grad[0, 0] < 0 < new.grad[0, 1]


def test_policy_loss_survives_a_huge_log_ratio() -> None:
    new = torch.tensor([[500.0]], requires_grad=True)
    loss = obj.policy_loss(new, torch.zeros(1, 1), torch.tensor([[-1.0]]), torch.ones(1, 1).bool(), 0.2)
    assert torch.isfinite(loss.total)


def test_value_loss_by_hand() -> None:
    one = torch.ones(1, 1).bool()
    new, old, returns = torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([[2.0]])
    assert obj.value_loss(new, old, returns, one, None).total.item() == pytest.approx(0.5)
    assert obj.value_loss(new, old, returns, one, 0.2).total.item() == pytest.approx(0.5)  # clipped 1.2: .32 < .5
    far = torch.tensor([[5.0]])  # unclipped (3-5)^2 = 4 < clipped (1.2-5)^2 = 14.44
    clipped = obj.value_loss(new, old, far, one, 0.2)
    assert clipped.total.item() == pytest.approx(7.22, abs=1e-5)
    assert int(clipped.clipped) == 1


def test_nan_in_the_pads_changes_nothing_not_even_gradients() -> None:
    torch.manual_seed(0)
    clean = {name: torch.randn(2, 3) for name in ("new", "old", "advantages", "values", "old_values", "returns")}
    results = []
    for filler in (0.0, NAN):
        filled = {name: torch.where(MASK, tensor, filler) for name, tensor in clean.items()}
        new, values = filled["new"].requires_grad_(), filled["values"].requires_grad_()
        policy = obj.policy_loss(new, filled["old"], filled["advantages"], MASK, 0.2)
        value = obj.value_loss(values, filled["old_values"], filled["returns"], MASK, 0.2)
        (policy.total + value.total).backward()
        results.append(
            (
                *(policy.total, policy.approx_kl, policy.ratio, value.total, new.grad, values.grad),
                *(obj.masked_mean(filled["old"], MASK), obj.explained_variance(values, filled["returns"], MASK)),
            )
        )
    for without, with_nan in zip(*results, strict=True):
        torch.testing.assert_close(without, with_nan, rtol=0, atol=0)


def test_scores_are_normalized_clipped_and_lowered_where_no_eos_came() -> None:
    scores, clipped = obj.normalized_scores(
        torch.tensor([3.0, 3.0, 100.0]),
        torch.tensor([True, False, True]),
        mean=1.0,
        std=2.0,
        clip=10.0,
        missing_eos_penalty=1.0,
    )
    torch.testing.assert_close(scores, torch.tensor([1.0, 0.0, 10.0]))
    assert clipped.tolist() == [False, False, True]


def test_length_penalties_by_hand() -> None:
    """Linear from token 4 to token 8, 0 before and no more than 2 beyond."""
    penalties = obj.length_penalties(torch.tensor([1, 4, 5, 6, 8, 20]), start=4, limit=8, penalty=2.0)
    assert penalties.tolist() == [0.0, 0.0, 0.5, 1.0, 2.0, 2.0]


def test_only_k1_in_the_reward_gives_the_gradient_of_the_kl() -> None:
    """Policy gradient with each estimator as reward, exact over an enumerated distribution (ppo reference, row 12)."""
    torch.manual_seed(0)
    ref = torch.log_softmax(torch.randn(50), 0)
    logits = (ref + 0.1 * torch.randn(50)).requires_grad_()
    logp = torch.log_softmax(logits, 0)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), logits, retain_graph=True)

    def cosine(estimate: torch.Tensor) -> float:
        surrogate = (logp.exp().detach() * estimate.detach() * logp).sum()
        (gradient,) = torch.autograd.grad(surrogate, logits, retain_graph=True)
        return torch.cosine_similarity(gradient, exact, dim=0).item()

    assert cosine(obj.k1(logp, ref)) > 0.999
    assert cosine(obj.k3(logp, ref)) < 0.5
