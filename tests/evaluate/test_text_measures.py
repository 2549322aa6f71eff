"""Repetition, variety and perplexity against values worked by hand."""

from __future__ import annotations

import math
import random

import pytest

from pipelines.evaluate.text_measures import distinct, perplexity, repetition
from pipelines.report.bootstrap import estimate, ratio
from pipelines.scorers import Completion


def answer(text: str, tokens: int = 1) -> Completion:
    return Completion(text, tuple(range(tokens)), True)


def test_repetition_is_the_share_of_trigrams_that_came_before():
    # a b c a b c: abc bca cab abc, one of four came before; two words have no trigram
    assert repetition([answer("a b c a b c"), answer("a b"), answer("a b c d")]) == [0.25, 0.0, 0.0]
    assert math.copysign(1, repetition([answer("a b c d")])[0]) == 1


def test_distinct_counts_n_grams_over_all_answers_by_word():
    answers = [answer("the cat sat"), answer("the cat ran off")]
    # 7 words; the cat sat ran off; the-cat cat-sat cat-ran ran-off; three trigrams, none across two answers
    assert [distinct(answers, n).value for n in (1, 2, 3)] == [5 / 7, 4 / 7, 3 / 7]
    assert distinct(answers, 1).low is None
    assert distinct([answer(""), answer(" ")], 1).value is None


def test_perplexity_weighs_tokens_and_not_answers():
    # 8 nats lost on 4 tokens and 1 nat on one: exp(9 / 5), not the mean of exp(2) and exp(1)
    measured = perplexity([-8.0, -1.0], [answer("long", 4), answer("short")], 4000)
    assert measured.value == pytest.approx(math.exp(9 / 5))
    # two prompts of two: both the one, both the other, or one of each
    assert (measured.low, measured.high) == pytest.approx((math.exp(1), math.exp(2)))
    assert perplexity([-900.0], [answer("impossible")], 100).value is None


def test_a_ratio_of_equal_weights_is_a_mean_with_a_wider_interval():
    values = [float(number % 7) for number in range(60)]
    mean, as_ratio = estimate(values, 500), ratio(values, [1.0] * 60, 500)
    assert as_ratio.value == mean.value
    assert as_ratio.low < mean.low < mean.high < as_ratio.high
    assert ratio([2.0], [4.0], 100).as_dict() == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 1}


def test_the_interval_of_a_ratio_covers_the_truth_with_few_units_and_with_unequal_ones():
    rng = random.Random(3)

    def few() -> tuple[list[float], list[float]]:
        return [0.7 + rng.gauss(0, 1) for _ in range(20)], [1.0] * 20

    def unequal() -> tuple[list[float], list[float]]:
        sizes = [float(rng.randint(1, 3)) for _ in range(80)]
        return [float(sum(rng.random() < 0.7 for _ in range(int(size)))) for size in sizes], sizes

    for draw in (few, unequal):
        measured = [ratio(*draw(), 300) for _ in range(1000)]
        inside = sum(entry.low <= 0.7 <= entry.high for entry in measured)
        assert 0.93 <= inside / 1000 <= 0.97, draw
