"""Any order of answers, edits, skips, undos, repetitions and restarts, against a model of dictionaries."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipelines.labels.store.records import Conflict, Submission
from pipelines.labels.store.store import LabelStore
from tests.examples import examples
from tests.labels.store.support import answer, store_of

PEOPLE = ("anna", "ben", "carl")
OVERLAP = 2
people = strategies.sampled_from(PEOPLE)
ranks = strategies.sampled_from([(1, 2, 3), (3, 2, 1), (1, 1, 1), (2, 1, 2), None])  # None: skipped
numbers = strategies.integers(0, 30)

Slot = tuple[str, str]


class StoreMachine(RuleBasedStateMachine):
    """What a label store must do, said a second time and more simply."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.store = store_of(
            Path(self.folder.name), tasks=4, annotators=PEOPLE, overlap=OVERLAP, share=0.4, controls=2
        )
        self.versions: dict[Slot, int] = {}
        self.stacks: dict[str, list[tuple[str, tuple[int, ...] | None, int]]] = {name: [] for name in PEOPLE}
        self.sent: list[tuple[str, str, Submission, int]] = []
        self.undone: list[tuple[str, str, str]] = []
        self.retired: set[str] = set()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def standing(self, name: str) -> dict[str, tuple[int, ...] | None]:
        return {task: given for task, given, _ in self.stacks[name]}  # the later one of a task counts

    def send(self, name: str, task: str, given: tuple[int, ...] | None) -> None:
        version = self.versions[name, task]
        sent = answer(version, given or (1, 2, 3), skipped=given is None)
        receipt = self.store.submit(name, task, sent)
        assert (receipt.version, receipt.repeated) == (version + 1, False)
        self.versions[name, task] = version + 1
        self.stacks[name].append((task, given, version + 1))
        self.sent.append((name, task, sent, version + 1))

    @rule(name=people, given=ranks)
    def answer_the_next(self, name: str, given: tuple[int, ...] | None) -> None:
        found = self.store.next_task(name)
        if found is None:
            return
        assert found.task.id not in self.standing(name)
        assert found.version == self.versions.setdefault((name, found.task.id), 0)
        standing = self.standing(name).values()
        assert (found.done, found.skipped) == (sum(map(bool, standing)), sum(not ranks for ranks in standing))
        assert found.earlier is None
        assert found.task.id not in self.retired or found.version
        if found.task.control is None and not found.version:
            others = [one for one in PEOPLE if one != name and self.standing(one).get(found.task.id)]
            assert len(others) < OVERLAP
        self.send(name, found.task.id, given)

    @rule(name=people)
    def look(self, name: str) -> None:
        found = self.store.next_task(name)
        if found is not None:
            self.versions.setdefault((name, found.task.id), 0)
            assert self.store.next_task(name) == found

    @rule(name=people, which=numbers, given=ranks)
    def edit(self, name: str, which: int, given: tuple[int, ...] | None) -> None:
        tasks = sorted(self.standing(name))
        if tasks:
            self.send(name, tasks[which % len(tasks)], given)

    @rule(kept=strategies.sets(strategies.sampled_from(["c0", "c1", "t0", "t1", "t2"])))
    def keep_tasks(self, kept: set[str]) -> None:
        self.store.keep_tasks(tasks=kept | {"t3"}, controls=kept)
        self.retired = {"c0", "c1", "t0", "t1", "t2"} - kept

    @rule(name=people)
    def undo(self, name: str) -> None:
        key = f"undo-{len(self.undone)}"
        task = self.store.undo(name, key)
        if not self.stacks[name]:
            assert task is None
            return
        assert task == self.stacks[name].pop()[0]
        self.undone.append((name, key, task))
        self.versions[name, task] += 1
        if task not in self.standing(name):
            found = self.store.next_task(name)
            assert found is not None
            assert found.task.id == task

    @rule(which=numbers)
    def send_again(self, which: int) -> None:
        if self.sent:
            name, task, sent, version = self.sent[which % len(self.sent)]
            standing = {one: number for one, _, number in self.stacks[name]}
            if standing.get(task) == version:
                receipt = self.store.submit(name, task, sent)
                assert (receipt.version, receipt.repeated) == (version, True)
            else:
                with pytest.raises(Conflict) as caught:
                    self.store.submit(name, task, sent)
                assert caught.value.version == self.versions[name, task]

    @rule(which=numbers)
    def undo_again(self, which: int) -> None:
        if self.undone:
            name, key, task = self.undone[which % len(self.undone)]
            assert self.store.undo(name, key) == task

    @rule(which=numbers, off=strategies.sampled_from([-1, 1]))
    def send_from_a_stale_tab(self, which: int, off: int) -> None:
        slots = sorted(self.versions)
        if slots:
            name, task = slots[which % len(slots)]
            with pytest.raises(Conflict) as caught:
                self.store.submit(name, task, answer(self.versions[name, task] + off))
            assert caught.value.version == self.versions[name, task]
            assert (caught.value.label is None) == (task not in self.standing(name))

    @rule()
    def start_again(self) -> None:
        path = self.store.path
        self.store.close()
        self.store = LabelStore.open(path)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        labels = {
            (one.annotator, one.task): None if one.skipped else one.values["overall"]
            for one in self.store.snapshot().labels
        }
        wanted = {(name, task): given for name in PEOPLE for task, given in self.standing(name).items()}
        assert labels == wanted

    @invariant()
    def counts_what_it_holds(self) -> None:
        progress = self.store.progress()
        used = {f"t{index}" for index in range(4)} - self.retired
        given = [task for name in PEOPLE for task, ranks in self.standing(name).items() if ranks and task in used]
        labels = Counter(given)
        assert progress.given == len(given)
        # Somebody who takes a skip back can make it a label too many, which counts for no other task.
        assert progress.left == sum(max(OVERLAP - labels[task], 0) for task in used)
        assert (progress.tasks, progress.controls) == (len(used), len({"c0", "c1"} - self.retired))
        assert progress.complete == sum(count >= OVERLAP for count in labels.values())
        held = [self.standing(name).values() for name in PEOPLE]
        assert [annotator.done for annotator in progress.annotators] == [sum(map(bool, ranks)) for ranks in held]
        assert [annotator.done + annotator.skipped for annotator in progress.annotators] == list(map(len, held))


StoreMachine.TestCase.settings = settings(max_examples=examples(20), stateful_step_count=25, deadline=None)
TestStore = StoreMachine.TestCase
