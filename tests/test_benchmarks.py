"""The measurements still run: they use the program's inner parts, which change."""

from __future__ import annotations

import pytest

from benchmarks import generation, padding, ppo_step


@pytest.mark.parametrize("extra", [[], ["--load-in-4bit", "--gradient-checkpointing"]])
def test_a_ppo_step_is_measured(extra: list[str]) -> None:
    size = [
        "--device",
        "cpu",
        "--batch",
        "4",
        "--micro-batch",
        "2",
        "--prompt",
        "4",
        "--response",
        "4",
        "--updates",
        "1",
    ]
    result = ppo_step.measure(ppo_step.parser().parse_args([*size, *extra]))
    assert result["kl_at_start"] == 0.0
    assert float(str(result["update_s"])) > 0


def test_generation_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = generation.Shape({**small, "vocab_size": 64}, 4, (3, 5), 4, responses=2)
    monkeypatch.setitem(generation.SHAPES, "a", shape)
    result = generation.measure("a", "lora", 1)
    assert result["tokens"] == {"generate": 4, "loop": 4}
    assert float(str(result["ratio"])) > 0


def test_pads_are_counted() -> None:
    rows = [[[1] * (1 + row % 2), [1] * (1 + row % 2)] for row in range(64)]
    pads = padding.measure(rows, 2)["pads"]
    assert isinstance(pads, dict)
    assert 0 <= pads["by_length"] < pads["random"]
