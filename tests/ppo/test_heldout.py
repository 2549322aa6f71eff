"""The best policy is the one with the most of what PPO maximizes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.heldout import Best, HeldoutAnswers, heldout_objective
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.objective import alone
from pipelines.ppo.types import Normalization

STORED = Normalization(1.0, 2.0)


def answers(scores: list[float], *, kl: float = 0.0, length: float = 4, finished: float = 1.0) -> HeldoutAnswers:
    n = len(scores)
    return HeldoutAnswers(scores, [kl] * n, [length] * n, [row < finished * n for row in range(n)])


def measure(kl_coef: float = 0.05, **settings: Any) -> Callable[[HeldoutAnswers], float]:
    section = PpoSection(reward_normalization="model", **settings)
    return functools.partial(heldout_objective, normalizer=Normalizer(section, STORED), kl_coef=kl_coef)


def offer(best: Best, update: int, made: HeldoutAnswers, objective: Callable[[HeldoutAnswers], float]) -> bool:
    return best.offer(update, made.figures(), made, objective, lambda: {"weight": torch.full((2,), float(update))})


def test_the_objective_by_hand() -> None:
    made = answers([3.0, 7.0, 43.0, 1.0], kl=6.0, finished=0.5)
    # normalized 1, 3, 10 (clipped), 0; two penalties of 1; KL 6 at .05
    assert measure()(made) == pytest.approx((1 + 3 + 10 + 0 - 2) / 4 - 0.3)
    assert measure(reward_clip=None, missing_eos_penalty=0.0, kl_coef=0.0)(made) == pytest.approx((1 + 3 + 21) / 4)
    long = measure(kl_coef=0.0, response_length=5, length_penalty=3.0, length_penalty_start=2)
    assert long(answers([1.0])) == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("first", "second", "better"),
    [
        (answers([2.0, 2.0], finished=0.0), answers([1.9, 1.9], finished=1.0), True),  # its answers end now
        (answers([2.0, 2.0]), answers([2.2, 2.2], kl=10.0), False),  # .1 more for .5 of penalty
        (answers([2.0, 2.0]), answers([2.2, 2.2], kl=0.5), True),
        (answers([20.0, 20.0]), answers([90.0, 0.0]), False),  # one outlier, which the clip takes off
        (answers([2.0, 2.0]), answers([2.0, 2.0]), False),  # a tie keeps the earlier one
    ],
)
def test_the_best_is_chosen_by_the_objective(first: HeldoutAnswers, second: HeldoutAnswers, better: bool) -> None:
    best = Best()
    assert offer(best, 0, first, measure())
    assert offer(best, 3, second, measure()) is better
    assert best.update == (3 if better else 0)
    assert best.figures == (second if better else first).figures()
    assert torch.equal(best.weights["weight"], torch.full((2,), float(best.update or 0)))


def test_both_are_measured_by_the_scale_of_now() -> None:
    """Scores fall from 10 to 8 while the running scale moves: by the scale of its day the second seems the better."""
    normalizer = Normalizer(PpoSection(reward_normalization="running"), STORED)

    def see(scores: Tensor) -> None:
        rows = torch.ones(len(scores), dtype=torch.bool)
        normalizer(scores, rows, rows.long(), alone)

    objective = functools.partial(heldout_objective, normalizer=normalizer, kl_coef=0.0)
    best, high, low = Best(), answers([10.0] * 4), answers([8.0] * 4)
    see(torch.tensor([20.0, 22.0]))
    then = objective(high)
    offer(best, 1, high, objective)
    see(torch.tensor([-20.0] * 20))
    assert objective(low) > then
    assert not offer(best, 2, low, objective)


def test_the_state_goes_on_and_an_earlier_one_without_answers_too() -> None:
    best, again, older = Best(), Best(), Best()
    offer(best, 2, answers([1.0, 5.0], kl=2.0, finished=0.5), measure())
    again.load_state_dict(best.state_dict())
    assert (again.update, again.figures, again.answers) == (best.update, best.figures, best.answers)
    older.load_state_dict({name: value for name, value in best.state_dict().items() if name != "answers"})
    assert older.answers is not None
    assert best.answers is not None
    assert measure()(older.answers) == pytest.approx(measure()(best.answers))
    assert not offer(older, 4, answers([1.0, 4.9], kl=2.0, finished=0.5), measure())
    assert offer(older, 4, answers([1.0, 5.2], kl=2.0, finished=0.5), measure())
    empty = Best()
    empty.load_state_dict(Best().state_dict())
    assert offer(empty, 1, answers([0.0]), measure())
