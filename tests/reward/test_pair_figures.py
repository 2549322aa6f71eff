"""Held-out accuracy of pairs, and what a tie that is kept as half does to it: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.models.text_classifier import EncodedText
from pipelines.reward.assessment import PAIR_FIGURES, Pair, pair_figures
from pipelines.reward.pairwise import Pairwise
from pipelines.run.stage import StageContext
from tests.recorders import Recorder


def pairs_of(*rows: tuple[int, int]) -> list[Pair]:
    def text(number: int) -> EncodedText:
        return EncodedText([number], [], 1)

    return [Pair(text(one), text(two)) for one, two in rows]


def scored(pairs: list[Pair]) -> dict[str, float | None]:
    """The figures of a model that scores an answer by its number."""
    return pair_figures(
        pairs, [pair.chosen.ids[0] for pair in pairs], [pair.rejected.ids[0] for pair in pairs], range(len(pairs))
    )


def test_ties_in_both_orders_do_not_lower_the_accuracy() -> None:
    strict = [(10 + number, number) for number in range(10)]
    ties = [(30 + number, 20 + number) for number in range(10)]
    found = scored(pairs_of(*strict, *ties, *((two, one) for one, two in ties)))
    assert found == scored(pairs_of(*strict)) | {"both_orders": 20}
    assert found["pairs"] == 10
    assert (found["accuracy"], found["margin"]) == (1.0, 10.0)
    assert scored(pairs_of(*strict))["both_orders"] == 0


def test_the_figures_by_hand() -> None:
    # the same pair twice in one order is two judgements alike, and equal scores are half right
    found = scored(pairs_of((2, 1), (2, 1), (1, 2), (5, 4), (5, 4), (3, 9), (7, 7)))
    assert found["both_orders"] == 4  # (7, 7) is its own twin
    assert found["accuracy"] == pytest.approx(2 / 3)
    pairs = pairs_of((1, 2), (3, 4))
    assert pair_figures(pairs, [0.5, 1.0], [0.5, 2.0], range(2))["accuracy"] == 0.25


def test_where_all_are_ties_nothing_is_right_or_wrong() -> None:
    found = scored(pairs_of((1, 2), (2, 1)))
    assert found == dict.fromkeys(PAIR_FIGURES) | {"pairs": 0, "both_orders": 2}


def test_the_accuracy_of_choosing_by_length_alone() -> None:
    def of_lengths(*lengths: tuple[int, int]) -> float | None:
        pairs = [
            Pair(*(EncodedText([], [number, side], length) for side, length in enumerate(row)))
            for number, row in enumerate(lengths)
        ]
        return pair_figures(pairs, [1.0] * len(pairs), [0.0] * len(pairs), range(len(pairs)))["length_accuracy"]

    assert of_lengths((5, 3), (9, 2), (1, 4), (6, 2)) == 0.75  # the longer answer
    assert of_lengths((3, 5), (2, 9), (4, 1), (2, 6)) == 0.75  # the shorter one
    assert of_lengths((3, 3), (5, 3)) == 0.75  # equal lengths are half right


@pytest.mark.parametrize(
    ("accuracy", "low", "warned"), [(0.8, 0.7, False), (0.55, 0.48, True), (0.4, 0.3, True), (None, None, True)]
)
def test_the_accuracy_is_told_with_its_interval_and_chance_is_a_warning(
    tmp_path: Path, accuracy: float | None, low: float | None, warned: bool
) -> None:
    reporter, objective = Recorder(), object.__new__(Pairwise)
    objective._ctx, objective._name = StageContext(Config(), tmp_path, {}, reporter), "reward"
    names = ("accuracy", "accuracy_low", "accuracy_high")
    high = None if low is None else low + 0.2
    figures = {f"heldout_{name}": value for name, value in zip(names, (accuracy, low, high), strict=True)}
    objective.log_figures(figures | {"heldout_pairs": 36, "heldout_length_accuracy": 0.5})
    assert bool(reporter.warned) is warned
    if accuracy is not None:
        assert f"{accuracy:.3f} [{low:.3f}, {high:.3f}] on 36 pairs" in reporter.said[0]
