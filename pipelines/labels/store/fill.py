"""The label store that a page serves: made, or opened again with what is new."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.errors import UsageError
from pipelines.labels.controls import control_tasks
from pipelines.labels.label_types import LabelSet, Question, question_dict
from pipelines.labels.page.admin import ADMIN, add_annotator, login_path
from pipelines.labels.questions import in_short, questions_of
from pipelines.labels.store import LabelStore, Settings
from pipelines.labels.tasks_file import read_tasks
from pipelines.run.directory import ROUNDS

FIRST_ANNOTATOR = "me"
"""Who judges at a page that is opened where nobody is named."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for; None: as the store has it or, in a new one, as the tasks or the defaults have it.

    Attributes:
        questions: what annotators are asked.
        title: of the project.
        first_title: title of a new store, where `title` is None.
        guidelines: Markdown.
        overlap: how many annotators judge the same task.
        control_share: share of control tasks in a queue.
        controls: a file of control tasks to be mixed in.
        annotators: who judges, beside those that the store knows.
        without: who is taken off, as they were named by mistake.
        seed: of every shuffle.
        own: ids of all tasks that a run has; neither others nor controls that are not named here are handed out any
            more. None: it is no run, and all tasks of the store are.
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

    def beside(self, other: Wanted) -> Wanted:
        """The same with the title of another one, if it has any, and with its annotators beside these."""
        annotators = (*self.annotators, *other.annotators)
        return replace(self, title=other.title or self.title, annotators=annotators, without=other.without)

    def changed(self, settings: Settings) -> Settings:
        """The settings with all that is asked for."""
        names = ("questions", "title", "guidelines", "overlap", "control_share", "seed")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return replace(settings, **{name: value for name, value in given.items() if value is not None})


def fill(store: LabelStore, tasks: LabelSet | None, wanted: Wanted, tell: Callable[[str], None] | None = None) -> None:
    """Bring settings, tasks, controls and annotators into a store: all that is asked for or, after an error, nothing.

    Args:
        store: maybe just made, and not set up yet.
        tasks: what is to be judged, and the questions about it; None: what the store holds.
        wanted: what is asked for.
        tell: is given lines about what a store that was set up before goes on with, and about other questions.

    Raises:
        UsageError: a name cannot be used, or is to be added and taken off.
        DataError: the store is damaged or not set up, or a task or control does not fit the questions.
        ConflictError: the store has answers to other questions, or of somebody who is to be taken off.
    """
    if both := {name.strip() for name in wanted.annotators} & {name.strip() for name in wanted.without}:
        raise UsageError(
            f"{min(both)!r} is to be taken off, but also named as an annotator",
            hint="leave the name out of --annotator, or of feedback.label.annotators of the run's configuration",
        )
    said: list[str] = []
    with store.batch():
        if tasks is None or store.is_set_up:
            settings = store.settings
            said = _from_before(settings, people(store), wanted)
        else:
            settings = Settings(wanted.first_title or store.path.name.split(".")[0], tasks.questions)
        settings = wanted.changed(settings)
        store.settings = settings
        if tasks is not None:
            store.add_tasks(tasks.tasks.values())
        if wanted.own is not None:
            store.keep_tasks(tasks=wanted.own | (tasks.tasks.keys() if tasks is not None else set()))
        _set_controls(store, settings, wanted)
        for name in wanted.without:
            store.remove_annotator(name.strip())
        for name in wanted.annotators:
            add_annotator(store, name)
    if tell is not None:
        for line in said:
            tell(line)


