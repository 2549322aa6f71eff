"""A small store and what its tests say to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Question, Task
from pipelines.labels.store.records import Assignment, Receipt, Settings, Submission
from pipelines.labels.store.store import LabelStore

OVERALL = Question("overall", "ranking", "Which is better?")
_KEYS = itertools.count()


def task_of(name: str, answers: int = 3, control: dict[str, tuple[int, ...]] | None = None) -> Task:
    texts = tuple(Answer(f"{name}, answer {index}", f"model-{index}") for index in range(answers))
    return Task((Message(role="user", content=f"Prompt of {name}"),), texts, control, "test", name)


def control_of(name: str) -> Task:
    return task_of(name, control={"overall": (1, 2, 3)})


def settings_of(
    overlap: int = 1, share: float = 0.0, questions: Sequence[Question] = (OVERALL,), seed: int = 7
) -> Settings:
    return Settings("A project", tuple(questions), "# How", overlap, share, seed)


def store_of(
    folder: Path,
    tasks: int = 4,
    *,
    annotators: Sequence[str] = ("anna", "ben"),
    overlap: int = 1,
    share: float = 0.0,
    controls: int = 0,
    seed: int = 7,
) -> LabelStore:
    store = LabelStore.create(folder / "labels.sqlite", settings_of(overlap, share, seed=seed))
    store.add_tasks(task_of(f"t{index}") for index in range(tasks))
    store.add_tasks(control_of(f"c{index}") for index in range(controls))
    for name in annotators:
        store.add_annotator(name)
    return store


def answer(version: int = 0, ranks: tuple[int, ...] = (1, 2, 3), **more: object) -> Submission:
    return Submission({"overall": ranks}, **{"seconds": 2.5, "key": f"key-{next(_KEYS)}", "version": version} | more)


def skip(version: int = 0) -> Submission:
    return answer(version, skipped=True)


def give(store: LabelStore, annotator: str, **more: object) -> tuple[Assignment, Receipt]:
    """The next task of the annotator, answered."""
    given = store.next_task(annotator)
    assert given is not None
    return given, store.submit(annotator, given.task.id, answer(given.version, **more))


def walk(store: LabelStore, annotator: str) -> list[str]:
    """Answer everything that is open; ids in their order."""
    ids = []
    while (given := store.next_task(annotator)) is not None:
        store.submit(annotator, given.task.id, answer(given.version))
        ids.append(given.task.id)
    return ids
