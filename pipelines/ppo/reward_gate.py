"""The gate before PPO: a reward model that may be guessing, or only measures length, is not optimized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pipelines.errors import TrainingError
from pipelines.report.pair_accuracy import ENOUGH_PAIRS, PairAccuracy
from pipelines.run.reporting import Reporter

Gate = Literal["refuse", "warn"]


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
    accuracy = PairAccuracy.of(metrics)
    if accuracy is None or not accuracy.faults:
        return
    faults = " and ".join(accuracy.faults)
    if accuracy.pairs < ENOUGH_PAIRS:
        reporter.warn(
            f"ppo: {accuracy.pairs} held-out pairs cannot tell whether the reward model is any good: {accuracy}; "
            f"{faults}"
        )
        return
    if gate == "warn":
        reporter.warn(f"ppo: the reward model may not be worth optimizing: {accuracy}; {faults}")
        return
    raise TrainingError(
        f"the reward model is not good enough for PPO: {accuracy}; {faults}",
        where="ppo.reward_gate",
        hint="give more or cleaner comparisons, more steps or another learning rate, and run `rlhf reward` again; "
        "`--set ppo.reward_gate=warn` goes on all the same",
    )
