"""Rows and tasks files as tasks to be judged, and rows as controls."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.errors import DataError
from pipelines.labels.label_types import Answer, LabelSet, Task
from pipelines.labels.questions import default_question, parse_questions
from pipelines.labels.store.records import Settings, Submission
from pipelines.labels.store.store import LabelStore
from pipelines.labels.task_sources import control_tasks, open_source
from pipelines.labels.tasks_file import write_tasks
from tests.recorders import Recorder


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def opened(folder: Path, *rows: dict[str, Any]) -> LabelSet:
    return open_source(Source(path=str(write(folder, *rows))))


def comparisons(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(count)]


@pytest.mark.parametrize(
    ("row", "kind", "answers"),
    [
        ({"prompt": "q", "chosen": "b", "rejected": "a"}, "pairwise", 2),
        ({"prompt": "q", "completion": "a", "label": True}, "binary", 1),
        ({"prompt": "q"}, "demonstration", 0),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "demonstration", 1),
    ],
)
def test_every_kind_of_row_is_a_task(tmp_path: Path, row: dict[str, Any], kind: str, answers: int):
    found = opened(tmp_path, row)
    [task] = found.tasks.values()
    assert [(one.name, one.kind) for one in found.questions] == [("overall", kind)]
    assert (task.prompt[-1].content, len(task.answers)) == ("q", answers)
    assert all(answer.model is None for answer in task.answers)


def test_the_chosen_answer_is_not_always_at_the_same_place(tmp_path: Path):
    found = opened(tmp_path, *comparisons(200))
    first = Counter(task.answers[0].text.split()[0] for task in found.tasks.values())
    assert 70 < first["good"] < 130
    assert found.tasks.keys() == opened(tmp_path, *reversed(comparisons(200))).tasks.keys()


def test_a_draft_is_the_last_answer_of_a_dialogue(tmp_path: Path):
    turns = ("user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(turns)]
    [task] = opened(tmp_path, {"messages": messages}).tasks.values()
    assert [turn.content for turn in task.prompt] == ["user 0", "assistant 1", "user 2"]
    assert task.answers[0].text == "assistant 3"


@pytest.mark.parametrize(("answers", "kind"), [("ab", "pairwise"), ("abc", "ranking"), ("a", "binary")])
def test_tasks_without_questions_get_one_that_suits(tmp_path: Path, answers: str, kind: str):
    task = {"prompt": [{"role": "user", "content": "q"}], "answers": [{"text": text} for text in answers]}
    found = opened(tmp_path, {"rlhf": "tasks", "version": 1}, task)
    assert found.questions[0].kind == kind
    asked = {"rlhf": "tasks", "version": 1, "questions": [{"name": "mine", "kind": "scale", "text": "?"}]}
    assert opened(tmp_path, asked, task).questions[0].name == "mine"


def test_faults_have_their_place(tmp_path: Path):
    with pytest.raises(DataError) as error:
        opened(tmp_path, *comparisons(2), {"prompt": "q", "chosen": "x"})
    assert str(error.value.where).endswith("rows.jsonl:3")
    with pytest.raises(DataError, match="no task"):
        opened(tmp_path, {"rlhf": "tasks", "version": 1})
    with pytest.raises(DataError, match="no such data file"):
        open_source(Source(path=str(tmp_path / "gone.jsonl")))


def test_bad_rows_are_left_out_on_request(tmp_path: Path):
    text = {"text": "nobody asked"}
    path = write(tmp_path, *comparisons(2), {"prompt": "q", "chosen": "x"}, *comparisons(3)[2:])
    told = Recorder()
    assert len(open_source(Source(path=str(path)), on_bad_row="drop", reporter=told).tasks) == 3
    assert ["1 of 4 rows" in warning for warning in told.warned] == [True]
    path = write(tmp_path, text)
    with pytest.raises(DataError, match="no task"):
        open_source(Source(path=str(path)), on_bad_row="drop")


def test_comparisons_as_controls(tmp_path: Path):
    questions = parse_questions(["overall:ranking", "better:pairwise", "polite:scale"])
    tasks = control_tasks(write(tmp_path, *comparisons(40)), questions)
    for task in tasks:
        best = ["good" in answer.text for answer in task.answers].index(True)
        known = tuple(1 if place == best else 2 for place in range(2))
        assert task.control == {"overall": known, "better": known}
    assert len({task.answers[0].text.split()[0] for task in tasks}) == 2


def test_a_control_is_another_task_than_the_same_one_to_be_judged(tmp_path: Path):
    path = write(tmp_path, *comparisons(5))
    ordinary = open_source(Source(path=str(path))).tasks
    controls = control_tasks(path, parse_questions(["a:pairwise"]))
    assert not ordinary.keys() & {task.id for task in controls}
    assert {len(task.id) for task in controls} == {len(key) for key in ordinary}


def test_judgements_as_controls(tmp_path: Path):
    row = {"prompt": [{"role": "user", "content": "q"}], "completion": "a"}
    both = parse_questions(["good:binary", "x:scale"])
    assert control_tasks(write(tmp_path, {**row, "label": True}), both)[0].control == {"good": (1,)}
    assert control_tasks(write(tmp_path, {**row, "label": 1.0}), both)[0].control == {"x": (1,)}
    assert control_tasks(write(tmp_path, {**row, "label": 0.0}), both[:1])[0].control == {"good": (0,)}
    path = write(tmp_path, {**row, "label": 4.0})
    assert control_tasks(path, parse_questions(["x:scale"]))[0].control == {"x": (4,)}
    with pytest.raises(DataError, match="from 0 to 1"):
        control_tasks(path, parse_questions(["good:binary"]))
    with pytest.raises(DataError, match="whole number"):
        control_tasks(write(tmp_path, {**row, "label": 2.5}), parse_questions(["x:scale"]))


HEADER = {"rlhf": "tasks", "version": 1}
RANKING = {"name": "overall", "kind": "ranking", "text": "?"}


def task_row(*answers: str, **more: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": "q"}]
    return {"prompt": prompt, "answers": [{"text": text, "model": "m"} for text in answers], **more}


def test_tasks_as_controls_have_any_number_of_answers(tmp_path: Path):
    asked = parse_questions(["overall:ranking", "polite:scale", "good:binary"])
    rows = [
        HEADER,
        task_row("a", "b", "c", id="control-1", control={"overall": [2, 1, 2], "polite": [1, 5, 3]}),
        task_row("a", "b", "c", "d", control={"good": [0, 1, 1, 0]}),
        task_row("a", "b"),
    ]
    three, four = control_tasks(write(tmp_path, *rows), asked)
    assert three.control == {"overall": (2, 1, 2), "polite": (1, 5, 3)}
    assert four.control == {"good": (0, 1, 1, 0)}
    assert [answer.text for answer in three.answers] == ["a", "b", "c"]
    assert not any(word in three.id for word in ("control", "1-"))
    ordinary = opened(tmp_path, HEADER, task_row("a", "b", "c"))
    assert three.id not in ordinary.tasks


def test_the_controls_that_the_docs_show(tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs" / "label-page.md").read_text()
    path = tmp_path / "controls.jsonl"
    path.write_text(text.partition("```json\n")[2].partition("```")[0])
    [task] = control_tasks(path, [default_question("overall", "ranking")])
    assert task.control is not None
    best = [task.answers[task.control["overall"].index(rank)].text for rank in (1, 2)]
    assert best == ["Lyon is one.", "Paris."]


def test_a_file_taken_from_a_store_gives_its_controls_as_they_were(tmp_path: Path):
    asked = parse_questions(["overall:pairwise"])
    first = control_tasks(write(tmp_path, *comparisons(5)), asked)
    path = tmp_path / "labels.sqlite"
    with LabelStore.create(path, Settings("t", asked)) as store:
        store.add_tasks([*first, Task(first[0].prompt, (Answer("x"), Answer("y")))])
        store.add_annotator("ann")
        given = store.next_task("ann")
        assert given is not None
        store.submit("ann", given.task.id, Submission({"overall": (1, 1)}, key="key-1", version=given.version))
        write_tasks(tmp_path / "taken.jsonl", store.snapshot())
    assert control_tasks(tmp_path / "taken.jsonl", asked) == first


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        ([task_row("a", "b", control={"overall": [2, 1]}), task_row("a", control={})], 3, "2 or more answers, not 1"),
        ([task_row("a", "b", control={})], 2, "known value of at least one"),
        ([task_row("a", "b", "c", control={"overall": [2, 1]})], 2, "`overall`: it must hold 3 numbers"),
        ([task_row("a", "b", control={"overall": [1, 3]})], 2, "leave none out"),
        ([task_row("a", "b", control={"better": [1, 2]})], 2, "no question is named `better`"),
        (
            [task_row("a", "b", control={"overall": [1, 2]}), task_row("a", "b", control={"overall": [2, 1]})],
            3,
            "anoth",
        ),
        ([task_row("a", "b", control={"overall": "x"})], 2, "control.overall"),
        ([task_row("a", "b")], None, "holds none"),
    ],
)
def test_a_control_that_answers_nothing_of_what_is_asked(
    tmp_path: Path, rows: list[dict[str, Any]], line: int | None, words: str
):
    path = write(tmp_path, HEADER, *rows)
    with pytest.raises(DataError, match=words) as error:
        control_tasks(path, [default_question("overall", "ranking")])
    assert error.value.where == (f"{path}:{line}" if line else str(path))


def test_a_control_to_a_question_that_means_something_else(tmp_path: Path):
    """The best rank is the lowest point: the same numbers would say the opposite."""
    path = write(tmp_path, HEADER | {"questions": [RANKING]}, task_row("a", "b", control={"overall": [1, 2]}))
    assert control_tasks(path, parse_questions(["overall:pairwise"]))
    for other in ("overall:scale", "overall:binary"):
        with pytest.raises(
            DataError, match=r"the file asks overall \(ranking\), another thing than is asked now"
        ) as error:
            control_tasks(path, parse_questions([other]))
        assert error.value.where == f"{path}:1"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "q"}, "does not say which answer is right"),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "same text"),
        ({"prompt": "q", "completion": "a", "label": True}, "answers none of the questions"),
    ],
)
def test_what_is_no_control(tmp_path: Path, row: dict[str, Any], words: str):
    with pytest.raises(DataError, match=words) as error:
        control_tasks(write(tmp_path, row), [default_question("overall", "ranking")])
    assert str(error.value.where).endswith("rows.jsonl:1")
