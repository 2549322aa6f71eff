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


def test_a_ratio_of_equal_weights_is_a_mean_and_its_interval_covers_the_truth():
    values = [float(number % 7) for number in range(60)]
    assert ratio(values, [1.0] * 60, 500) == estimate(values, 500)
    rng, inside = random.Random(3), 0
    for _ in range(400):
        sizes = [float(rng.randint(1, 3)) for _ in range(80)]
        followed = [float(sum(rng.random() < 0.7 for _ in range(int(size)))) for size in sizes]
        measured = ratio(followed, sizes, 300)
        assert measured.low is not None
        assert measured.high is not None
        inside += measured.low <= 0.7 <= measured.high
    assert 0.915 <= inside / 400 <= 0.98
