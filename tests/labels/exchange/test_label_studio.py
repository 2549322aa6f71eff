"""Label Studio's exports in every listed shape."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.labels.exchange.gather import EMPTY_SKIPPED, EMPTY_TIED, REPEATED, UNTOLD
from pipelines.labels.exchange.label_files import lines, summary
from pipelines.labels.exchange.label_studio import UNTOUCHED
from pipelines.labels.exchange.verdicts import UNDISTRIBUTED
from pipelines.labels.label_types import Question, Task
from tests.labels.exchange.exports import (
    ITEMS,
    PAIR,
    RANKED,
    annotation,
    minimal,
    ranker,
    result,
    selected,
    task,
    values,
)


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


def test_a_remark_alone_is_an_empty_result_and_what_is_not_read_is_none(export: Any) -> None:
    remark = result("comment", "prompt", "textarea", {"text": ["hm"]})
    odd = result("better", "prompt", "choices", {"choices": ["Reject A"]})
    said = (annotation(selected("left")), annotation(remark, by=11), annotation(odd, by=12))
    found = export(task(PAIR, *said), ties_from_empty=True)
    assert values(found) == [{"pw": (1, 2)}, {"pw": (1, 1)}, {}]
    assert found.labels[1].comment == "hm"
    assert found.notes[EMPTY_TIED] == 1


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


def test_ranker_in_its_shapes(export: Any) -> None:
    found = export(
        task(
            RANKED,
            annotation(ranker({"rank": ["wiki", "mdn", "blog"]}), by=1),
            annotation(ranker(["blog", "wiki", "mdn"]), by=2),
            annotation(ranker({"best": ["wiki", "blog"], "worst": ["mdn"]}), by=3),
            annotation(ranker({"_": ["blog"], "best": ["wiki"], "ok": ["mdn"]}), by=4),
            annotation(ranker({"_": ["blog", "mdn", "wiki"], "best": [], "ok": []}), by=5),
            annotation(ranker({"rank": ["wiki", "mdn", "blog"], "_": []}), by=6),
            annotation(ranker({"ok": ["wiki", "mdn", "blog"], "_": []}), by=7),
            annotation(ranker({"rank": ["wiki"], "_": ["mdn", "blog"]}), by=8),
        ),
        buckets=("best", "ok", "worst"),
    )
    ranks = [value["rank"] for value in values(found)]
    assert ranks == [(2, 1, 3), (3, 2, 1), (2, 1, 1), (2, 1, 3), (1, 1, 1), (2, 1, 3), (1, 1, 1), (2, 1, 2)]
    assert found.questions[0].kind == "ranking"
    assert found.notes == {UNDISTRIBUTED: 6}


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
    assert found.notes == {UNTOLD: 2}
    assert {(label.seconds, label.time) for label in found.labels} == {(4.288, "2021-03-09T22:16:08.728378Z")}


def test_nobody_is_made_of_annotators_that_are_not_told(export: Any) -> None:
    data = [{**PAIR, "prompt": f"{number}?"} for number in range(3)]
    twice = [annotation(selected("left"), by=None)] * 2
    found = export(*(task(one, *twice) for one in data), task(data[0], annotation(selected("right"), by=None)))
    assert [label.annotator for label in found.labels] == ["unknown-1", "unknown-2"] * 3 + ["unknown-3"]
    told = summary(found)
    assert told["annotators"] == {}
    assert told["of_unknown_annotators"] == 7
    assert "    of annotators without a name: 7" in lines(told)
    rows = [minimal(one, {"pw": [{"selected": "left"}]}, annotator=None) for one in data for _ in range(2)]
    found = export(*rows)
    assert [label.annotator for label in found.labels] == ["unknown-1", "unknown-2"] * 3
    assert found.notes == {UNTOLD: 6}
    known = annotation(selected("left"), by=None, ground_truth=True)
    assert export(task(PAIR, known, annotation(selected("left")))).notes == {}


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