def _from_before(old: Settings, known: Sequence[str], wanted: Wanted) -> list[str]:
    """What a store goes on with although nothing was said of it now; and which questions give way to others."""
    others = [name for name in known if name not in (*wanted.annotators, *wanted.without)]
    kept = [f"annotators {', '.join(others)}"] if others else []
    if wanted.title is None and old.title != wanted.first_title:
        kept.append(f"title {old.title}")
    if wanted.guidelines is None and old.guidelines:
        kept.append("the guidelines")
    if wanted.overlap is None:
        kept.append(f"overlap {old.overlap}")
    if wanted.questions is None:
        kept.append(f"questions {in_short(old.questions)}")
    said = [f"kept from before: {'; '.join(kept)}"] if kept else []
    if wanted.questions is not None and wanted.questions != old.questions:
        was, now = in_short(old.questions), in_short(wanted.questions)
        if was == now:  # their words or ends differ
            was, now = _full(old.questions), _full(wanted.questions)
        said.append(f"the questions were {was} and are now {now}")
    return said


def _full(questions: Sequence[Question]) -> str:
    return ", ".join(json.dumps(question_dict(one), ensure_ascii=False) for one in questions)


def too_few(store: LabelStore) -> str | None:
    """Why not all labels can come: fewer people judge than the overlap asks for; None: there are enough."""
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
    """Why annotators can tell which tasks are controls: no other one has so many answers; None: they cannot by that."""
    ordinary = store.answer_counts()
    odd = store.answer_counts(control=True) - ordinary
    if not odd or not ordinary or not store.settings.control_share:
        return None
    counts, usual = (" or ".join(map(str, sorted(found))) for found in (odd, ordinary))
    return (
        f"some controls have {counts} answers and no other task has: people can tell that they are controls, and being "
        f"right there says little about the rest; a tasks file can give controls with {usual} answers"
    )


def _set_controls(store: LabelStore, settings: Settings, wanted: Wanted) -> None:
    """Add the controls that are asked for, and no longer hand out others; as they are where nothing is said of them."""
    if wanted.controls is None and wanted.own is None:
        return
    named = []
    if wanted.controls is not None:
        named = control_tasks(wanted.controls, settings.questions, seed=settings.seed)
    store.add_tasks(named)
    store.keep_tasks(controls={task.id for task in named})


def add_somebody(store: LabelStore) -> None:
    """Add `FIRST_ANNOTATOR` where the store knows nobody: a page that is open is for somebody."""
    if not people(store):
        add_annotator(store, FIRST_ANNOTATOR)


def people(store: LabelStore) -> list[str]:
    """The annotators that are no simulation."""
    return [one.name for one in store.progress().annotators if not one.simulated]


def fresh_links(store: LabelStore, origin: str) -> dict[str, str]:
    """A new one-time link for every annotator and for the admin; unused earlier ones stop working."""
    links = {name: origin + login_path(store.login_token(name)) for name in people(store)}
    return links | {ADMIN: origin + login_path(store.login_token(ADMIN, "admin"))}


def wanted_of_run(config: Config, root: Path) -> Wanted:
    """All that `feedback.label` of a run asks for; the title is the run's name until another one is given.

    Raises:
        UsageError: the guidelines cannot be read.
        DataError: a file of the run's tasks is damaged.
    """
    section = config.feedback.label
    return Wanted(
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
    """The text of a Markdown file.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the guidelines cannot be read: {error}", where=str(path)) from error


def newest_tasks(root: Path) -> Path:
    """The tasks that `rlhf sample` made last in a run.

    Raises:
        UsageError: there are none.
    """
    for path in _task_files(root):
        return path
    raise UsageError(
        "this run holds no samples to judge", where=str(root), hint=f"`rlhf sample --run-dir {root}` makes some"
    )


def _task_files(root: Path) -> list[Path]:
    """The tasks that were sampled in a run, the newest round first."""
    found = [*sorted(root.glob(f"{ROUNDS}/*/sample/tasks.jsonl"), reverse=True), root / "sample" / "tasks.jsonl"]
    return [path for path in found if path.is_file()]


def _tasks_of_run(root: Path) -> frozenset[str]:
    """Ids of the tasks of all rounds as they are sampled now."""
    return frozenset(name for path in _task_files(root) for name in read_tasks(path).tasks)
