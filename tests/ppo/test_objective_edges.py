"""The maths of PPO at its edges and over several processes; fast enough to judge mutants (`make mutants`)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from pipelines.models.log_probabilities import token_entropy
from pipelines.ppo import objective as obj

NAN = float("nan")
MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
VALUES = torch.tensor([[1.0, 2.0, 6.0], [-4.0, NAN, NAN], [0.5, 0.0, NAN]])
OTHERS = torch.tensor([[0.5, 2.5, 5.0], [-4.0, NAN, NAN], [1.5, 0.5, NAN]])


def in_two_processes(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """What `function(*rows, reduce)` gives to a process with the first row, and to one with the others."""
    parts: list[Tensor] = [torch.zeros(()), torch.zeros(())]
    barrier = threading.Barrier(2, timeout=10)

    def one(rank: int) -> Tensor:
        def reduce(total: Tensor) -> Tensor:
            parts[rank] = total
            barrier.wait()
            result = parts[0] + parts[1]
            barrier.wait()
            return result

        try:
            return function(*(tensor[:1] if rank == 0 else tensor[1:] for tensor in tensors), reduce)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(2)))


@pytest.mark.parametrize("function", [obj.masked_mean, obj.masked_var])
def test_mean_and_variance_are_those_of_all_processes(function: Callable[..., Tensor]) -> None:
    for result in in_two_processes(function, VALUES, MASK):
        torch.testing.assert_close(result, function(VALUES, MASK))


def test_whitening_is_that_of_all_processes() -> None:
    parts = in_two_processes(obj.whiten, VALUES, MASK)
    torch.testing.assert_close(torch.cat(parts), obj.whiten(VALUES, MASK))


def test_explained_variance_is_that_of_all_processes() -> None:
    for result in in_two_processes(obj.explained_variance, OTHERS, VALUES, MASK):
        torch.testing.assert_close(result, obj.explained_variance(OTHERS, VALUES, MASK))


def test_mean_and_variance_by_hand() -> None:
    one = torch.tensor([[True, False, False]])
    assert obj.masked_mean(VALUES[:1] + 1, one).item() == 2.0
    assert obj.masked_var(VALUES[:1] + 1, one).item() == 0.0
    assert obj.masked_mean(VALUES, torch.zeros_like(MASK)).item() == 0.0
    assert obj.masked_mean(VALUES[:1], MASK[:1]).item() == 3.0
    assert obj.masked_var(VALUES[:1], MASK[:1]).item() == pytest.approx(14 / 3)


def test_the_mean_of_halves_is_a_float() -> None:
    assert obj.masked_mean(torch.tensor([[1.0, 2.0]], dtype=torch.float64), MASK[:1, :2]).dtype == torch.float64


def test_whitening_by_hand_down_to_small_values() -> None:
    small = torch.tensor([[0.001, 0.003]])
    torch.testing.assert_close(
        obj.whiten(small, MASK[:1, :2]), torch.tensor([[-1.0, 1.0]]) / math.sqrt(1.01), rtol=1e-3, atol=0
    )


def test_explained_variance_by_hand() -> None:
    mask, returns = MASK[:1], torch.tensor([[0.1, 0.2, 0.3]])  # variance .02 / 3
    half = returns / 2  # errors of half the size: a quarter of the variance
    assert obj.explained_variance(half, returns, mask).item() == pytest.approx(0.75, abs=1e-5)
    assert obj.explained_variance(-returns, returns, mask).item() == pytest.approx(-3.0, abs=1e-4)
    assert obj.explained_variance(half, torch.ones(1, 3), mask).item() == 0.0
    tiny = returns * 5e-4  # variance 1.7e-9: as good as constant
    assert obj.explained_variance(half * 5e-4, tiny, mask).item() == 0.0


def test_the_log_ratio_is_bounded_on_both_sides() -> None:
    one = torch.ones(1, 1).bool()
    for move in (-30.0, 30.0):
        loss = obj.policy_loss(torch.tensor([[move]]), torch.zeros(1, 1), torch.ones(1, 1), one, 0.2)
        expected = math.copysign(20.0, move)
        assert loss.ratio.item() == pytest.approx(math.exp(expected), rel=1e-6)
        assert loss.approx_kl.item() == pytest.approx(math.expm1(expected) - expected, rel=1e-6)


def test_at_the_clip_itself_nothing_is_clipped() -> None:
    one = torch.ones(1, 1).bool()
    for ratio in (0.75, 1.25):
        new = torch.tensor([[ratio]]).log()
        loss = obj.policy_loss(new, torch.zeros(1, 1), torch.tensor([[1.0]]), one, 0.5)
        assert int(loss.clipped) == 0
        assert loss.total.item() == pytest.approx(-ratio)
    value = obj.value_loss(torch.tensor([[1.5]]), torch.ones(1, 1), torch.zeros(1, 1), one, 0.5)
    assert int(value.clipped) == 0
    # downwards too the value moves by the clip at most: (1 - .5 - 2)^2 > (-3 - 2)^2 never, but 1.5^2 / 2 here
    value = obj.value_loss(torch.tensor([[-1.0]]), torch.ones(1, 1), torch.full((1, 1), -1.0), one, 0.5)
    assert value.total.item() == pytest.approx(0.5 * 1.5**2)
    assert int(value.clipped) == 1


def test_losses_count_no_pad_as_clipped() -> None:
    mask = torch.tensor([[True, False]])
    policy = obj.policy_loss(torch.tensor([[0.0, 9.0]]), torch.zeros(1, 2), torch.tensor([[1.0, 1.0]]), mask, 0.2)
    assert int(policy.clipped) == 0
    assert policy.ratio.tolist() == [[1.0, 1.0]]
    value = obj.value_loss(torch.tensor([[0.0, 9.0]]), torch.zeros(1, 2), torch.full((1, 2), 9.0), mask, 0.2)
    assert value.total.item() == pytest.approx(0.5 * 81.0)
    assert int(value.clipped) == 0
    free = obj.value_loss(torch.full((1, 2), 3.0), torch.zeros(1, 2), torch.zeros(1, 2), mask, None)
    assert free.total.item() == pytest.approx(0.5 * 9.0)
    assert (free.clipped.dtype, int(free.clipped)) == (torch.long, 0)
    assert policy.clipped.dtype == value.clipped.dtype == torch.long


def test_unclipped_scores_stay_as_they_are() -> None:
    scores, clipped = obj.normalized_scores(
        torch.tensor([50.0, -50.0]), torch.tensor([True, False]), mean=0.0, std=1.0, clip=None, missing_eos_penalty=2.0
    )
    assert scores.tolist() == [50.0, -52.0]
    assert clipped.tolist() == [False, False]
    scores, clipped = obj.normalized_scores(
        torch.tensor([-50.0, 3.0]), torch.tensor([True, True]), mean=0.0, std=1.0, clip=3.0, missing_eos_penalty=0.0
    )
    assert scores.tolist() == [-3.0, 3.0]
    assert clipped.tolist() == [True, False]


def test_entropy_by_hand_at_a_temperature() -> None:
    logits = torch.tensor([[[0.0, 2 * math.log(3.0)]]])  # at temperature 2: odds 1 to 3
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert token_entropy(logits, 2.0).item() == pytest.approx(expected, abs=1e-6)
    assert token_entropy(logits.bfloat16(), 2.0).dtype == torch.float32


def test_entropy_is_that_of_each_position() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 90.0]], [[90.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(token_entropy(logits, 1.0), torch.tensor([[1.0, 0.0], [0.0, 1.0]]) * math.log(2.0))


def test_scores_of_another_precision_and_responses_of_one_token() -> None:
    one = torch.ones(2, 1).bool()
    rewards = obj.token_rewards(torch.tensor([1.0, 2.0]).double(), torch.zeros(2, 1), one, 0.1)
    assert rewards.dtype == torch.float32
    advantages, returns = obj.advantages_and_returns(rewards, torch.ones(2, 1), one, 0.9, 0.9)
    assert advantages.tolist() == [[0.0], [1.0]]
    assert returns.tolist() == [[1.0], [2.0]]


def test_k3_by_hand() -> None:
    assert obj.k3(torch.tensor(0.0), torch.tensor(math.log(2.0))).item() == pytest.approx(1.0 - math.log(2.0))
    assert obj.k1(torch.tensor(3.0), torch.tensor(1.0)).item() == 2.0


def test_the_penalty_comes_after_the_clip() -> None:
    scores, clipped = obj.normalized_scores(
        torch.tensor([-4.0]), torch.tensor([False]), mean=0.0, std=1.0, clip=3.0, missing_eos_penalty=1.0
    )
    assert scores.tolist() == [-4.0]
    assert clipped.tolist() == [True]
