"""Means, intervals and win rates against values that are known beforehand."""

from __future__ import annotations

import math
import random

import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from pipelines.report.bootstrap import differences, estimate, win_rate, wins
from pipelines.report.calibration import calibration_figures, probability
from pipelines.report.length_control import length_controlled_win_rate
from pipelines.report.statistics import wilson


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


@pytest.mark.parametrize(("share", "prompts"), [(0.5, 100), (0.75, 100), (0.6, 300)])
def test_the_interval_of_a_win_rate_covers_the_truth(share: float, prompts: int):
    """2,000 draws of wins, a tenth of them ties."""
    rng, inside = random.Random(11), 0
    for _ in range(2000):
        values = [0.5 if rng.random() < 0.1 else float(rng.random() < share) for _ in range(prompts)]
        rate = win_rate(values, 400)
        inside += rate.low <= 0.1 * 0.5 + 0.9 * share <= rate.high
    assert 0.93 <= inside / 2000 <= 0.97


def test_a_win_on_every_prompt_has_a_width():
    swept = win_rate([1.0] * 50, 200)
    assert (swept.value, swept.low, swept.high) == (1.0, *wilson(50, 50))
    assert win_rate([0.0] * 50, 200).high == wilson(0, 50)[1]
    assert win_rate([0.5] * 50, 200).as_dict() == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 50}


def test_brier_score_and_calibration_error_are_those_of_scikit_learn():
    rng = random.Random(2)
    logits = [rng.gauss(0.5, 1.5) for _ in range(1000)]
    targets = [float(rng.random() < probability(0.6 * logit)) for logit in logits]
    measured = calibration_figures(logits, targets)
    stated = [probability(logit) for logit in logits]
    assert measured["brier"] == pytest.approx(brier_score_loss(targets, stated))
    assert measured["loss"] == pytest.approx(log_loss(targets, stated))
    good, mean = calibration_curve(targets, stated, n_bins=10, strategy="quantile")  # ten bins of a hundred
    assert measured["calibration_error"] == pytest.approx(sum(abs(good - mean)) / 10, abs=1e-3)


def test_a_judge_that_only_counts_words_sees_no_gain_at_equal_length():
    rng = random.Random(4)
    baseline = [20 + rng.gauss(0, 6) for _ in range(400)]
    longer = [length + 3 + rng.gauss(0, 6) for length in baseline]
    by_length = [float(rng.random() < probability(0.4 * (a - b))) for a, b in zip(longer, baseline, strict=True)]
    plain, controlled = win_rate(by_length, 400), length_controlled_win_rate(by_length, longer, baseline, 400)
    assert plain.low > 0.55
    assert controlled.low < 0.5 < controlled.high
    better = [float(rng.random() < 0.8) for _ in longer]
    assert length_controlled_win_rate(better, longer, baseline, 400).value == pytest.approx(0.8, abs=0.06)


def test_equal_lengths_change_nothing_and_a_clean_sweep_is_not_regressed():
    wins_and_ties = [1.0] * 30 + [0.5] * 10 + [0.0] * 20
    rate = length_controlled_win_rate(wins_and_ties, [9.0] * 60, [9.0] * 60, 50)
    assert rate.value == pytest.approx(35 / 60, abs=1e-3)
    assert length_controlled_win_rate([1.0] * 20, [9.0] * 20, [8.0] * 20, 50).value is None
