"""Label Studio's exports in every listed shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.feedback.exchange.gather import EMPTY_SKIPPED, EMPTY_TIED, FROM_ZERO, REPEATED, Reading
from pipelines.feedback.exchange.label_studio import UNKNOWN, UNTOUCHED
from pipelines.feedback.exchange.verdict import INCOMPLETE, NOT_READ, UNDISTRIBUTED
from pipelines.feedback.reading import read_labels
from pipelines.feedback.types import LabelSet, Question, Task
from tests.feedback.exchange.exports import (
    ITEMS,
    PAIR,
    RANKED,
    annotation,
    minimal,
    ranker,
    result,
    selected,
    task,
)


@pytest.fixture
def export(tmp_path: Path) -> Any:
    """Read rows as an export."""

    def read(*rows: Any, **reading: Any) -> LabelSet:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(list(rows)))
        return read_labels(path, Reading(**reading))

    return read


def values(found: LabelSet) -> list[dict[str, Any]]:
    return [dict(label.values) for label in found.labels]


@pytest.mark.parametrize("target", ["pw", "txt-1", "txt-1,txt-2", ["txt-1", "txt-2"], None])
def test_pairwise_whatever_to_name_says(export: Any, target: Any) -> None:
    found = export(task(PAIR, annotation(selected("left", target)), annotation(selected("right", target), by=11)))
    assert values(found) == [{"pw": (1, 2)}, {"pw": (2, 1)}]
    assert found.questions == (Question("pw", "pairwise", ""),)
    (only,) = found.tasks.values()
    assert only.prompt[0].content == PAIR["prompt"]
    assert [answer.text for answer in only.answers] == [PAIR["text1"], PAIR["text2"]]
    assert [label.order for label in found.labels] == [(0, 1), (0, 1)]


def test_an_empty_result_is_a_skip_or_by_option_a_tie(export: Any) -> None:
    rows = task(PAIR, annotation(selected("left")), annotation(by=11))
    found = export(rows)
    assert [label.skipped for label in found.labels] == [False, True]
    assert found.notes == {EMPTY_SKIPPED: 1}
    found = export(rows, ties_from_empty=True)
    assert values(found) == [{"pw": (1, 2)}, {"pw": (1, 1)}]
    assert not found.labels[1].skipped
    assert found.notes == {EMPTY_TIED: 1}


def test_an_empty_ranking_is_a_skip_even_with_the_option(export: Any) -> None:
    found = export(task(RANKED, annotation(ranker(["wiki", "mdn", "blog"])), annotation(by=2)), ties_from_empty=True)
    assert [label.skipped for label in found.labels] == [False, True]


@pytest.mark.parametrize("name", ["tie", "pw_tie", "same"])
def test_a_tie_of_a_separate_control(export: Any, name: str) -> None:
    tie = result(name, "text1", "choices", {"choices": ["Tie"]})
    found = export(task(PAIR, annotation(tie)), task({**PAIR, "prompt": "Why?"}, annotation(selected("left"))))
    assert values(found) == [{"pw": (1, 1)}, {"pw": (1, 2)}]


def test_a_tie_goes_to_the_question_that_it_names(export: Any) -> None:
    tie = result("helpful_tie", "text1", "choices", {"choices": ["tie"]})
    both = [result(name, name, "pairwise", {"selected": "left"}) for name in ("overall", "helpful")]
    found = export(task(PAIR, annotation(*both), annotation(both[0], tie, by=2)))
    assert values(found)[1] == {"overall": (1, 2), "helpful": (1, 1)}


@pytest.mark.parametrize(
    ("text", "value"),
    [("Left", (1, 2)), ("B", (2, 1)), ("Response 2", (2, 1)), ("text1", (1, 2)), ("A is better", (1, 2))],
)
def test_choices_that_name_the_better_one(export: Any, text: str, value: tuple[int, int]) -> None:
    found = export(task(PAIR, annotation(result("better", "prompt", "choices", {"choices": [text]}))))
    assert values(found) == [{"better": value}]


def test_a_number_beside_one_answer_is_never_a_preference(export: Any) -> None:
    marks = [annotation(result("m", "text1", "choices", {"choices": [text]}), by=text) for text in ("1", "2")]
    found = export(task(PAIR, annotation(selected("left")), *marks))
    assert values(found) == [{"pw": (1, 2)}, {}, {}]
    assert found.notes == {INCOMPLETE: 1, NOT_READ.format("m"): 1, EMPTY_SKIPPED: 2}


def test_ranker_in_its_shapes(export: Any) -> None:
    found = export(
        task(
            RANKED,
            annotation(ranker({"rank": ["wiki", "mdn", "blog"]}), by=1),
            annotation(ranker(["blog", "wiki", "mdn"]), by=2),
            annotation(ranker({"best": ["wiki", "blog"], "worst": ["mdn"]}), by=3),
            annotation(ranker({"_": ["blog"], "best": ["wiki"], "ok": ["mdn"]}), by=4),
            annotation(ranker({"_": ["blog", "mdn", "wiki"], "best": [], "ok": []}), by=5),
        )
    )
    ranks = [value["rank"] for value in values(found)]
    assert ranks == [(2, 1, 3), (3, 2, 1), (2, 1, 1), (2, 1, 3), (1, 1, 1)]
    assert found.questions[0].kind == "ranking"
    assert found.notes == {UNDISTRIBUTED: 4}


def test_rankings_in_the_order_shown_are_counted(export: Any) -> None:
    found = export(task(RANKED, *(annotation(ranker(["mdn", "wiki", "blog"]), by=by) for by in (1, 2))))
    assert found.notes == {UNTOUCHED: 2}


def test_cancelled_ones_are_skips_and_drafts_and_predictions_are_left_out(export: Any) -> None:
    rows = task(
        PAIR,
        annotation(selected("left")),
        annotation(selected("left"), by=2, was_cancelled=True),
        drafts=[{"result": []}],
    )
    rows["predictions"] = [{"result": [selected("left")]}, {"result": []}]
    found = export(rows)
    assert [(label.annotator, label.skipped, dict(label.values)) for label in found.labels] == [
        ("10", False, {"pw": (1, 2)}),
        ("2", True, {}),
    ]
    assert found.notes == {"predictions of models (not read)": 2, "drafts (not read)": 1}


def test_annotators_times_and_seconds(export: Any) -> None:
    people = [7, {"id": 3, "email": "ann@example.org"}, {"id": 4, "username": "bob"}, {"id": 5}, None, None]
    found = export(task(PAIR, *(annotation(selected("left"), by=by) for by in people)))
    names = [label.annotator for label in found.labels]
    assert names == ["7", "ann@example.org", "bob", "5", "unknown-1", "unknown-2"]
    assert found.notes == {UNKNOWN: 2}
    assert {(label.seconds, label.time) for label in found.labels} == {(4.288, "2021-03-09T22:16:08.728378Z")}


def test_the_last_annotation_of_an_annotator_counts(export: Any) -> None:
    late = annotation(selected("right"), updated_at="2022-01-01T00:00:00Z")
    found = export(task(PAIR, late, annotation(selected("left"))))
    assert values(found) == [{"pw": (2, 1)}]
    assert found.notes == {REPEATED: 1}


def test_ground_truth_makes_a_control_task(export: Any) -> None:
    found = export(task(PAIR, annotation(selected("right"), ground_truth=True), annotation(selected("left"), by=2)))
    (only,) = found.tasks.values()
    assert only.control == {"pw": (2, 1)}
    assert [label.annotator for label in found.labels] == ["2"]


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


def test_texts_are_comments_beside_judgements_and_demonstrations_alone(export: Any) -> None:
    text = result("why", "prompt", "textarea", {"text": ["It is right.", "And short."]})
    found = export(task(PAIR, annotation(selected("left"), text)))
    assert found.labels[0].comment == "It is right.\nAnd short."
    found = export(task({"prompt": "Say hi."}, annotation(text)))
    assert values(found) == [{"why": "It is right.\nAnd short."}]
    assert found.questions[0].kind == "demonstration"


def test_other_results_are_counted(export: Any) -> None:
    label = result("ner", "text1", "labels", {"labels": ["x"], "start": 0, "end": 1})
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    found = export(task(PAIR, annotation(selected("left"), label, relation)))
    assert found.notes == {"results of type 'labels' (not read)": 1, "results of type 'relation' (not read)": 1}


def test_minimal_pairwise_with_a_tie_a_comment_and_a_skip(export: Any) -> None:
    found = export(
        minimal(PAIR, {"pw": [{"selected": "left"}]}),
        minimal(PAIR, {"pw": [{"selected": "right"}], "why": "because"}, annotator=11),
        minimal(PAIR, {"pw_tie": "tie"}, annotator="cy"),
        minimal(PAIR, {}, annotator={"email": "d@example.org", "id": 4}),
    )
    assert values(found) == [{"pw": (1, 2)}, {"pw": (2, 1)}, {"pw": (1, 1)}, {}]
    assert [label.annotator for label in found.labels] == ["10", "11", "cy", "d@example.org"]
    assert [label.comment for label in found.labels] == ["", "because", "", ""]
    assert len(found.tasks) == 1
    assert found.labels[0].seconds == 4.288


def test_minimal_ranker_in_both_shapes_ratings_and_choices(export: Any) -> None:
    found = export(
        minimal(RANKED, {"rank": [{"ranker": {"rank": ["wiki", "mdn", "blog"]}}]}),
        minimal(RANKED, {"rank": [{"ranker": ["blog", "mdn", "wiki"]}]}, annotator=2),
    )
    assert values(found) == [{"rank": (2, 1, 3)}, {"rank": (2, 3, 1)}]
    found = export(minimal({"prompt": "a", "text": "b"}, {"good": [{"rating": 2}], "safe": "yes"}))
    assert values(found) == [{"good": (2,), "safe": (1,)}]


@pytest.mark.parametrize(
    "data",
    [
        {"question": "Why?", "answer_a": "A", "answer_b": "B"},
        {"instruction": "Why?", "response-1": "A", "response-2": "B"},
        {"query": "Why?", "answers": ["A", "B"]},
        {"messages": [{"role": "user", "content": "Why?"}], "completion 1": "A", "completion 2": "B"},
        {"conversations": [{"from": "human", "value": "Why?"}], "Text1": "A", "Text2": "B"},
        {"prompt": "Why?", "responses": [{"id": 1, "text": "A"}, {"id": 2, "text": "B"}], "model1": "x"},
        {"prompt": "Why?", "text1": "A", "text2": "B", "model1": "gpt", "source": "web"},
    ],
)
def test_prompt_and_answers_are_found(export: Any, data: dict[str, Any]) -> None:
    (found,) = export(task(data, annotation(selected("left")))).tasks.values()
    assert [turn.content for turn in found.prompt] == ["Why?"]
    assert [answer.text for answer in found.answers] == ["A", "B"]


def test_prompt_and_answers_are_told(export: Any) -> None:
    data = {"prompt": "not this", "q": "Why?", "sys": "Be brief.", "left": "A", "right": "B"}
    columns = {"prompt": "q", "system": "sys", "answer_1": "left", "answer_2": "right"}
    (found,) = export(task(data, annotation(selected("left"))), columns=columns).tasks.values()
    assert [turn.content for turn in found.prompt] == ["Be brief.", "Why?"]
    assert [answer.text for answer in found.answers] == ["A", "B"]
    (found,) = export(
        task({"prompt": "Why?", "docs": ITEMS}, annotation(ranker(["wiki", "mdn", "blog"]))),
        columns={"answers": "docs"},
    ).tasks.values()
    assert len(found.answers) == 3


def test_the_same_texts_are_the_same_task(export: Any) -> None:
    found = export(task(PAIR, annotation(selected("left"))), task(PAIR, annotation(selected("left"), by=3)))
    assert list(found.tasks) == [
        Task(next(iter(found.tasks.values())).prompt, next(iter(found.tasks.values())).answers).id
    ]
    assert len(found.labels) == 2
