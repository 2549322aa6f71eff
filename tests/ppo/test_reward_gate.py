"""The gate before PPO: chance and length, few pairs, older manifests."""

from __future__ import annotations

import pytest

from pipelines.errors import TrainingError
from pipelines.ppo.reward_gate import check_reward_model
from pipelines.report.pair_accuracy import ENOUGH_PAIRS
from tests.recorders import Recorder


def metrics(accuracy: float, low: float, length: float, pairs: int, prefix: str = "heldout_") -> dict[str, float]:
    figures = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": 2 * accuracy - low}
    figures |= {"length_accuracy": length, "pairs": pairs}
    return {f"{prefix}{name}_after": value for name, value in figures.items()}


CHANCE = (0.53, 0.48, 0.51)
LENGTH = (0.7, 0.65, 0.7)
GOOD = (0.7, 0.65, 0.6)


@pytest.mark.parametrize("prefix", ["heldout_", "heldout_pair_"])
@pytest.mark.parametrize(("figures", "reason"), [(CHANCE, "chance"), (LENGTH, "length")])
def test_a_model_that_guesses_or_measures_length_is_refused(
    figures: tuple[float, float, float], reason: str, prefix: str
) -> None:
    with pytest.raises(TrainingError, match=reason) as refused:
        check_reward_model(metrics(*figures, ENOUGH_PAIRS, prefix), "refuse", Recorder())
    assert refused.value.exit_code == 7
    assert refused.value.where == "ppo.reward_gate"


@pytest.mark.parametrize(("gate", "pairs"), [("warn", ENOUGH_PAIRS), ("refuse", ENOUGH_PAIRS - 1)])
@pytest.mark.parametrize("figures", [CHANCE, LENGTH])
def test_it_warns_when_told_so_and_where_pairs_are_few(
    figures: tuple[float, float, float], gate: str, pairs: int
) -> None:
    reporter = Recorder()
    check_reward_model(metrics(*figures, pairs), gate, reporter)  # type: ignore[arg-type]
    assert len(reporter.warned) == 1
    assert f"{figures[0]:.3f}" in reporter.warned[0]
    assert f"{pairs} " in reporter.warned[0]


def test_a_good_model_and_one_without_figures_pass_in_silence() -> None:
    reporter = Recorder()
    for of_model in (metrics(*GOOD, ENOUGH_PAIRS), metrics(*GOOD, 20), {}, {"heldout_accuracy_after": 0.5}):
        check_reward_model(of_model, "refuse", reporter)
    check_reward_model(dict.fromkeys(metrics(*GOOD, 0)), "refuse", reporter)
    assert not reporter.warned
