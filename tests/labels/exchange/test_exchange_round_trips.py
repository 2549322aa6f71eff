"""Tasks go out and come home: the same tasks, the same order of answers, and the labels that the format can hold."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.data.rows import Message
from pipelines.errors import DataError
from pipelines.labels.exchange import argilla, label_config
from pipelines.labels.exchange import label_studio as label_studio_out
from pipelines.labels.exchange.gather import ReadingOptions
from pipelines.labels.exchange.label_files import read_labels
from pipelines.labels.label_types import Answer, Label, LabelSet, Question, Task
from pipelines.labels.questions import parse_questions
from tests.examples import examples
from tests.labels.exchange.exports import USERS, response

QUIET = settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)
TURNS = st.builds(
    lambda system, first, rest: (
        *([Message(role="system", content=system)] if system else []),
        Message(role="user", content=first),
        *(
            Message(role=role, content=text)
            for pair in rest
            for role, text in zip(("assistant", "user"), pair, strict=True)
        ),
    ),
    st.none() | TEXT,
    TEXT,
    st.lists(st.tuples(TEXT, TEXT), max_size=2),
)
ASKED = (
    Question("overall", "ranking", ""),
    Question("safe", "binary", ""),
    Question("clear", "scale", "", points=7),
)


@st.composite
def label_sets(draw: st.DrawFn, count: int = 0) -> LabelSet:
    """Tasks with distinct answers and labels without ties; `count` answers each, or 2 to 4."""
    tasks: dict[str, Task] = {}
    labels = []
    for number, prompt in enumerate(draw(st.lists(TURNS, min_size=1, max_size=3))):
        texts = draw(st.lists(TEXT, min_size=count or 2, max_size=count or 4, unique=True))
        model = draw(st.none() | st.just("secret/model"))
        task = Task((*prompt[:-1], prompt[-1]), tuple(Answer(text, model) for text in texts), source=f"round-{number}")
        if task.id in tasks:
            continue
        tasks[task.id] = task
        order = label_studio_out.drawn_order(task, 5)
        for name in draw(st.lists(st.sampled_from(["ann@x.org", "bob@x.org"]), unique=True)):
            many = len(texts)
            values: dict[str, Any] = {
                "overall": tuple(draw(st.permutations(range(1, many + 1)))),
                "safe": tuple(draw(st.integers(0, 1)) for _ in texts),
                "clear": tuple(draw(st.integers(1, 7)) for _ in texts),
            }
            skipped = draw(st.booleans())
            seconds, comment = draw(st.floats(0.1, 99)), "" if skipped else draw(st.just("") | TEXT)
            label = Label(task.id, name, {} if skipped else values, order, seconds, skipped, comment=comment)
            labels.append(replace(label, time="2026-11-21T18:00:00Z"))
    return LabelSet(ASKED, tasks, labels)


def home(path: Path, text: str, sent: LabelSet | None) -> LabelSet:
    path.write_text(text)
    return read_labels(path, ReadingOptions(tasks=sent))


@QUIET
@given(found=label_sets())
def test_label_studio_brings_everything_home_with_the_tasks_beside_it(found: LabelSet, tmp_path: Path) -> None:
    text, _ = label_studio_out.tasks(found, 5, with_labels=True)
    back = home(tmp_path / "export.json", text, found)
    assert back.tasks == found.tasks
    assert back.labels == found.labels
    assert back.questions == found.questions


@QUIET
@given(found=label_sets())
def test_label_studio_alone_brings_all_but_the_models_home(found: LabelSet, tmp_path: Path) -> None:
    text, lost = label_studio_out.tasks(found, 5, with_labels=True)
    assert "secret/model" not in text
    answered = [label for label in found.labels if not label.skipped]
    if not answered:
        with pytest.raises(DataError, match="no annotation"):
            home(tmp_path / "export.json", text, None)
        return
    back = home(tmp_path / "export.json", text, None)
    bare = {
        task.id: replace(task, answers=tuple(Answer(answer.text) for answer in task.answers), source=None)
        for task in found.tasks.values()
    }
    assert back.tasks == bare
    assert [(label.task, label.annotator, label.order) for label in back.labels] == [
        (label.task, label.annotator, label.order) for label in found.labels
    ]
    assert [dict(label.values) for label in back.labels] == [dict(label.values) for label in found.labels]
    models = sum(any(answer.model for answer in task.answers) for task in found.tasks.values())
    assert lost == {label_studio_out.SOURCES: len(found.tasks)} | ({label_studio_out.MODELS: models} if models else {})


def test_ties_of_one_question_leave_those_of_another_alone_though_nothing_tells_the_questions(tmp_path: Path) -> None:
    task = Task((Message(role="user", content="Hi?"),), (Answer("a"), Answer("b")))
    asked = (Question("helpful", "pairwise", ""), Question("kind", "pairwise", ""))
    labels = [Label(task.id, "ann", {"helpful": (1, 1), "kind": (2, 1)}), Label(task.id, "bob", {"helpful": (1, 1)})]
    text, _ = label_studio_out.tasks(LabelSet(asked, {task.id: task}, labels), 5, with_labels=True)
    back = home(tmp_path / "export.json", text, None)
    assert [dict(label.values) for label in back.labels] == [dict(label.values) for label in labels]


def test_label_studio_says_what_it_cannot_hold_or_must_not_see() -> None:
    prompt = (Message(role="user", content="Hi?"),)
    task = Task(prompt, (Answer("a", "m"), Answer("b", "m")), control={"overall": (1, 2)})
    tied = Label(task.id, "ann", {"overall": (1, 1)}, flagged=True)
    other = Label(task.id, "bob", {"overall": (2, 1)}, order=(0, 1), flagged=True, simulated=True)
    found = LabelSet(ASKED[:1], {task.id: task}, [tied, other])
    seed = next(seed for seed in range(9) if label_studio_out.drawn_order(task, seed) == (1, 0))
    text, lost = label_studio_out.tasks(found, seed, with_labels=True)
    assert lost == {
        label_studio_out.MODELS: 1,
        label_studio_out.CONTROLS: 1,
        label_studio_out.TIES: 1,
        label_studio_out.ORDERS: 1,
        label_studio_out.FLAGS: 1,
        label_studio_out.SIMULATED: 1,
    }
    (row,) = json.loads(text)
    assert [item["body"] for item in row["data"]["items"]] == ["b", "a"]
    assert len(row["annotations"]) == 1
    assert label_studio_out.tasks(found, 0)[1][label_studio_out.LABELS] == 2


def test_pairwise_comes_home_with_its_ties(tmp_path: Path) -> None:
    prompt = (Message(role="user", content="Hi?"),)
    task = Task(prompt, (Answer("a"), Answer("b")))
    given = {"ann": (1, 2), "bob": (2, 1), "cy": (1, 1)}
    labels = [Label(task.id, name, {"better": value}) for name, value in given.items()]
    found = LabelSet((Question("better", "pairwise", ""),), {task.id: task}, labels)
    for seed in range(4):
        back = home(tmp_path / "export.json", label_studio_out.tasks(found, seed, with_labels=True)[0], None)
        assert {label.annotator: label.values["better"] for label in back.labels} == given
        assert back.questions[0].kind == "pairwise"


@QUIET
@given(found=label_sets(), data=st.data())
def test_argilla_brings_rankings_with_ties_home(found: LabelSet, data: st.DataObject, tmp_path: Path) -> None:
    text, _ = argilla.records(found, 5)
    assert "secret/model" not in text
    records = json.loads(text)
    expected = []
    for record, task in zip(records, found.tasks.values(), strict=True):
        order = label_studio_out.drawn_order(task, 5)
        ranks = data.draw(st.lists(st.integers(1, 2), min_size=len(order), max_size=len(order)))
        ranks[0] = 1
        said = [{"value": f"response_{place}", "rank": rank} for place, rank in enumerate(ranks, 1)]
        record["responses"] = [response(USERS[0], overall=said)]
        dense = sorted(set(ranks))
        expected.append(tuple(dense.index(ranks[order.index(index)]) + 1 for index in range(len(order))))
    back = home(tmp_path / "records.json", json.dumps(records), found)
    assert back.tasks == found.tasks
    assert [label.values["overall"] for label in back.labels] == expected


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("numbers", [(0, 0), (1, 1), (0, 1)])
def test_argilla_brings_zero_and_one_home_as_they_were_given(
    numbers: tuple[int, int], beside: bool, tmp_path: Path
) -> None:
    task = Task((Message(role="user", content="Hi?"),), (Answer("a"), Answer("b")))
    found = LabelSet((ASKED[1],), {task.id: task}, [])
    records = json.loads(argilla.records(found, 0)[0])
    records[0]["responses"] = [response(USERS[0], safe_1=numbers[0], safe_2=numbers[1])]
    back = home(tmp_path / "records.json", json.dumps(records), found if beside else None)
    order = label_studio_out.drawn_order(task, 0)
    assert [label.values["safe"] for label in back.labels] == [tuple(numbers[order.index(index)] for index in (0, 1))]
    assert back.question("safe").kind == "binary"


def test_numbers_of_a_question_that_was_sent_out_are_never_shifted(tmp_path: Path) -> None:
    task = Task((Message(role="user", content="Hi?"),), (Answer("a"), Answer("b")))
    found = LabelSet((ASKED[2],), {task.id: task}, [])
    records = json.loads(argilla.records(found, 0)[0])
    for numbers, fault in (((1, 1), None), ((0, 1), "from 1 to 7"), ((0, 3), "from 1 to 7"), ((1, 8), "from 1 to 7")):
        records[0]["responses"] = [response(USERS[0], clear_1=numbers[0], clear_2=numbers[1])]
        if fault:
            with pytest.raises(DataError, match=fault):
                home(tmp_path / "records.json", json.dumps(records), found)
        else:
            assert home(tmp_path / "records.json", json.dumps(records), found).labels[0].values == {"clear": (1, 1)}


def test_answers_that_were_changed_are_refused(tmp_path: Path) -> None:
    task = Task((Message(role="user", content="Hi?"),), (Answer("a"), Answer("b")))
    found = LabelSet(ASKED[:1], {task.id: task}, [])
    text = label_studio_out.tasks(found, 0)[0].replace('"body": "a"', '"body": "c"')
    with pytest.raises(DataError, match="other answers now than"):
        home(tmp_path / "export.json", text, found)


@pytest.mark.parametrize(
    "asked",
    [
        ["overall:ranking"],
        ['better:pairwise:Which is <better> & "nicer"?'],
        ["safe:binary"],
        ["clear:scale7", "safe:binary", "overall:ranking"],
        ["reply:demonstration"],
    ],
)
def test_configurations_are_xml_whose_controls_point_at_what_is_there(asked: list[str]) -> None:
    questions = parse_questions(asked)
    root = ElementTree.fromstring(label_config.config(questions, 2))
    tags = list(root.iter())
    names = [tag.get("name") for tag in tags if tag.get("name")]
    assert len(set(names)) == len(names)
    targets = [target for tag in tags for target in (tag.get("toName") or "").split(",") if target]
    assert set(targets) <= set(names)
    data = label_studio_out.tasks(_one_task(questions), 0)[0]
    fields = {tag.get("value", "")[1:] for tag in tags if tag.get("value", "").startswith("$")}
    assert fields <= json.loads(data)[0]["data"].keys()


def test_results_come_from_the_controls_of_the_configuration() -> None:
    """What `tasks` writes as results names controls, kinds and choices of the configuration."""
    for asked in (["better:pairwise"], ["clear:scale3", "safe:binary", "overall:ranking"], ["reply:demonstration"]):
        questions = parse_questions(asked)
        tags = {tag.get("name"): tag for tag in ElementTree.fromstring(label_config.config(questions, 2)).iter()}
        found = _one_task(questions)
        rows = json.loads(label_studio_out.tasks(found, 0, with_labels=True)[0])
        results = [result for one in rows[0]["annotations"] for result in one["result"]]
        assert results
        for result in results:
            tag = tags[result["from_name"]]
            assert tag.tag.lower() == result["type"]
            if result["type"] == "choices":
                assert set(result["value"]["choices"]) <= {choice.get("alias") for choice in tag}
            elif result["type"] != "pairwise":
                assert result["to_name"] == tag.get("toName")


def _one_task(questions: tuple[Question, ...]) -> LabelSet:
    writing = questions[0].kind == "demonstration"
    task = Task((Message(role="user", content="Hi?"),), () if writing else (Answer("a"), Answer("b")))
    usual: dict[str, Any] = {"demonstration": "Hello.", "binary": (0, 1), "scale": (1, 3)}
    values = {question.name: usual.get(question.kind, (1, 2)) for question in questions}
    labels = [Label(task.id, "ann", values, comment="so")]
    if questions[0].kind == "pairwise":
        labels.append(Label(task.id, "bob", {questions[0].name: (1, 1)}))
    return LabelSet(questions, {task.id: task}, labels)
