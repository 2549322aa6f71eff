"""Who gets which task, when, and in which order."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from pathlib import Path

import pytest

from pipelines.labels.store.store import LabelStore
from tests.labels.store.support import answer, control_of, give, skip, store_of, task_of, walk


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = time.time()
        monkeypatch.setattr("time.time", lambda: self._now)

    def minutes(self, minutes: float) -> None:
        self._now += 60 * minutes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def _next(store: LabelStore, annotator: str) -> str | None:
    given = store.next_task(annotator)
    return None if given is None else given.task.id


def test_the_same_task_until_it_is_answered(folder: Path) -> None:
    with store_of(folder) as store:
        first = store.next_task("anna")
        assert first is not None
        assert (first.version, first.earlier, first.number, first.done, first.left) == (0, None, 1, 0, 4)
        assert store.next_task("anna") == first
        assert store.assignment("anna", first.task.id) == first
        store.submit("anna", first.task.id, answer())
        second = store.next_task("anna")
        assert second is not None
        assert second.task.id != first.task.id
        assert (second.number, second.done, second.left) == (2, 1, 3)


def test_a_task_of_overlap_one_is_on_one_screen_only(folder: Path) -> None:
    with store_of(folder, tasks=2, annotators=("anna", "ben", "carl")) as store:
        ids = [_next(store, name) for name in ("anna", "ben", "carl")]
        assert sorted(ids[:2]) == ["t0", "t1"]  # type: ignore[type-var]
        assert ids[2] is None


def test_every_task_gets_the_labels_that_are_wanted_from_different_people(folder: Path) -> None:
    people = ("anna", "ben", "carl", "dora")
    with store_of(folder, tasks=6, annotators=people, overlap=3) as store:
        waiting = list(people)
        while waiting:
            waiting = [name for name in waiting if _next(store, name) is not None and give(store, name)]
        found = Counter(label.task for label in store.snapshot().labels)
        assert found == dict.fromkeys((f"t{index}" for index in range(6)), 3)
        assert len({(label.task, label.annotator) for label in store.snapshot().labels}) == 18
        assert [walk(store, name) for name in people] == [[], [], [], []]


def test_begun_tasks_are_finished_before_new_ones_are_begun(folder: Path) -> None:
    with store_of(folder, tasks=5, annotators=("anna", "ben", "carl"), overlap=3) as store:
        first, second, third = [give(store, "anna")[0].task.id for _ in range(3)]
        assert _next(store, "ben") == first
        store.submit("ben", first, skip())
        give(store, "ben")
        # The second task has two labels, the first and the third have one: carl gets them in that order.
        assert walk(store, "carl")[:3] == [second, first, third]


def test_the_order_of_tasks_is_shuffled_by_the_seed(folder: Path) -> None:
    orders = []
    for seed in (1, 1, 2):
        with store_of(folder / str(len(orders)), tasks=20, seed=seed) as store:
            orders.append(walk(store, "anna"))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0], key=lambda name: int(name[1:]))


def test_the_order_of_answers_is_shuffled_per_annotator_and_task_and_stays(folder: Path) -> None:
    with store_of(folder, tasks=60, overlap=2) as store:
        walk(store, "anna")
        walk(store, "ben")
        shown = {(label.annotator, label.task): label.order for label in store.snapshot().labels}
        assert {tuple(sorted(order)) for order in shown.values()} == {(0, 1, 2)}
        assert len(set(shown.values())) == 6
        assert any(shown["anna", task] != shown["ben", task] for task in store.snapshot().tasks)
        for (name, task), order in shown.items():
            given = store.assignment(name, task)
            assert given is not None
            assert given.order == order


def test_who_leaves_blocks_nobody(folder: Path, clock: Clock) -> None:
    with store_of(folder, tasks=1) as store:
        first = store.next_task("anna")
        assert first is not None
        clock.minutes(29)
        assert _next(store, "ben") is None
        clock.minutes(2)
        second = store.next_task("ben")
        assert second is not None
        assert second.left == 1
        assert _next(store, "anna") is None, "it is on the other screen now"
        store.submit("ben", "t0", answer())
        assert _next(store, "anna") is None
        # The work of somebody who comes back is not thrown away.
        store.submit("anna", "t0", answer())
        assert store.progress().given == 2
        assert store.progress().left == 0


def test_a_look_at_the_page_keeps_a_task(folder: Path, clock: Clock) -> None:
    with store_of(folder, tasks=1) as store:
        for _ in range(5):
            assert _next(store, "anna") == "t0"
            clock.minutes(20)
        assert _next(store, "ben") is None


def test_a_skipped_task_goes_to_others_and_does_not_come_back(folder: Path) -> None:
    with store_of(folder, tasks=1, annotators=("anna", "ben", "carl")) as store:
        store.next_task("anna")
        store.submit("anna", "t0", skip())
        assert _next(store, "anna") is None
        assert _next(store, "ben") == "t0"
        store.submit("ben", "t0", answer())
        assert _next(store, "carl") is None
        progress = store.progress()
        assert (progress.given, progress.left, progress.complete) == (1, 0, 1)


def test_an_answer_that_becomes_a_skip_makes_room_and_back(folder: Path) -> None:
    with store_of(folder, tasks=1) as store:
        give(store, "anna")
        assert _next(store, "ben") is None
        store.submit("anna", "t0", skip(1))
        assert store.progress().left == 1
        store.submit("anna", "t0", answer(2))
        assert store.progress().left == 0
        assert _next(store, "ben") is None


def test_a_higher_overlap_opens_tasks_again(folder: Path) -> None:
    with store_of(folder, tasks=2) as store:
        walk(store, "anna")
        assert _next(store, "ben") is None
        LabelStore.create(store.path, dataclasses.replace(store.settings, overlap=2)).close()
        assert len(walk(store, "ben")) == 2
        assert walk(store, "anna") == []


def test_tasks_of_another_process_are_given_too(folder: Path) -> None:
    with store_of(folder, tasks=1) as store:
        walk(store, "anna")
        with LabelStore.open(store.path) as other:
            other.add_tasks([task_of("later")])
        assert _next(store, "anna") == "later"


def test_control_tasks_go_to_everybody_at_their_share(folder: Path) -> None:
    with store_of(folder, tasks=100, controls=30, share=0.2, overlap=2) as store:
        orders = {name: walk(store, name) for name in ("anna", "ben")}
        for order in orders.values():
            places = [place for place, task in enumerate(order) if task.startswith("c")]
            assert len(order) - len(places) == 100
            assert abs(len(places) / len(order) - 0.2) < 0.02
            assert min(places) >= 2
            # One in every five, so nobody waits long, and not always at the same place of the five.
            assert max(later - earlier for earlier, later in itertools.pairwise(places)) < 10
            assert len({place % 5 for place in places}) > 2
        controls = {name: [task for task in order if task.startswith("c")] for name, order in orders.items()}
        assert controls["anna"] != controls["ben"]
        progress = store.progress()
        assert (progress.tasks, progress.controls, progress.given) == (100, 30, 200)
        assert {label.task for label in store.snapshot().labels} > set(controls["anna"])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_what_is_left_counts_down_by_one_whatever_the_task_was(folder: Path, share: float) -> None:
    with store_of(folder, tasks=25, controls=40, share=share) as store:
        counts = []
        while (given := store.next_task("anna")) is not None:
            counts.append((given.done, given.left))
            store.submit("anna", given.task.id, answer())
        assert counts == [(done, len(counts) - done) for done in range(len(counts))]
        assert len(counts) > 25


def test_controls_may_run_out_and_may_be_switched_off(folder: Path) -> None:
    with store_of(folder / "few", tasks=20, controls=1, share=0.5) as store:
        assert len(walk(store, "anna")) == 21
    with store_of(folder / "off", tasks=20, controls=9, share=0) as store:
        assert len(walk(store, "anna")) == 20
        assert store.add_tasks([control_of("c100")]) == 1


def test_counts_agree_with_what_is_really_given(folder: Path) -> None:
    with store_of(folder, tasks=9, overlap=2, annotators=("anna", "ben", "carl")) as store:
        give(store, "anna")
        store.next_task("ben")
        given = store.next_task("carl")
        assert given is not None
        store.submit("carl", given.task.id, skip())
        left = {one.name: one.left for one in store.progress().annotators}
        assert len(walk(store, "carl")) == left["carl"]


def test_progress(folder: Path) -> None:
    with store_of(folder, tasks=3, overlap=2, annotators=("anna", "ben")) as store:
        for seconds in (1.0, 9.0):
            give(store, "anna", seconds=seconds, flagged=True)
        give(store, "ben", seconds=None)
        given = store.next_task("ben")
        assert given is not None
        store.submit("ben", given.task.id, skip())
        progress = store.progress()
        assert (progress.tasks, progress.wanted, progress.given, progress.left, progress.complete) == (3, 6, 3, 3, 1)
        anna, ben = progress.annotators
        assert (anna.name, anna.done, anna.skipped, anna.flagged, anna.median_seconds, anna.left) == (
            "anna", 2, 0, 2, 5.0, 1,
        )  # fmt: skip
        assert (ben.done, ben.skipped, ben.median_seconds, ben.left) == (1, 1, None, 1)
        following = store.next_task("ben")
        assert following is not None
        assert (following.done, following.skipped, following.left) == (1, 1, 1)
        assert anna.last is not None


def test_a_retired_control_task_is_given_to_nobody_and_keeps_its_labels(folder: Path) -> None:
    with store_of(folder, tasks=30, controls=6, share=0.3) as store:
        assert {f"c{index}" for index in range(6)} < set(walk(store, "anna"))
        labels = store.snapshot().labels
        store.keep_tasks(controls=["c1", "unknown"])
        assert store.snapshot().labels == labels
        store.add_tasks(task_of(f"more{index}") for index in range(30))
        given = store.next_task("ben")
        assert given is not None
        assert (given.done, given.left) == (0, 31)
        assert [task for task in walk(store, "ben") if task.startswith("c")] == ["c1"]
        store.submit("anna", "c2", answer(1, (3, 2, 1)))
        while store.undo("anna") != "c2":
            pass
        store.keep_tasks(controls={"c1", "c2"})
        store.add_tasks(task_of(f"last{index}") for index in range(30))
        assert [task for task in walk(store, "ben") if task.startswith("c")] == ["c2"], "back in use"


def test_a_retired_control_task_leaves_the_screen_that_it_is_on(folder: Path) -> None:
    with store_of(folder, tasks=20, controls=3, share=0.5) as store:
        while (given := store.next_task("anna")) is not None and given.task.control is None:
            store.submit("anna", given.task.id, answer())
        assert given is not None
        store.keep_tasks(controls=[])
        after = store.next_task("anna")
        assert after is not None
        assert after.task.control is None
        assert after.left == 20 - after.done
        # Whoever answers it nevertheless is not turned away.
        assert store.submit("anna", given.task.id, answer()).version == 1


def test_retired_tasks_are_given_to_nobody_count_as_left_no_more_and_keep_their_labels(folder: Path) -> None:
    with store_of(folder, tasks=8, overlap=2, controls=2, share=0.3) as store:
        begun, _ = give(store, "anna")
        on_screen = store.next_task("anna")
        held = store.next_task("ben")
        assert on_screen is not None
        assert held is not None
        kept = {f"t{index}" for index in range(8)} - {begun.task.id, on_screen.task.id, held.task.id, "t7"}
        store.keep_tasks(tasks=kept, controls=["c1"])
        progress = store.progress()
        assert (progress.tasks, progress.controls, progress.wanted) == (len(kept), 1, 2 * len(kept))
        assert (progress.given, progress.left, progress.complete) == (0, 2 * len(kept), 0)
        assert [one.done for one in progress.annotators] == [1, 0]
        assert store.submit("anna", on_screen.task.id, answer()).version == 1, "nobody is turned away"
        left = {one.name: one.left for one in store.progress().annotators}
        for name in ("anna", "ben"):
            given = walk(store, name)
            assert len(given) == left[name]
            assert set(given) - {"c1"} == kept
        assert {begun.task.id, on_screen.task.id} < {label.task for label in store.snapshot().labels}
        assert store.progress().left == 0
        store.add_tasks([task_of(held.task.id)])
        assert walk(store, "ben") == [held.task.id], "asked for anew"
        store.keep_tasks(tasks={f"t{index}" for index in range(8)})
        assert store.progress().tasks == 8
        assert "t7" in walk(store, "ben"), "back in use"
