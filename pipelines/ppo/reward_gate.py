"""The gate before PPO: a reward model that may be guessing, or only measures length, is not optimized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pipelines.errors import TrainingError
from pipelines.run.reporting import Reporter

Gate = Literal["refuse", "warn"]
CHANCE = 0.5
ENOUGH_PAIRS = 200
"""Held-out pairs from which on the gate refuses: the interval of an accuracy of .57 or more lies above chance there."""


def check_reward_model(metrics: Mapping[str, Any], gate: Gate, reporter: Reporter) -> None:
    """Compare the reward model's accuracy on held-out pairs with chance and with the length of the answers.

    A pointwise model is compared where comparisons were held out. With fewer than `ENOUGH_PAIRS` pairs, or with
    `ppo.reward_gate: warn`, it warns; it says nothing of a model whose manifest has no such figures.

    Args:
        metrics: final metrics of the reward stage.
        gate: `ppo.reward_gate`.

    Raises:
        TrainingError: the 95 % interval of the accuracy reaches chance, or the accuracy is not above that of always
            choosing the longer (or the shorter) answer.
    """
    prefix = "heldout_pair" if "heldout_pair_accuracy_after" in metrics else "heldout"
    names = ("accuracy", "accuracy_low", "accuracy_high", "length_accuracy", "pairs")
    values: list[Any] = [metrics.get(f"{prefix}_{name}_after") for name in names]
    if None in values:
        return
    accuracy, low, high, length, pairs = values
    faults = []
    if low <= CHANCE:
        faults.append("its interval reaches chance (.5)")
    if accuracy <= length:
        faults.append(f"choosing by length alone is right on {length:.3f}")
    if not faults:
        return
    figures = f"held-out accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] on {pairs} pairs"
    if pairs < ENOUGH_PAIRS:
        reporter.warn(
            f"ppo: {pairs} held-out pairs cannot tell whether the reward model is any good: {figures}; "
            f"{' and '.join(faults)}"
        )
        return
    if gate == "warn":
        reporter.warn(f"ppo: the reward model may not be worth optimizing: {figures}; {' and '.join(faults)}")
        return
    raise TrainingError(
        f"the reward model is not good enough for PPO: {figures}; {' and '.join(faults)}",
        where="ppo.reward_gate",
        hint="give more or cleaner comparisons, more steps or another learning rate, and run `rlhf reward` again; "
        "`--set ppo.reward_gate=warn` goes on all the same",
    )
