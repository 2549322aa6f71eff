"""Settings, tasks and annotators."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.data.rows import Message
from pipelines.errors import ConflictError, DataError, UsageError
from pipelines.labels.exchange.label_files import read_labels
from pipelines.labels.label_types import Answer, LabelSet, Question, Task
from pipelines.labels.store.records import Invalid, NotAssigned, Paused, Settings, Submission
from pipelines.labels.store.store import LabelStore
from pipelines.labels.tasks_file import write_tasks
from tests.labels.store.support import OVERALL, answer, control_of, give, settings_of, store_of, task_of


def test_settings_are_kept_and_may_change_except_for_the_questions(folder: Path) -> None:
    path = folder / "new" / "labels.sqlite"
    LabelStore.create(path, settings_of()).close()
    changed = Settings("Another title", (OVERALL,), "Other guidelines", 3, 0.25, 8)
    LabelStore.create(path, changed).close()
    with LabelStore.open(path) as store:
        assert store.settings == changed


def test_a_store_that_is_only_just_made_has_no_settings(folder: Path) -> None:
    path = folder / "labels.sqlite"
    with LabelStore.open(path, make=True) as store:
        assert not store.is_set_up
        with pytest.raises(DataError, match="never set up"):
            assert store.settings

        def set_up_with_a_task_that_does_not_fit() -> None:
            with store.batch():
                store.settings = settings_of(share=0.2)
                store.add_tasks([task_of("a", answers=1)])

        with pytest.raises(DataError):
            set_up_with_a_task_that_does_not_fit()
        assert not store.is_set_up, "settings are part of the batch"
        store.settings = settings_of(share=0.2)
    with LabelStore.open(path, make=True) as store:
        assert store.is_set_up
        assert store.settings == settings_of(share=0.2)


def test_how_many_answers_there_are_to_what_is_handed_out(folder: Path) -> None:
    with store_of(folder, tasks=2, controls=1) as store:
        store.add_tasks([task_of("five", 5), task_of("two", 2, {"overall": (1, 2)})])
        assert store.answer_counts() == {3, 5}
        assert store.answer_counts(control=True) == {2, 3}
        store.keep_tasks(tasks={"five"}, controls={"two"})
        assert (store.answer_counts(), store.answer_counts(control=True)) == ({5}, {2})


def test_other_questions_are_refused_once_there_are_answers(folder: Path) -> None:
    tone = Question("tone", "scale", "How kind?", points=7, low="rude", high="kind", required=False)
    with store_of(folder) as store:
        with LabelStore.create(store.path, settings_of(questions=(OVERALL, tone))) as other:
            assert other.settings.questions == (OVERALL, tone)
        LabelStore.create(store.path, settings_of()).close()
        give(store, "anna")
        reworded = Question("overall", "ranking", "Which is worse?")
        with pytest.raises(ConflictError, match=r"text of `overall` was 'Which is better\?' and is 'Which is worse\?'"):
            LabelStore.create(store.path, settings_of(questions=(reworded,)))
        with pytest.raises(ConflictError, match="`tone` is new"):
            LabelStore.create(store.path, settings_of(questions=(OVERALL, tone)))
        with pytest.raises(ConflictError, match="`overall` is missing; `tone` is new"):
            LabelStore.create(store.path, settings_of(questions=(tone,)))
        assert store.settings.questions == (OVERALL,)


def test_other_questions_must_fit_the_tasks_that_are_there(folder: Path) -> None:
    with store_of(folder) as store, pytest.raises(DataError, match="needs 2 answers, not 3") as error:
        LabelStore.create(store.path, settings_of(questions=(Question("overall", "pairwise", "Which?"),)))
    assert "new label store" in str(error.value.hint)


@pytest.mark.parametrize(
    "settings",
    [
        settings_of(overlap=0),
        settings_of(share=0.6),
        settings_of(share=float("nan")),
        settings_of(questions=()),
        settings_of(questions=(OVERALL, OVERALL)),
    ],
)
def test_settings_that_are_none(folder: Path, settings: Settings) -> None:
    with pytest.raises(DataError):
        LabelStore.create(folder / "labels.sqlite", settings)


def test_tasks_are_added_once(folder: Path) -> None:
    with store_of(folder, tasks=2) as store:
        assert store.add_tasks([task_of("t1"), task_of("t2"), task_of("t2")]) == 1
        assert store.add_tasks([]) == 0
        assert list(store.snapshot().tasks) == ["t0", "t1", "t2"]
        assert store.snapshot().tasks["t2"] == task_of("t2")


def test_a_task_keeps_everything(folder: Path) -> None:
    call = {"name": "look", "arguments": {"at": ["é", 1, None]}}
    prompt = (
        Message(role="system", content="Be brief.", tools=({"name": "look"},)),
        Message(role="user", content="Naïve\x00 “ask” \u202e\U0001f600"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="{}"),
    )
    task = Task(prompt, (Answer("", None), Answer("b\n\t", "org/model"), Answer("c", "m")), {"overall": (2, 1, 1)})
    with store_of(folder, tasks=0) as store:
        store.add_tasks([task])
        assert store.snapshot().tasks == {task.id: task}


def test_another_task_of_the_same_id_is_refused(folder: Path) -> None:
    with store_of(folder) as store:
        with pytest.raises(ConflictError, match="other answers"):
            store.add_tasks([task_of("new"), task_of("t1", answers=4)])
        with pytest.raises(ConflictError, match="known value"):
            store.add_tasks([control_of("t1")])
        assert "new" not in store.snapshot().tasks


@pytest.mark.parametrize(
    ("kind", "answers", "fits"),
    [
        ("pairwise", 1, False),
        ("pairwise", 2, True),
        ("pairwise", 3, False),
        ("ranking", 1, False),
        ("ranking", 2, True),
        ("binary", 0, False),
        ("binary", 1, True),
        ("scale", 0, False),
        ("scale", 5, True),
        ("demonstration", 0, True),
        ("demonstration", 1, True),
        ("demonstration", 2, False),
    ],
)
def test_tasks_must_fit_the_questions(folder: Path, kind: str, answers: int, fits: bool) -> None:
    with LabelStore.create(folder / "labels.sqlite", settings_of(questions=(Question("q", kind, "?"),))) as store:  # type: ignore[arg-type]
        if fits:
            assert store.add_tasks([task_of("t", answers)]) == 1
        else:
            with pytest.raises(DataError, match="`q` of kind"):
                store.add_tasks([task_of("t", answers)])


@pytest.mark.parametrize("control", [{}, {"overall": (1, 2)}, {"overall": (1, 3, 3)}, {"other": (1, 2, 3)}])
def test_known_values_must_answer_a_question(folder: Path, control: dict[str, tuple[int, ...]]) -> None:
    with store_of(folder) as store, pytest.raises(DataError, match="control"):
        store.add_tasks([task_of("c", control=control)])


def test_tasks_that_are_no_text_or_no_dialogue(folder: Path) -> None:
    broken = Task((Message(role="user", content="a"),), (Answer("\ud800"), Answer("b"), Answer("c")), id="broken")
    blank = Task((Message(role="user", content=" "),), (Answer("a"), Answer("b"), Answer("c")), id="blank")
    with store_of(folder) as store:
        for task in (broken, blank):
            with pytest.raises(DataError):
                store.add_tasks([task])


@pytest.mark.parametrize("name", ["", "a/b", "a?b", "a#b", "a b", "é", "a\n", ".", "..", "x" * 65, "\ud800"])
def test_an_id_that_is_no_part_of_an_address(folder: Path, name: str) -> None:
    task = task_of("t")
    object.__setattr__(task, "id", name)  # a task makes an id of its own where it is given none
    with store_of(folder, tasks=0) as store:
        with pytest.raises(DataError, match="the id of a task"):
            store.add_tasks([task])
        assert store.add_tasks([task_of("x" * 64), task_of("org.Model_1-b"), task_of("7")]) == 3


def test_what_other_programs_exported_is_let_in(folder: Path) -> None:
    # Their own ids, which may be anything, are not taken over.
    data = {"prompt": "Which?", "text1": "a", "text2": "b"}
    chosen = {"from_name": "overall", "to_name": "t", "type": "pairwise", "value": {"selected": "left"}}
    row = {"id": "7/#?" * 30, "data": data, "annotations": [{"id": 1, "completed_by": 3, "result": [chosen]}]}
    (folder / "studio.json").write_text(json.dumps([row]))
    write_tasks(folder / "tasks.jsonl", LabelSet((OVERALL,), {"own-id": task_of("own-id", 2)}, []))
    with store_of(folder, tasks=0) as store:
        for name in ("studio.json", "tasks.jsonl"):
            assert store.add_tasks(read_labels(folder / name).tasks.values()) == 1
        assert "own-id" in store.snapshot().tasks


def test_a_task_has_as_many_answers_as_there_are_letters(folder: Path) -> None:
    with store_of(folder, tasks=0) as store:
        with pytest.raises(DataError, match="27 answers"):
            store.add_tasks([task_of("t", 27)])
        assert store.add_tasks([task_of("t", 26)]) == 1


def test_annotators(folder: Path) -> None:
    with store_of(folder, annotators=("Zoë", "anna")) as store:
        store.add_annotator("anna")
        store.add_annotator("robot", simulated=True)
        assert store.annotators() == ["Zoë", "anna", "robot"]
        with pytest.raises(UsageError, match="only in case"):
            store.add_annotator("ANNA")
        with pytest.raises(ConflictError, match="human"):
            store.add_annotator("anna", simulated=True)
        for name in ("", "  ", "a\nb", "a\u202eb", "\x1b[1m", "x" * 81, "\ud800"):
            with pytest.raises(UsageError):
                store.add_annotator(name)
        give(store, "robot")
        give(store, "anna")
        assert {label.annotator: label.simulated for label in store.snapshot().labels} == {"robot": True, "anna": False}


def test_nobody_of_that_name(folder: Path) -> None:
    with store_of(folder) as store:
        for name in ("carl", "\ud800", ""):
            with pytest.raises(NotAssigned):
                store.next_task(name)
            with pytest.raises(NotAssigned):
                store.submit(name, "t0", answer())
            with pytest.raises(NotAssigned):
                store.undo(name)


def test_a_pause_stops_everybody_and_outlives_the_process(folder: Path) -> None:
    with store_of(folder) as store:
        given, first = give(store, "anna", key="kept")
        begun = store.next_task("anna")
        assert begun is not None
        assert store.paused is False
        store.paused = True
    with LabelStore.open(store.path) as store:
        assert store.paused is True
        with pytest.raises(Paused):
            store.next_task("anna")
        with pytest.raises(Paused):
            store.submit("anna", begun.task.id, answer())
        with pytest.raises(Paused):
            store.undo("anna")
        # The answer was kept, its acknowledgement was lost: the page has to learn that.
        again = store.submit("anna", given.task.id, answer(key="kept"))
        assert again.version == first.version
        assert again.repeated
        store.paused = False
        assert store.next_task("anna") == begun


def test_demonstrations(folder: Path) -> None:
    write = Question("demonstration", "demonstration", "Write the best answer.")
    with LabelStore.create(folder / "labels.sqlite", settings_of(questions=(write,))) as store:
        store.add_annotator("anna")
        store.add_tasks([task_of("edit", 1), task_of("new", 0)])
        for _ in range(2):
            given = store.next_task("anna")
            assert given is not None
            with pytest.raises(Invalid, match="not blank"):
                store.submit("anna", given.task.id, Submission({"demonstration": " "}, key="blank"))
            store.submit(
                "anna", given.task.id, Submission({"demonstration": f"Text\n{given.task.id}"}, key=given.task.id)
            )
        assert {label.task: label.values for label in store.snapshot().labels} == {
            "edit": {"demonstration": "Text\nedit"},
            "new": {"demonstration": "Text\nnew"},
        }
