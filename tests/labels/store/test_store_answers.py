"""Answers, edits, undo, repetitions and conflicts."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pipelines.labels.label_types import Question
from pipelines.labels.store.records import Conflict, Invalid, NotAssigned, Submission
from pipelines.labels.store.store import LabelStore
from tests.labels.store.support import answer, give, settings_of, skip, store_of, task_of


def _standing(store: LabelStore) -> dict[str, tuple[int, ...] | str]:
    return {label.task: label.values.get("overall", ()) for label in store.snapshot().labels}


def test_a_label_is_what_was_submitted(folder: Path) -> None:
    with store_of(folder) as store:
        given = store.next_task("anna")
        assert given is not None
        words = "so \u202e\x00<b>\U0001f600"
        receipt = store.submit("anna", given.task.id, answer(0, (2, 1, 1), seconds=3.25, comment=words, flagged=True))
        assert (receipt.version, receipt.repeated) == (1, False)
        (label,) = store.snapshot().labels
        assert (label.task, label.annotator, label.order) == (given.task.id, "anna", given.order)
        assert (dict(label.values), label.seconds, label.comment) == ({"overall": (2, 1, 1)}, 3.25, words)
        assert (label.flagged, label.skipped, label.simulated) == (True, False, False)
        assert label.time is not None
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", label.time)


def test_an_edit_replaces_the_label_and_keeps_the_order(folder: Path) -> None:
    with store_of(folder) as store:
        given, _ = give(store, "anna", ranks=(1, 2, 3))
        again = store.assignment("anna", given.task.id)
        assert again is not None
        assert again.earlier is not None
        assert (again.version, again.earlier.values, again.order) == (1, {"overall": (1, 2, 3)}, given.order)
        assert store.submit("anna", given.task.id, answer(1, (3, 2, 1))).version == 2
        assert _standing(store) == {given.task.id: (3, 2, 1)}
        assert store.progress().given == 1


def test_the_same_key_is_the_same_answer(folder: Path) -> None:
    with store_of(folder) as store:
        given, first = give(store, "anna", key="same")
        repeated = store.submit("anna", given.task.id, answer(0, key="same"))
        assert (repeated.version, repeated.repeated) == (first.version, True)
        given, _ = give(store, "ben", key="same")
        assert len(store.snapshot().labels) == 2, "keys are those of one annotator"
        other = store.next_task("anna")
        assert other is not None
        with pytest.raises(Invalid, match="another task"):
            store.submit("anna", other.task.id, answer(key="same"))


def test_a_key_that_stands_no_more_gets_no_receipt(folder: Path) -> None:
    with store_of(folder) as store:
        given, _ = give(store, "anna", key="same")
        task, same = given.task.id, answer(0, key="same")
        store.submit("anna", task, answer(1, (1, 1, 1)))
        with pytest.raises(Conflict) as caught:
            store.submit("anna", task, same)
        assert caught.value.label is not None
        assert (caught.value.version, caught.value.label.values) == (2, {"overall": (1, 1, 1)})
        store.undo("anna")
        assert store.submit("anna", task, same).repeated, "the edit was taken back: it stands again"
        store.undo("anna")
        with pytest.raises(Conflict) as caught:
            store.submit("anna", task, same)
        assert (caught.value.version, caught.value.label, caught.value.kept) == (4, None, True)
        assert store.snapshot().labels == []


@pytest.mark.parametrize("other", [{"ranks": (3, 2, 1)}, {"comment": "c"}, {"flagged": True}, {"skipped": True}])
def test_a_key_with_another_answer_gets_no_receipt(folder: Path, other: dict[str, Any]) -> None:
    with store_of(folder) as store:
        given, _ = give(store, "anna", key="same")
        with pytest.raises(Conflict) as caught:
            store.submit("anna", given.task.id, answer(0, key="same", **other))
        assert caught.value.version == 1
        assert _standing(store) == {given.task.id: (1, 2, 3)}


def test_the_same_key_takes_one_answer_back(folder: Path) -> None:
    with store_of(folder) as store:
        given, _ = give(store, "anna", key="same")
        store.submit("anna", given.task.id, answer(1, (3, 2, 1)))
        assert store.undo("anna", "same") == given.task.id, "keys of answers and of undos do not meet"
        assert store.undo("anna", "same") == given.task.id
        assert _standing(store) == {given.task.id: (1, 2, 3)}
        later, _ = give(store, "anna")
        store.paused = True
        assert store.undo("anna", "same") == given.task.id
        store.paused = False
        assert set(_standing(store)) == {given.task.id, later.task.id}
        give(store, "ben")
        assert store.undo("ben", "same") not in (given.task.id, later.task.id)
        assert store.undo("anna", "another") == later.task.id
        for key in ("", "k" * 201, "\ud800"):
            with pytest.raises(Invalid, match="key"):
                store.undo("anna", key)


def test_the_time_of_a_label_adds_up_over_its_versions(folder: Path) -> None:
    def told() -> float | None:
        (label,) = store.snapshot().labels
        assert store.progress().annotators[0].median_seconds == label.seconds
        return label.seconds

    with store_of(folder, tasks=1) as store:
        given, _ = give(store, "anna", seconds=60.0)
        task = given.task.id
        store.submit("anna", task, answer(1, seconds=1.0))
        assert told() == 61
        store.undo("anna")
        assert told() == 60, "the answer that stands again came after 60 s"
        store.undo("anna")
        store.submit("anna", task, answer(4, seconds=2.0))
        assert told() == 63, "what was taken back was time spent on the task, too"
        store.submit("anna", task, answer(5, seconds=None))
        assert told() is None


def test_a_stale_tab_is_told_what_stands(folder: Path) -> None:
    with store_of(folder) as store:
        given, _ = give(store, "anna", ranks=(2, 1, 3))
        for version in (0, 2, -1):
            with pytest.raises(Conflict) as caught:
                store.submit("anna", given.task.id, answer(version, (3, 2, 1)))
            assert (caught.value.version, caught.value.kept) == (1, False)
            assert caught.value.label is not None
            assert caught.value.label.values == {"overall": (2, 1, 3)}
        assert _standing(store) == {given.task.id: (2, 1, 3)}
        store.undo("anna")
        with pytest.raises(Conflict) as caught:
            store.submit("anna", given.task.id, answer(1))
        assert (caught.value.version, caught.value.label) == (2, None)


def test_undo_opens_the_task_again_before_the_one_that_was_begun(folder: Path) -> None:
    with store_of(folder) as store:
        given, _ = give(store, "anna")
        begun = store.next_task("anna")
        assert begun is not None
        assert store.undo("anna") == given.task.id
        assert store.snapshot().labels == []
        again = store.next_task("anna")
        assert again is not None
        assert (again.task.id, again.version, again.earlier, again.order) == (given.task.id, 2, None, given.order)
        assert (again.number, again.done, again.left) == (1, 0, 4)
        store.submit("anna", given.task.id, answer(2))
        after = store.next_task("anna")
        assert after is not None
        assert after.task.id == begun.task.id


def test_undo_after_undo_goes_further_back(folder: Path) -> None:
    with store_of(folder) as store:
        first, _ = give(store, "anna", ranks=(1, 2, 3))
        second, _ = give(store, "anna")
        give(store, "ben")
        store.submit("anna", first.task.id, answer(1, (3, 2, 1)))
        assert store.undo("anna") == first.task.id
        assert _standing(store)[first.task.id] == (1, 2, 3), "an edit gives way to what was there before"
        assert store.undo("anna") == second.task.id
        assert store.undo("anna") == first.task.id
        assert store.undo("anna") is None
        assert [label.annotator for label in store.snapshot().labels] == ["ben"]


def test_undo_of_a_skip(folder: Path) -> None:
    with store_of(folder, tasks=1) as store:
        store.next_task("anna")
        store.submit("anna", "t0", skip())
        assert store.undo("anna") == "t0"
        assert store.next_task("ben") is None
        store.submit("anna", "t0", answer(2))
        assert store.progress().given == 1


def test_who_takes_a_skip_back_gets_the_task_although_others_have_filled_it(folder: Path) -> None:
    with store_of(folder, tasks=3) as store:
        given = store.next_task("anna")
        assert given is not None
        store.submit("anna", given.task.id, skip())
        give(store, "ben")
        assert [label.skipped for label in store.snapshot().labels if label.task == given.task.id] == [True, False]
        assert store.undo("anna") == given.task.id
        again = store.next_task("anna")
        assert again is not None
        assert (again.task.id, again.done, again.left) == (given.task.id, 0, 3)
        store.submit("anna", given.task.id, answer(2))
        assert store.progress().given == 2


def test_every_version_is_kept(folder: Path) -> None:
    with store_of(folder) as store:
        given, _ = give(store, "anna", ranks=(1, 2, 3))
        store.submit("anna", given.task.id, answer(1, (3, 2, 1)))
        store.undo("anna")
        store.submit("anna", given.task.id, answer(3, (1, 1, 1)))
    connection = sqlite3.connect(store.path)
    rows = connection.execute("SELECT version, answer, undoes FROM history ORDER BY id").fetchall()
    ranks = ['{"overall":[1,2,3]}', '{"overall":[3,2,1]}', None, '{"overall":[1,1,1]}']
    assert rows == [(1, ranks[0], None), (2, ranks[1], None), (3, None, 2), (4, ranks[3], None)]
    for statement in ("DELETE FROM history", "UPDATE history SET answer = '{}'"):
        with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
            connection.execute(statement)
    connection.close()


def test_history_lists_own_standing_answers_newest_first(folder: Path) -> None:
    with store_of(folder) as store:
        ids = [give(store, "anna")[0].task.id for _ in range(3)]
        give(store, "ben")
        store.submit("anna", ids[0], answer(1, comment="edited"))
        entries = store.history("anna")
        assert [entry.task.id for entry in entries] == [ids[0], ids[2], ids[1]]
        assert (entries[0].label.comment, entries[0].version) == ("edited", 2)
        assert len(store.history("anna", limit=1)) == 1


def test_only_own_tasks_can_be_answered_and_seen(folder: Path) -> None:
    with store_of(folder) as store:
        given, _ = give(store, "anna")
        for task in (given.task.id, "unknown", "\ud800", ""):
            with pytest.raises(NotAssigned):
                store.submit("ben", task, answer())
            assert store.assignment("ben", task) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer(ranks=(1, 2)), "must hold 3 numbers"),
        (answer(ranks=(1, 3, 3)), "leave none out"),
        (answer(ranks=(0, 1, 2)), "begin at 1"),
        (Submission({"overall": (True, 2, 3)}, key="k"), "whole numbers"),
        (Submission({"overall": "1, 2, 3"}, key="k"), "whole numbers"),
        (Submission({"overall": (1, 2, 3), "more": (1, 2, 3)}, key="k"), "no question is named `more`"),
        (Submission({}, key="k"), "not answered yet: overall"),
        (answer(key=""), "key"),
        (answer(key="k" * 201), "key"),
        (answer(key="\ud800"), "key"),
        (answer(comment="c" * 10_001), "at most 10000"),
        (answer(comment="\udfff"), "half a surrogate pair"),
        (answer(seconds=-1.0), "seconds"),
        (answer(seconds=float("nan")), "seconds"),
        (answer(seconds=float("inf")), "seconds"),
    ],
)
def test_answers_that_do_not_fit(folder: Path, given: Submission, reason: str) -> None:
    with store_of(folder, tasks=1) as store:
        store.next_task("anna")
        with pytest.raises(Invalid, match=reason):
            store.submit("anna", "t0", given)
        assert store.snapshot().labels == []
        assert store.assignment("anna", "t0") == store.next_task("anna")


def test_optional_questions_and_skips(folder: Path) -> None:
    asked = (Question("kind", "binary", "Kind?", required=False), Question("true", "scale", "True?", required=False))
    with LabelStore.create(folder / "labels.sqlite", settings_of(questions=asked)) as store:
        store.add_annotator("anna")
        store.add_tasks([task_of("t0", 2)])
        store.next_task("anna")
        with pytest.raises(Invalid, match="at least one question"):
            store.submit("anna", "t0", Submission({}, key="a"))
        store.submit("anna", "t0", Submission({"true": (5, 1)}, key="b"))
        store.submit("anna", "t0", Submission({"true": (99,), "none": "\n"}, skipped=True, key="c", version=1))
        (label,) = store.snapshot().labels
        assert (label.skipped, dict(label.values)) == (True, {})
