"""What the `ppo` section refuses, and that every option says what it does."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.config import load_config
from pipelines.config.ppo_section import PpoSection


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generations": 3}, "not a multiple of num_generations 3"),
        ({"num_mini_batches": 3}, "not a multiple of num_mini_batches 3"),
        ({"total_episodes": 128, "warmup_updates": 2}, "warmup_updates 2 fills"),
        ({"total_episodes": 128, "value_warmup_updates": 2}, "value_warmup_updates 2 fills"),
        ({"kl_target": 6.0, "kl_coef": 0.0}, "kl_coef"),
        ({"kl_target": 6.0, "kl_horizon": 63}, "kl_horizon 63"),
        ({"top_p": 0.0}, "top_p"),
        ({"advantage_estimator": "rloo"}, "set num_generations to 2 or more"),
        ({"advantage_estimator": "grpo", "num_generations": 1}, "set num_generations to 2 or more"),
        ({"advantage_estimator": "rloo", "num_generations": 2, "value_warmup_updates": 3}, "has no value model"),
        ({"advantage_estimator": "grpo", "num_generations": 2, "gamma": 0.9}, "gamma must be 1"),
        ({"advantage_estimator": "ppo"}, "advantage_estimator"),
        ({"cliprange_high": 0.0}, "cliprange_high"),
        ({"stop_tokens": 3}, "stop_tokens"),
        ({"normalize_reward": True}, "normalize_reward"),
        ({"num_sample_prompts": 1}, "num_sample_prompts"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PpoSection(**settings)


def test_the_last_update_before_a_refusal() -> None:
    PpoSection(total_episodes=129, warmup_updates=2, value_warmup_updates=2, kl_target=6.0, kl_horizon=64)


def test_a_setting_that_is_off_leaves_the_identity_of_older_runs() -> None:
    """A run from before these settings has the same view, so it stays complete."""
    assert PpoSection().results_view().keys().isdisjoint({"cliprange_high", "advantage_estimator"})
    assert PpoSection().results_view() == PpoSection(whiten_advantages=True).results_view()
    assert PpoSection(cliprange_high=0.28).results_view()["cliprange_high"] == 0.28


def test_the_settings_of_a_value_model_that_is_not_there_are_no_part_of_the_identity() -> None:
    first, second = (
        PpoSection(advantage_estimator="rloo", num_generations=4, vf_coef=weight, lam=lam, value_model=start)
        for weight, lam, start in ((0.1, 0.95, "reward"), (0.5, 1.0, "shared"))
    )
    assert first.results_view() == second.results_view()
    assert first.results_view()["advantage_estimator"] == "rloo"
    assert first.results_view()["whiten_advantages"] is False
    assert PpoSection(vf_coef=0.5).results_view() != PpoSection().results_view()


def test_stop_tokens_on_the_command_line() -> None:
    assert load_config(None, ["ppo.stop_tokens=['<|im_end|>']"]).ppo.stop_tokens == ["<|im_end|>"]


def test_every_option_has_a_description() -> None:
    silent = [name for name, field in PpoSection.model_fields.items() if not field.description]
    assert silent == []
