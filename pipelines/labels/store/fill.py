"""Filling a label store: tasks, settings, controls and annotators go into a store, new or with answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.errors import UsageError
from pipelines.labels.label_types import LabelSet, Question, question_dict
from pipelines.labels.questions import in_short, questions_of
from pipelines.labels.store.records import Settings
from pipelines.labels.store.store import LabelStore
from pipelines.labels.task_sources import control_tasks
from pipelines.labels.tasks_file import TASKS, read_tasks
from pipelines.run.directory import ROUNDS

FIRST_ANNOTATOR = "me"
"""Name of the annotator of a page that is opened without naming anybody."""


@dataclass(frozen=True)
class StoreChanges:
    """Changes to a label store. None keeps what the store has; a new store takes it from the tasks or the defaults.

    Attributes:
        questions, title, guidelines, overlap, control_share, seed: as in `Settings`.
        first_title: title of a new store, used if `title` is None.
        controls: file of control tasks to mix in.
        annotators: names to add to those in the store.
        without: names to remove, because they were added by mistake.
        own: ids of all tasks of a run. Tasks and controls that are not named here are no longer handed out. None: the
            store belongs to no run, and all of its tasks stay in use.
    """

    questions: tuple[Question, ...] | None = None
    title: str | None = None
    first_title: str | None = None
    guidelines: str | None = None
    overlap: int | None = None
    control_share: float | None = None
    controls: Path | None = None
    annotators: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    seed: int | None = None
    own: frozenset[str] | None = None

    def joined_with(self, other: StoreChanges) -> StoreChanges:
        """Return these changes with the title and the removals of `other`, and with its annotators added."""
        annotators = (*self.annotators, *other.annotators)
        return replace(self, title=other.title or self.title, annotators=annotators, without=other.without)

    def changed(self, settings: Settings) -> Settings:
        """Return `settings` with these changes."""
        names = ("questions", "title", "guidelines", "overlap", "control_share", "seed")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        return replace(settings, **{name: value for name, value in values.items() if value is not None})


def fill(
    store: LabelStore, tasks: LabelSet | None, changes: StoreChanges, tell: Callable[[str], None] | None = None
) -> None:
    """Apply changes and add tasks to a store, which may be new: all of them or, after an error, none.

    `tasks` are to judge with their questions; None: those in the store. `tell` is called with one line about the
    settings that an existing store keeps, and one about changed questions.

    Raises:
        UsageError: a name cannot be used, or is both added and removed.
        DataError: the store is damaged or not set up, or a task or control does not fit the questions.
        ConflictError: the store has answers to other questions, or answers of somebody who is to be removed.
    """
    if both := {name.strip() for name in changes.annotators} & {name.strip() for name in changes.without}:
        raise UsageError(
            f"{min(both)!r} is both added and removed as an annotator",
            hint="leave the name out of --annotator, or of feedback.label.annotators of the run's configuration",
        )
    said: list[str] = []
    with store.batch():
        if tasks is None or store.is_set_up:
            settings = store.settings
            said = _from_before(settings, people(store), changes)
        else:
            settings = Settings(changes.first_title or store.path.name.split(".")[0], tasks.questions)
        settings = changes.changed(settings)
        store.settings = settings
        if tasks is not None:
            store.add_tasks(tasks.tasks.values())
        if changes.own is not None:
            store.keep_tasks(tasks=changes.own | (tasks.tasks.keys() if tasks is not None else set()))
        _set_controls(store, settings, changes)
        for name in changes.without:
            store.remove_annotator(name.strip())
        for name in changes.annotators:
            store.add_annotator(name)
    if tell is not None:
        for line in said:
            tell(line)


def _from_before(old: Settings, known: Sequence[str], changes: StoreChanges) -> list[str]:
    """Return one line about the settings that a store keeps, and one about questions that change."""
    others = [name for name in known if name not in (*changes.annotators, *changes.without)]
    kept = [f"annotators {', '.join(others)}"] if others else []
    if changes.title is None and old.title != changes.first_title:
        kept.append(f"title {old.title}")
    if changes.guidelines is None and old.guidelines:
        kept.append("the guidelines")
    if changes.overlap is None:
        kept.append(f"overlap {old.overlap}")
    if changes.questions is None:
        kept.append(f"questions {in_short(old.questions)}")
    said = [f"kept from before: {'; '.join(kept)}"] if kept else []
    if changes.questions is not None and changes.questions != old.questions:
        was, now = in_short(old.questions), in_short(changes.questions)
        if was == now:  # their words or ends differ
            was, now = _full(old.questions), _full(changes.questions)
        said.append(f"the questions were {was} and are now {now}")
    return said


def _full(questions: Sequence[Question]) -> str:
    return ", ".join(json.dumps(question_dict(one), ensure_ascii=False) for one in questions)


def too_few(store: LabelStore) -> str | None:
    """Return a warning if fewer people judge than the overlap requires, else None."""
    progress, overlap = store.progress(), store.settings.overlap
    judges = len(progress.annotators)
    never = min(progress.left, progress.tasks * (overlap - judges))
    if never <= 0:
        return None
    who = "1 person judges" if judges == 1 else f"{judges} people judge"
    return (
        f"overlap {overlap}, but {who}: {never} of {progress.wanted} labels cannot come; name more with --annotator or "
        "on the admin page"
    )


def controls_that_show(store: LabelStore) -> str | None:
    """Return a warning if the number of answers gives control tasks away, else None."""
    ordinary = store.answer_counts()
    odd = store.answer_counts(control=True) - ordinary
    if not odd or not ordinary or not store.settings.control_share:
        return None
    counts, usual = (" or ".join(map(str, sorted(numbers))) for numbers in (odd, ordinary))
    return (
        f"some control tasks have {counts} answers and no other task has: annotators can recognize them as controls, "
        f"so their accuracy on them says little about the rest; use controls with {usual} answers"
    )


def _set_controls(store: LabelStore, settings: Settings, changes: StoreChanges) -> None:
    """Add the named controls and retire all others; no change if neither `controls` nor `own` is given."""
    if changes.controls is None and changes.own is None:
        return
    named = []
    if changes.controls is not None:
        named = control_tasks(changes.controls, settings.questions, seed=settings.seed)
    store.add_tasks(named)
    store.keep_tasks(controls={task.id for task in named})


def add_somebody(store: LabelStore) -> None:
    """Add `FIRST_ANNOTATOR` to a store without annotators."""
    if not people(store):
        store.add_annotator(FIRST_ANNOTATOR)


def people(store: LabelStore) -> list[str]:
    """Return the names of the human annotators."""
    return [one.name for one in store.progress().annotators if not one.simulated]


def changes_of_run(config: Config, root: Path) -> StoreChanges:
    """Return the changes that `feedback.label` of a run asks for; a new store is titled with the name of the run.

    Raises:
        UsageError: the guidelines cannot be read.
        DataError: a file of the run's tasks is damaged.
    """
    section = config.feedback.label
    return StoreChanges(
        questions=questions_of(section),
        first_title=root.resolve().name,
        guidelines="" if section.guidelines is None else read_guidelines(section.guidelines),
        overlap=section.overlap,
        control_share=section.control_share,
        controls=section.controls,
        annotators=tuple(section.annotators),
        seed=config.run.seed,
        own=_tasks_of_run(root),
    )


def read_guidelines(path: Path) -> str:
    """Read a Markdown file.

    Raises:
        UsageError: it cannot be read, or is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the guidelines cannot be read: {error}", where=str(path)) from error


def newest_tasks(root: Path) -> Path:
    """Return the newest tasks file of a run.

    Raises:
        UsageError: there are none.
    """
    for path in _task_files(root):
        return path
    raise UsageError(
        "this run has no sampled tasks to judge", where=str(root), hint=f"`rlhf sample --run-dir {root}` makes some"
    )


def _task_files(root: Path) -> list[Path]:
    """Return the tasks files of a run, the newest round first."""
    paths = [*sorted(root.glob(f"{ROUNDS}/*/sample/{TASKS}"), reverse=True), root / "sample" / TASKS]
    return [path for path in paths if path.is_file()]


def _tasks_of_run(root: Path) -> frozenset[str]:
    """Return the ids of the tasks of all rounds."""
    return frozenset(name for path in _task_files(root) for name in read_tasks(path).tasks)
