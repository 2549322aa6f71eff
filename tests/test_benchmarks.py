"""The measurements still run: they use the program's inner parts, which change."""

from __future__ import annotations

import pytest

from benchmarks import ppo_step


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
