"""The label store that a page serves: made, or opened again with what is new."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
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
"""Who judges where nobody is named."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for; None: as the store has it or, in a new one, as the tasks or the defaults have it.

    Attributes:
        questions: what annotators are asked.
        title: of the project.
        guidelines: Markdown.
        overlap: how many annotators judge the same task.
        control_share: share of control tasks in a queue.
        controls: a file of control tasks to be mixed in.
        annotators: who judges, beside those that the store knows.
        seed: of every shuffle.
    """

    questions: tuple[Question, ...] | None = None
    title: str | None = None
    guidelines: str | None = None
    overlap: int | None = None
    control_share: float | None = None
    controls: Path | None = None
    annotators: tuple[str, ...] = ()
    seed: int | None = None

    def or_else(self, other: Wanted) -> Wanted:
        """What is asked for here, else what `other` asks for; annotators of both."""
        mine = {one.name: getattr(self, one.name) for one in fields(self)}
        given = {name: value for name, value in mine.items() if value is not None and name != "annotators"}
        return replace(other, **given, annotators=(*other.annotators, *self.annotators))

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
        settings = Settings(path.name.split(".")[0], tasks.questions)
    settings = wanted.changed(settings)
    store = LabelStore.create(path, settings)
    try:
        if tasks is not None:
            store.add_tasks(tasks.tasks.values())
        if wanted.controls is not None:
            store.add_tasks(control_tasks(wanted.controls, settings.questions, seed=settings.seed))
        for name in wanted.annotators:
            add_annotator(store, name)
        if not people(store):
            add_annotator(store, FIRST_ANNOTATOR)
    except BaseException:
        store.close()
        raise
    return store


def people(store: LabelStore) -> list[str]:
    """The annotators that are no simulation."""
    return [one.name for one in store.progress().annotators if not one.simulated]


def fresh_links(store: LabelStore, origin: str) -> dict[str, str]:
    """A new one-time link for every annotator and for the admin; unused earlier ones stop working."""
    links = {name: origin + login_path(store.login_token(name)) for name in people(store)}
    return links | {ADMIN: origin + login_path(store.login_token(ADMIN, "admin"))}


def wanted_of_run(config: Config, root: Path) -> Wanted:
    """What `feedback.label` of a run asks for.

    Raises:
        UsageError: the guidelines cannot be read.
    """
    section = config.feedback.label
    return Wanted(
        questions=questions_of(section),
        title=root.resolve().name,
        guidelines=None if section.guidelines is None else read_guidelines(section.guidelines),
        overlap=section.overlap,
        control_share=section.control_share,
        controls=section.controls,
        annotators=tuple(section.annotators),
        seed=config.run.seed,
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
