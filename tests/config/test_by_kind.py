"""Defaults by the kind of training and the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import by_kind, load_config
from pipelines.config.reference import training_in_words
from rlhf_cli.settings import resolve

RATES = ("sft.learning_rate", "reward.learning_rate", "ppo.learning_rate", "ppo.value_learning_rate")
LORA, FULL = (2e-4, 1e-4, 2e-5, 1e-4), (2e-5, 1e-5, 2e-6, 1e-5)


def rates(*sets: str, **options: Path) -> tuple[float, ...]:
    config = load_config(None, sets, for_training=True, **options)
    return (
        config.sft.learning_rate,
        config.reward.learning_rate,
        config.ppo.learning_rate,
        config.ppo.value_learning_rate,
    )


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(by_kind, "cuda_capability", lambda _: request.param)


@pytest.mark.parametrize("device", [0], indirect=True)
def test_the_rates_follow_lora(device: None) -> None:
    assert rates() == rates("model.use_peft=false") == FULL
    assert rates("model.use_peft=true") == LORA
    assert rates("model.use_peft=true", *(f"{key}=null" for key in RATES)) == LORA
    assert rates("model.use_peft=true", "sft.learning_rate=1e-3") == (1e-3, *LORA[1:])
    # what is trained whole all the same
    assert rates("model.use_peft=true", "model.init=scratch", "sft.max_length=64") == (FULL[0], *LORA[1:])
    assert rates("model.use_peft=true", "reward.base=bert") == (LORA[0], FULL[1], *LORA[2:])


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (0, (False, "float32", False, 64, 128)),
        (7, (True, "float32", True, 128, 512)),
        (9, (True, "bfloat16", True, 128, 512)),
    ],
    indirect=["device"],
)
def test_a_gpu_trains_adapters_in_bfloat16(device: None, expected: tuple[object, ...]) -> None:
    config = load_config(None, for_training=True)
    assert expected == (
        config.model.use_peft,
        config.model.dtype,
        config.sft.gradient_checkpointing and config.reward.gradient_checkpointing,
        config.ppo.rollout_batch_size,
        config.ppo.response_length,
    )
    assert rates() == (LORA if config.model.use_peft else FULL)
    assert not load_config(None, ["model.init=scratch", "sft.max_length=64"], for_training=True).model.use_peft


@pytest.mark.parametrize("device", [9], indirect=True)
def test_a_run_keeps_what_it_was_begun_with(device: None, tmp_path: Path) -> None:
    recorded = tmp_path / "config.yaml"
    recorded.write_text(
        "model: {use_peft: true, dtype: float32}\nsft: {learning_rate: 0.5}\nppo: {num_ppo_epochs: 4, adam_eps: 1e-5}\n"
    )
    config, _ = resolve(recorded, tmp_path)
    assert (config.model.dtype, config.sft.learning_rate, config.ppo.num_ppo_epochs) == ("float32", 0.5, 4)
    assert (config.ppo.adam_eps, config.ppo.warmup) == (1e-5, 0)
    # a rate is that of its kind of training
    assert rates("model.use_peft=false", recorded=recorded)[0] == FULL[0]


def test_a_stage_says_how_it_trains() -> None:
    config = load_config(None, ["model.use_peft=true", "ppo.response_length=64"], for_training=True)
    assert training_in_words(config, "sft").startswith("sft: LoRA in float32; by default ")
    assert "learning_rate 2e-05, value_learning_rate 0.0001" in training_in_words(config, "ppo")
    assert "response_length" not in training_in_words(config, "ppo")


def test_the_driver_is_asked() -> None:
    assert by_kind.cuda_capability("cpu") == 0
    import torch

    assert (by_kind.cuda_capability("auto") > 0) == torch.cuda.is_available()
