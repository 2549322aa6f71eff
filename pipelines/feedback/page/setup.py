"""The label store that a page serves: made, or opened again with what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.errors import UsageError
from pipelines.feedback.controls import control_tasks
from pipelines.feedback.page.admin import ADMIN, add_annotator, login_path
from pipelines.feedback.questions import questions_of
from pipelines.feedback.store import LabelStore, Settings
from pipelines.feedback.types import LabelSet, Question
from pipelines.rundir import ROUNDS

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
        seed: of every shuffle.
        complete: controls that are not named here are not handed out any more.
    """

    questions: tuple[Question, ...] | None = None
    title: str | None = None
    first_title: str | None = None
    guidelines: str | None = None
    overlap: int | None = None
    control_share: float | None = None
    controls: Path | None = None
    annotators: tuple[str, ...] = ()
    seed: int | None = None
    complete: bool = False

    def beside(self, *, title: str | None, annotators: Sequence[str]) -> Wanted:
        """The same with another title, if one is given, and more annotators."""
        return replace(self, title=title or self.title, annotators=(*self.annotators, *annotators))

    def changed(self, settings: Settings) -> Settings:
        """The settings with all that is asked for."""
        names = ("questions", "title", "guidelines", "overlap", "control_share", "seed")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return replace(settings, **{name: value for name, value in given.items() if value is not None})


def open_store(path: Path, tasks: LabelSet | None, wanted: Wanted) -> LabelStore:
    """The store at `path` with the tasks, controls and annotators in it that were not there yet.

    Args:
        path: of the store; it is made where it is not there.
        tasks: what is to be judged, and the questions about it; None: what the store holds.
        wanted: what is asked for.

    Raises:
        UsageError: there are neither tasks nor a store, or a name cannot be used.
        DataError: the store is damaged, or a task or control does not fit the questions.
        ConflictError: the store has answers to other questions.
    """
    if path.exists():
        with LabelStore.open(path) as store:
            settings = store.settings
    elif tasks is None:
        raise UsageError(
            "there is nothing to label: no file of tasks is named, and there is no label store",
            where=str(path),
            hint="give a file of tasks, comparisons or prompts, or --run-dir of a run with samples",
        )
    else:
        settings = Settings(wanted.first_title or path.name.split(".")[0], tasks.questions)
    settings = wanted.changed(settings)
    store = LabelStore.create(path, settings)
    try:
        if tasks is not None:
            store.add_tasks(tasks.tasks.values())
        _set_controls(store, settings, wanted)
        for name in wanted.annotators:
            add_annotator(store, name)
    except BaseException:
        store.close()
        raise
    return store


def _set_controls(store: LabelStore, settings: Settings, wanted: Wanted) -> None:
    """Add the controls that are asked for, and no longer hand out others; as they are where nothing is said of them."""
    if wanted.controls is None and not wanted.complete:
        return
    named = []
    if wanted.controls is not None:
        named = control_tasks(wanted.controls, settings.questions, seed=settings.seed)
    store.add_tasks(named)
    store.keep_controls([task.id for task in named])


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
        complete=True,
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
    found = [*sorted(root.glob(f"{ROUNDS}/*/sample/tasks.jsonl"), reverse=True), root / "sample" / "tasks.jsonl"]
    for path in found:
        if path.is_file():
            return path
    raise UsageError(
        "this run holds no samples to judge", where=str(root), hint=f"`rlhf sample --run-dir {root}` makes some"
    )
