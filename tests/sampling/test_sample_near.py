"""Repetitions and blank answers, by hand-made cases."""

from __future__ import annotations

import pytest

from pipelines.sampling.sampler import RepetitionFilter, is_blank, pieces, plain_words, similarity

LONG = "the red ball rolls over the mat and the dog looks at it while the cat sleeps in the sun near the open door "


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("", True),
        (" \n\t", True),
        ("\u200b\u200d\ufeff", True),
        ("\u3000", True),
        ("an answer with a\0 in it", True),
        (".", False),
        ("0", False),
        ("é", False),
    ],
)
def test_what_nobody_can_see_is_blank(text: str, blank: bool):
    assert is_blank(text) is blank


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Yes, it is.", "yes it  is!"),
        ("**Yes** it is", "“Yes” it is"),
        ("ﬁne\n\nday", "Fine day"),
        ("Straße", "STRASSE"),
    ],
)
def test_case_blanks_and_punctuation_around_words_do_not_count(first: str, second: str):
    distinct = RepetitionFilter(1.0)
    assert distinct.add(first)
    assert not distinct.add(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("x+1", "x-1"), ("-5", "5"), ("1.5", "15"), ("5%", "5"), ("yes", "no"), ("...", "!!!"), ("a = b", "a != b")],
)
def test_signs_and_short_answers_do_count(first: str, second: str):
    distinct = RepetitionFilter(0.95)
    assert distinct.add(first)
    assert distinct.add(second)


def test_one_word_of_many_is_a_repetition_and_one_of_few_is_not():
    long = RepetitionFilter(0.95)
    assert long.add(LONG * 3)
    assert not long.add((LONG * 3).replace("ball", "box", 1))
    assert long.add(LONG * 2 + "something else altogether is said at the end, and it changes what the answer means")
    short = RepetitionFilter(0.95)
    assert short.add("the red ball rolls")
    assert short.add("the red box rolls")


def test_at_1_only_the_same_words_repeat():
    distinct = RepetitionFilter(1.0)
    assert distinct.add(LONG * 3)
    assert distinct.add((LONG * 3).replace("ball", "box", 1))
    assert not distinct.add((LONG * 3).upper())


def test_similarity_by_hand():
    # abcdef: abcde bcdef; abcdeg: abcde bcdeg; one of two is common
    assert similarity(pieces("abcdef"), pieces("abc deg")) == 0.5
    assert similarity(pieces("ab"), pieces("ab")) == 1
    assert similarity(pieces("ab"), pieces("ac")) == 0
    # a text that says the same thing twice has each piece twice
    assert similarity(pieces("aaaaaa"), pieces("aaaaa")) == pytest.approx(2 / 3)


def test_what_was_refused_is_no_measure_for_others():
    distinct = RepetitionFilter(0.5)
    assert distinct.add("abcdefgh")
    assert not distinct.add("bcdefghi")  # three of four pieces
    assert distinct.add("efghijkl")  # near to the refused one, not to the first


def test_plain_words():
    assert plain_words(" Hello,\n WORLD! ") == "hello world"
    assert plain_words("?!") == "?!"
