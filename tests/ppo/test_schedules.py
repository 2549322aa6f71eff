"""The KL coefficient and the learning rates from update to update, against numbers worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.schedules import KlController, learning_rate_factor


def section(**settings: Any) -> PpoSection:
    return PpoSection(rollout_batch_size=100, num_mini_batches=1, **settings)


def test_a_fixed_coefficient_stays() -> None:
    controller = KlController(section(kl_coef=0.3))
    controller.update(1000.0, 100)
    assert controller.coef == 0.3


def test_an_adaptive_coefficient_by_hand() -> None:
    controller = KlController(section(kl_coef=0.15, kl_target=6.0, kl_horizon=1000))
    controller.update(6.6, 100)  # a tenth too much
    assert controller.coef == pytest.approx(0.15 * 1.01)
    controller.update(60.0, 100)  # far too much counts as a fifth
    assert controller.coef == pytest.approx(0.15 * 1.01 * 1.02)
    controller.update(-3.0, 100)  # an estimate below 0 is far too little
    assert controller.coef == pytest.approx(0.15 * 1.01 * 1.02 * 0.98)


def test_an_adaptive_coefficient_goes_on_from_its_state() -> None:
    one, two = (KlController(section(kl_target=6.0)) for _ in range(2))
    one.update(60.0, 100)
    two.load_state_dict(one.state_dict())
    for controller in (one, two):
        controller.update(8.0, 100)
    assert one.coef == two.coef > 0.05


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"lr_scheduler_type": "constant"}, [1, 1, 1, 1, 1]),
        ({"lr_scheduler_type": "linear"}, [1, 0.8, 0.6, 0.4, 0.2]),
        ({"lr_scheduler_type": "cosine"}, [1, 0.904508, 0.654508, 0.345492, 0.095492]),
        ({"lr_scheduler_type": "constant", "warmup_updates": 3}, [0.25, 0.5, 0.75, 1, 1]),
        ({"lr_scheduler_type": "linear", "warmup_updates": 1}, [0.5, 1, 0.75, 0.5, 0.25]),
        ({"lr_scheduler_type": "cosine", "warmup_updates": 3}, [0.25, 0.5, 0.75, 1, 0.5]),
    ],
)
def test_learning_rates_of_five_updates(settings: dict[str, Any], factors: list[float]) -> None:
    five = section(total_episodes=500, **settings)
    assert [learning_rate_factor(five, update) for update in range(5)] == pytest.approx(factors, abs=1e-6)
