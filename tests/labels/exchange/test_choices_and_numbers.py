"""What choices and numbers of other programs say: which answer is better, 0 or 1, or a point on a scale."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.labels.exchange.gather import ALL_ONES, EMPTY_SKIPPED, FROM_ZERO
from pipelines.labels.exchange.verdicts import INCOMPLETE, NOT_READ
from tests.labels.exchange.exports import (
    PAIR,
    annotation,
    minimal,
    result,
    selected,
    task,
    values,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, (1, 2)) for text in ("Left", "a", "1", "Answer A", "response_1", "Text 1", "text1", "The first one")),
        *((text, (1, 2)) for text in ("A is better", "A is slightly better than B.", "prefer A", "Better: A")),
        *((text, (1, 2)) for text in ("A > B", "1>>2", "B < A", "A beats B", "Response 1 wins", "I prefer A to B")),
        *((text, (2, 1)) for text in ("B", "Response 2", "right", "Right is better", "A << B", "text2 is preferred")),
    ],
)
def test_choices_that_name_the_better_one(export: Any, text: str, value: tuple[int, int]) -> None:
    found = export(task(PAIR, annotation(result("better", "prompt", "choices", {"choices": [text]}))))
    assert values(found) == [{"better": value}]


@pytest.mark.parametrize(
    "text",
    [
        *("Reject A", "Not A", "Bad: A", "Neither A", "Dislike 1", "Both A", "worse: B", "A loses to B", "No, A"),
        *("A is worse", "A is not better", "not A is better", "B is no better than A", "A > A", "A or B", "A3", "..."),
    ],
)
def test_choices_of_any_other_form_are_not_read_but_counted(export: Any, text: str) -> None:
    odd = annotation(result("better", "prompt", "choices", {"choices": [text]}), by=2)
    found = export(task(PAIR, annotation(result("better", "prompt", "choices", {"choices": ["A"]})), odd))
    assert values(found) == [{"better": (1, 2)}, {}]
    assert found.notes[NOT_READ.format("better")] == 1
    said = enumerate(("A", text, "A"))
    found = export(*(minimal(PAIR, {"better": one}, annotator=by) for by, one in said))
    assert values(found) == [{"better": (1, 2)}, {}, {"better": (1, 2)}]
    assert found.labels[1].comment == text
    assert found.notes[NOT_READ.format("better")] == 1


def test_a_control_that_asks_for_the_worse_one_is_not_read(export: Any) -> None:
    worse = result("Rejected", "prompt", "choices", {"choices": ["A"]})
    found = export(task(PAIR, annotation(selected("left"), worse)))
    assert (values(found), found.notes) == ([{"pw": (1, 2)}], {NOT_READ.format("Rejected"): 1})


def test_a_number_is_that_of_the_key_where_keys_are_numbered_otherwise(export: Any) -> None:
    one = annotation(result("better", "prompt", "choices", {"choices": ["Response 1"]}))
    assert values(export(task({"prompt": "Why?", "text0": "a", "text1": "b"}, one))) == [{"better": (2, 1)}]
    items = [{"id": "text2", "body": "a"}, {"id": "text1", "body": "b"}]
    assert values(export(task({"prompt": "Why?", "items": items}, one))) == [{"better": (2, 1)}]


def test_a_number_beside_one_answer_is_never_a_preference(export: Any) -> None:
    marks = [annotation(result("m", "text1", "choices", {"choices": [text]}), by=text) for text in ("1", "2")]
    found = export(task(PAIR, annotation(selected("left")), *marks))
    assert values(found) == [{"pw": (1, 2)}, {}, {}]
    assert found.notes == {INCOMPLETE: 1, NOT_READ.format("m"): 1, EMPTY_SKIPPED: 2}


def test_ratings_and_flags_of_each_answer(export: Any) -> None:
    marks = [
        result("good_1", "text1", "rating", {"rating": 4}),
        result("good_2", "text2", "rating", {"rating": 7}),
        result("safe_1", "text1", "choices", {"choices": ["1"]}),
        result("safe_2", "text2", "choices", {"choices": ["0"]}),
    ]
    found = export(task(PAIR, annotation(*marks)))
    assert values(found) == [{"good": (4, 7), "safe": (1, 0)}]
    assert [(question.name, question.kind, question.points) for question in found.questions] == [
        ("good", "scale", 7),
        ("safe", "binary", 5),
    ]


def test_a_rating_of_some_answers_only_is_left_out(export: Any) -> None:
    found = export(
        task(PAIR, annotation(selected("left"), result("good_2", "text2", "rating", {"rating": 4}))),
    )
    assert values(found) == [{"pw": (1, 2)}]
    assert found.notes == {INCOMPLETE: 1}


def test_names_that_count_from_zero_and_a_scale_from_zero(export: Any) -> None:
    marks = [result(f"good_{place}", "x", "number", {"number": place * 2}) for place in (0, 1)]
    found = export(task(PAIR, annotation(*marks)))
    assert values(found) == [{"good": (1, 3)}]
    assert found.notes == {FROM_ZERO: 1}


def test_numbers_are_zero_or_one_or_a_scale_by_all_of_them_together(export: Any) -> None:
    def marks(kind: str, *pairs: tuple[int, int]) -> Any:
        said = (
            [result(f"q_{place}", f"text{place}", kind, {kind: number}) for place, number in enumerate(pair, 1)]
            for pair in pairs
        )
        return export(task(PAIR, *(annotation(*one, by=by) for by, one in enumerate(said))))

    for pairs in ([(0, 0)], [(0, 1)], [(1, 1), (0, 0)]):
        found = marks("number", *pairs)
        assert (found.questions[0].kind, values(found), found.notes) == ("binary", [{"q": pair} for pair in pairs], {})
    ones = marks("number", (1, 1))
    assert (ones.questions[0].kind, values(ones), ones.notes) == ("binary", [{"q": (1, 1)}], {ALL_ONES: 1})
    stars = marks("rating", (1, 1))
    assert (stars.questions[0].kind, values(stars), stars.notes) == ("scale", [{"q": (1, 1)}], {})
    mixed = marks("number", (1, 1), (0, 1), (3, 2))
    assert (mixed.questions[0].kind, mixed.notes) == ("scale", {FROM_ZERO: 1})
    assert values(mixed) == [{"q": (2, 2)}, {"q": (1, 2)}, {"q": (4, 3)}]


def test_numbers_told_for_choices_may_be_a_scale(export: Any) -> None:
    said = [
        result(f"q_{place}", "prompt", "choices", {"choices": [text]}) for place, text in enumerate(("ok", "fine"), 1)
    ]
    found = export(task(PAIR, annotation(*said)), choices={"ok": 1, "fine": 2})
    assert (found.questions[0].kind, values(found)) == ("scale", [{"q": (1, 2)}])
    found = export(task(PAIR, annotation(said[0], said[1] | {"value": {"choices": ["no"]}})), choices={"ok": 1})
    assert (found.questions[0].kind, values(found)) == ("binary", [{"q": (1, 0)}])


def test_one_answer_and_choices_with_numbers_told(export: Any) -> None:
    data = {"question": "What?", "answer": "Something rude."}
    rows = [
        task(data, annotation(result("verdict", "answer", "choices", {"choices": [text]}), by=by))
        for by, text in enumerate(("toxic", "fine", "perhaps"))
    ]
    found = export(*rows, choices={"toxic": 1, "fine": 0})
    assert values(found) == [{"verdict": (1,)}, {"verdict": (0,)}, {}]
    assert found.questions[0].kind == "binary"
    assert found.notes[NOT_READ.format("verdict")] == 1
