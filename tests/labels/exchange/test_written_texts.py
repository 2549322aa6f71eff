"""Texts of other programs: remarks, answers that were written, and choices that look like them."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.data.rows import Message
from pipelines.errors import DataError
from pipelines.labels.exchange.gather import ADRIFT, BARE, EMPTY_SKIPPED, ONLY_TEXTS, WRITTEN
from pipelines.labels.exchange.verdicts import NOT_READ
from pipelines.labels.label_types import Answer, LabelSet, Question, Task
from tests.labels.exchange.exports import PAIR, USERS, annotation, minimal, response, result, task, values, wire

PROMPT = {"prompt": "Is 7 prime?"}
REMARK = result("comment", "prompt", "textarea", {"text": ["odd prompt"]})
REPLY = result("overall", "prompt", "textarea", {"text": ["Hello!"]})


def sent(kind: Any = "demonstration", *drafts: str, name: str = "overall") -> LabelSet:
    """A task with the prompt of `PROMPT` and these drafts, as it was sent out."""
    one = Task((Message(role="user", content="Is 7 prime?"),), tuple(Answer(text, "m") for text in drafts), source="s")
    return LabelSet((Question(name, kind, "Write."),), {one.id: one}, [])


REMARKED: list[dict[str, Any]] = [
    task(PROMPT, annotation(REMARK, REPLY)),
    task(PROMPT, annotation(REPLY, REMARK)),
    minimal(PROMPT, {"comment": "odd prompt", "overall": "Hello!"}),
    wire(response(USERS[0], comment="odd prompt", overall="Hello!"), fields=PROMPT),
]


@pytest.mark.parametrize("beside", [None, sent()])
@pytest.mark.parametrize("record", REMARKED)
def test_a_remark_is_never_a_training_answer(export: Any, record: dict[str, Any], beside: LabelSet | None) -> None:
    found = export(record, tasks=beside)
    assert [(question.name, question.kind) for question in found.questions] == [("overall", "demonstration")]
    assert values(found) == [{"overall": "Hello!"}]
    assert [label.comment for label in found.labels] == ["odd prompt"]
    with pytest.raises(DataError, match="no annotation answers a question"):
        export(task(PROMPT, annotation(REMARK)))


def test_texts_alone_answer_no_question_that_was_sent_out(export: Any) -> None:
    """A label without a judgement stays a skip, though the file holds texts only."""
    other = result("reply", "prompt", "textarea", {"text": ["Hello!"]})
    for texts, words in (([REMARK], "odd prompt"), ([other], "Hello!")):
        found = export(task(PROMPT | {"answer": "Yes"}, annotation(*texts)), tasks=sent("binary", "Yes"))
        assert found.questions == sent("binary", "Yes").questions
        assert [(label.skipped, label.values, label.comment) for label in found.labels] == [(True, {}, words)]
        assert found.notes == {ONLY_TEXTS: 1}


def test_minimal_texts_that_equal_an_answer_or_the_prompt_are_kept(export: Any) -> None:
    data = {"prompt": "same", "text1": "yes", "text2": "no"}
    found = export(minimal(data, {"good_1": "yes", "good_2": "no", "comment": "same"}))
    assert values(found) == [{"good": (1, 0)}]
    assert found.labels[0].comment == "same"
    assert found.notes == {}
    found = export(minimal({"prompt": "Hi?", "text": "Hello!"}, {"overall": "Hello!"}))
    assert values(found) == [{"overall": "Hello!"}]


def test_minimal_tasks_with_an_id_of_their_own_are_known_by_name(export: Any) -> None:
    """Label Studio then writes its id in the place of theirs, before the fields of the task."""
    row = {"id": 1, **PAIR, **minimal({}, {"good_1": "yes", "good_2": "no"})}
    found = export(row)
    assert values(found) == [{"good": (1, 0)}]
    assert (len(found.tasks), found.labels[0].comment) == (1, "")
    renamed = {"q": "Why?", "id": 1, "left": "a", "right": "b", **minimal({}, {"good_1": "yes", "good_2": "no"})}
    found = export(renamed, columns={"prompt": "q", "answer_1": "left", "answer_2": "right"})
    assert (values(found), found.labels[0].comment) == ([{"good": (1, 0)}], "")


def test_minimal_controls_may_be_called_like_fields_of_a_task(export: Any) -> None:
    found = export(minimal(PROMPT, {"response": "Hello!"}))
    assert values(found) == [{"response": "Hello!"}]
    assert [task.answers for task in found.tasks.values()] == [()]


def test_minimal_results_that_are_not_read_are_counted(export: Any) -> None:
    """A choice on two regions is a list of texts, and labels are results of no known form."""
    odd = {"better": ["left", "right"], "ner": [{"start": 0, "end": 1, "labels": ["x"]}], "sure": 0.5, "empty": []}
    counted = {NOT_READ.format(name): 1 for name in ("better", "ner", "sure")}
    assert export(minimal(PAIR, {"pw": [{"selected": "left"}], **odd})).notes == counted
    with pytest.raises(DataError) as caught:
        export(minimal(PAIR, odd))
    assert (caught.value.hint or "").startswith("better, ner, sure: --value")


@pytest.mark.parametrize("results", [{}, {"pw": [{"selected": "left"}]}])
def test_minimal_fields_of_the_task_are_no_results(export: Any, results: dict[str, Any]) -> None:
    items = {"prompt": "Why?", "items": [{"text": "a"}, {"text": "b"}]}
    talk = {"prompt": "Why?", "dialogue": [{"author": "x", "text": "Hi"}], "answers": ["a", "b"]}
    pair = minimal(PAIR, {"pw": [{"selected": "right"}]}, annotator=2)
    for data in (items, talk):
        mine = minimal(data, results)
        for row in (mine, {"id": 1, **mine}, dict(sorted(mine.items()))):
            found = export(row, pair)
            assert [answer.text for answer in next(iter(found.tasks.values())).answers] == ["a", "b"]
            assert found.labels[0].values == ({"pw": (1, 2)} if results else {})
            assert found.labels[0].comment == ""


def test_minimal_choices_and_texts_of_several(export: Any) -> None:
    data = PROMPT | {"about": {"text": "of the task"}}
    found = export(
        minimal(data, {"reply": {"text": ["Hello!", "Bye!"]}}),
        minimal(data, {"reply": "Hi!", "topics": {"choices": ["a", "b"]}}, annotator=2),
    )
    assert values(found) == [{"reply": "Hello!\nBye!"}, {"reply": "Hi!"}]
    assert found.notes == {NOT_READ.format("topics"): 1}


def records(shape: str, control: str, texts: tuple[str, ...], data: dict[str, Any]) -> list[dict[str, Any]]:
    """One label of each text."""
    if shape == "minimal":
        return [minimal(data, {control: text}, annotator=f"u{by}") for by, text in enumerate(texts)]
    return [wire(*(response(f"u{by}", **{control: text}) for by, text in enumerate(texts)), fields=data)]


@pytest.mark.parametrize("shape", ["minimal", "wire"])
@pytest.mark.parametrize("name", ["overall", "polite_1", "worse_a"])
def test_what_was_sent_out_for_writing_is_written_whatever_it_says(export: Any, shape: str, name: str) -> None:
    texts = ("Yes.", "no", "0")
    rows = records(shape, name, texts, PROMPT | {"answer": "Maybe"})
    found = export(*rows, tasks=sent("demonstration", "Maybe", name=name))
    assert values(found) == [{name: text} for text in texts]
    assert found.notes == {}


@pytest.mark.parametrize("shape", ["minimal", "wire"])
def test_without_the_tasks_most_texts_of_a_control_say_what_it_is(export: Any, shape: str) -> None:
    draft = PROMPT | {"answer": "Maybe"}
    found = export(*records(shape, "reply", ("Yes.", "Hello!"), draft))
    assert values(found) == [{"reply": "Yes."}, {"reply": "Hello!"}]
    assert found.notes == {WRITTEN.format("reply"): 1}
    found = export(*records(shape, "good", ("yes", "no", "unsure"), draft))
    assert values(found) == [{"good": (1,)}, {"good": (0,)}, {}]
    assert found.notes == {NOT_READ.format("good"): 1, ONLY_TEXTS: 1}
    assert found.labels[2].comment == "unsure"
    # Where it was sent out as a judgement, it is one, however few of its texts can be read.
    found = export(*records(shape, "good", ("yes", "unsure", "hm"), draft), tasks=sent("binary", "Maybe", name="good"))
    assert values(found) == [{"good": (1,)}, {}, {}]


JUDGED = PROMPT | {"answer": "Maybe"}
TOLD = {"toxic": 1, "fine": 0}


@pytest.mark.parametrize("shape", ["minimal", "wire"])
@pytest.mark.parametrize(
    ("texts", "data", "choices", "said"),
    [
        (("toxic", "fine", "Can't say", "Can't say"), JUDGED, TOLD, [(1,), (0,), None, None]),
        (("toxic", "Can't say", "No idea"), JUDGED, TOLD, [(1,), None, None]),
        (("Yes", "No", "Can't say", "Can't say"), JUDGED, {}, [(1,), (0,), None, None]),
        (("A", "Reject A", "Reject A", "Reject B", "Reject B"), PAIR, {}, [(1, 2), None, None, None, None]),
    ],
)
def test_choices_are_no_answers_for_training_however_few_of_them_are_read(
    export: Any, shape: str, texts: Any, data: Any, choices: Any, said: list[tuple[int, ...] | None]
) -> None:
    found = export(*records(shape, "ok", texts, data), choices=choices)
    assert [question.name for question in found.questions if question.kind in ("binary", "pairwise")] == ["ok"]
    assert [label.values.get("ok") for label in found.labels] == said
    unread = [text for text, value in zip(texts, said, strict=True) if value is None]
    assert [label.comment for label in found.labels if not label.values] == unread
    assert found.notes[NOT_READ.format("ok")] == len(unread)


@pytest.mark.parametrize("shape", ["minimal", "wire"])
def test_choices_of_which_none_is_read_are_an_error_and_not_written(export: Any, shape: str) -> None:
    with pytest.raises(DataError) as caught:
        export(*records(shape, "ok", ("toxic", "fine", "toxic", "Fine"), JUDGED))
    assert (caught.value.hint or "").startswith("ok: --value")


@pytest.mark.parametrize("shape", ["minimal", "wire"])
def test_written_texts_that_say_yes_now_and_then_are_written(export: Any, shape: str) -> None:
    texts = ("Yes.", "It is.", "no", "Only 1 and 7 divide it.", "yes", "0", "Seven is prime.")
    found = export(*records(shape, "reply", texts, JUDGED))
    assert values(found) == [{"reply": text} for text in texts]
    assert found.notes == {WRITTEN.format("reply"): 4}


def test_a_question_that_somebody_left_open_is_still_answered_by_others(export: Any) -> None:
    rows = records("wire", "reply", ("It is.", "Seven is."), PROMPT)
    rows[0]["responses"].append(response("u9", reply=None))
    found = export(*rows)
    assert values(found) == [{"reply": "It is."}, {"reply": "Seven is."}, {}]
    assert found.notes == {EMPTY_SKIPPED: 1}
    found = export(
        *records("minimal", "reply", ("It is.", "Seven is."), PROMPT), minimal(PROMPT, {"reply": ["a", "b"]})
    )
    assert values(found) == [{"reply": "It is."}, {"reply": "Seven is."}, {}]


def test_a_text_of_one_annotator_for_one_task_counts_once(export: Any) -> None:
    rows = records("minimal", "reply", ("It is.", "Seven is."), PROMPT)
    assert values(export(*rows, *rows)) == [{"reply": "It is."}, {"reply": "Seven is."}]


def test_a_control_called_comment_holds_remarks_whatever_it_is(export: Any) -> None:
    better = result("better", "prompt", "choices", {"choices": ["left"]})
    odd: list[tuple[str, Any, str]] = [
        ("choices", ["tie"], "tie"),
        ("choices", ["left", "odd"], "left\nodd"),
        ("rating", 4, ""),
        ("number", 1, ""),
        ("ranker", ["text1", "text2"], ""),
    ]
    for kind, said, comment in odd:
        remark = result("comment", "prompt", kind, {kind: said})
        for row in (
            task(PAIR, annotation(better, remark)),
            minimal(PAIR, {"better": "left", "comment": [remark["value"]]}),
        ):
            found = export(row)
            assert (values(found), found.labels[0].comment) == ([{"better": (1, 2)}], comment)
            assert found.notes == ({} if comment else {NOT_READ.format("comment"): 1})
    for said in (4, [{"rank": 1, "value": "text1"}, {"rank": 2, "value": "text2"}], ["text1", "text2"]):
        found = export(wire(response(USERS[0], better="left", comment=said), fields=PAIR))
        assert (values(found), found.notes) == ([{"better": (1, 2)}], {NOT_READ.format("comment"): 1})


def test_a_tie_overrules_an_answer_only_by_its_name(export: Any) -> None:
    def both(control: str) -> Any:
        return export(*(minimal(PAIR, {"pw": [{"selected": "left"}], control: "same"}, annotator=by) for by in (1, 2)))

    assert values(both("pw_tie")) == [{"pw": (1, 1)}] * 2
    assert values(both("why")) == [{"pw": (1, 2)}] * 2
    assert [label.comment for label in both("why").labels] == ["same", "same"]


def test_a_remark_that_reads_like_a_choice_overrules_none(export: Any) -> None:
    marks = [{"pw": [{"selected": "left"}], "why": text} for text in ("it is short", "same", "because")]
    found = export(*(minimal(PAIR, mark, annotator=by) for by, mark in enumerate(marks)))
    assert values(found) == [{"pw": (1, 2)}] * 3
    assert [label.comment for label in found.labels] == ["it is short", "same", "because"]


def test_an_answer_that_is_chosen_and_rated_names_its_record_and_annotator(export: Any) -> None:
    with pytest.raises(DataError, match="10's answers: `good_2` judges one answer by a choice") as caught:
        export(minimal(PAIR, {"good_1": [{"rating": 3}], "good_2": "yes"}))
    assert (caught.value.where or "").endswith(":row 1")


def test_what_comes_home_without_its_tasks_says_what_is_missing_and_where_it_is(export: Any) -> None:
    home = {"rlhf": {"task": next(iter(sent().tasks)), "order": []}}
    assert "--tasks FILE" in BARE
    twice = [minimal(PROMPT | home, {"overall": text}, annotator=text) for text in ("Hello!", "Hi!")]
    assert export(*twice).notes == {BARE: 1}
    found = export(*twice, tasks=sent())
    assert (found.notes, [task.source for task in found.tasks.values()]) == ({}, ["s"])
    assert export(*twice, tasks=LabelSet(sent().questions, {}, [])).notes == {ADRIFT: 1}
    with pytest.raises(DataError) as caught:
        export(task(PROMPT | home))
    assert "give --tasks the file that was sent out" in (caught.value.hint or "")
