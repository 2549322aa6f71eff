"""Means, intervals and win rates against values that are known beforehand."""

from __future__ import annotations

import math
import random

import pytest

from pipelines.report.bootstrap import differences, estimate, wins


def test_wins_and_differences_by_hand():
    assert wins([1.0, 2.0, 3.0, 3.0], [2.0, 2.0, 1.0, 3.0]) == [0.0, 0.5, 1.0, 0.5]
    assert differences([1.0, 2.0], [0.5, 4.0]) == [0.5, -2.0]
    with pytest.raises(ValueError, match="argument"):
        wins([1.0], [1.0, 2.0])


def test_only_ties_are_one_half_without_width():
    found = estimate(wins([1.0] * 10, [1.0] * 10), 200)
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 10)


def test_equal_values_keep_their_value_exactly():
    found = estimate([0.1] * 7, 500)
    assert found.low == found.high == 0.1
    assert found.value == pytest.approx(0.1, abs=1e-15)


def test_the_interval_is_the_binomial_one_for_a_share():
    # 80 wins in 200: standard error sqrt(.4 * .6 / 200) = .0346, so .4 -/+ 1.96 * .0346
    found = estimate([1.0] * 80 + [0.0] * 120, 20000)
    half = 1.96 * math.sqrt(0.4 * 0.6 / 200)
    assert found.value == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - half, abs=0.006)
    assert found.high == pytest.approx(0.4 + half, abs=0.006)


def test_two_prompts_give_the_quantiles_of_a_coin():
    # means of two draws from {0, 1}: 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    found = estimate([0.0, 1.0], 4000)
    assert (found.low, found.value, found.high) == (0.0, 0.5, 1.0)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = random.Random(5)
    trials = 400
    covered = 0
    for _ in range(trials):
        found = estimate([rng.gauss(3.0, 2.0) for _ in range(60)], 400)
        covered += found.low <= 3.0 <= found.high
    # 95 % of 400 with a standard error of 1.1 points; the percentile interval is a little narrow at n = 60
    assert 0.915 <= covered / trials <= 0.98


def test_a_paired_difference_is_sharper_than_the_levels():
    rng = random.Random(1)
    first = [rng.gauss(0.0, 10.0) for _ in range(100)]
    second = [value + rng.gauss(0.5, 0.1) for value in first]
    found = estimate(differences(second, first), 1000)
    assert 0.45 < found.low < 0.5 < found.high < 0.55
    assert estimate(first, 1000).high - estimate(first, 1000).low > 2


def test_the_draws_are_fixed_and_do_not_touch_the_global_state():
    import torch

    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    values = [float(index) for index in range(50)]
    assert estimate(values, 300) == estimate(values, 300)
    assert torch.rand(1) == before


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    values = [float(index**2 % 17) for index in range(40)]
    whole = estimate(values, 501)
    monkeypatch.setattr("pipelines.report.bootstrap._CELLS_AT_ONCE", 400)
    assert estimate(values, 501) == whole


def test_nothing_cannot_be_estimated():
    with pytest.raises(ValueError, match="nothing"):
        estimate([], 100)
