"""Data types that go into the label store and come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pipelines.labels.label_types import Label, Question, Task, Value


class Conflict(Exception):
    """The task was answered, or its answer taken back, since the page that sent this answer was loaded.

    Attributes:
        label: the current label; None: the earlier answer was taken back.
        version: the current version, which a new answer must name.
        kept: the answer that was sent is in the history, but is not the current one; its time counts already.
    """

    def __init__(self, label: Label | None, version: int, *, kept: bool = False) -> None:
        super().__init__("this task was answered somewhere else in the meantime")
        self.label = label
        self.version = version
        self.kept = kept


class Invalid(Exception):
    """The answer does not fit the task or its questions; the message is meant for the annotator."""


class NotAssigned(Exception):
    """There is no such task for this annotator, or no such annotator."""


class Paused(Exception):
    """Labeling is paused: no task is handed out and no answer is accepted."""


Role: TypeAlias = Literal["annotator", "admin"]


@dataclass(frozen=True)
class Settings:
    """Settings of a store: questions, guidelines, overlap and control tasks.

    Attributes:
        title: the name of the project.
        questions: at least one; they cannot change once there are answers.
        guidelines: Markdown.
        overlap: how many annotators judge the same task.
        control_share: share of control tasks among those that an annotator gets, 0 to 0.5.
        seed: seed of every shuffle: of tasks, of answers, and of the places of the control tasks.
    """

    title: str
    questions: tuple[Question, ...]
    guidelines: str = ""
    overlap: int = 1
    control_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Identity:
    """Owner of a session."""

    name: str
    role: Role


@dataclass(frozen=True)
class Session(Identity):
    """A new session. `token` is returned only here; the store keeps its hash."""

    token: str


@dataclass(frozen=True)
class AnnotatorState:
    """Number of an annotator, settings, and whether labeling is paused, read together."""

    me: int
    settings: Settings
    paused: bool


@dataclass(frozen=True)
class Assignment:
    """A task as it was handed out to one annotator.

    Attributes:
        task: the task, answers in its own order.
        order: the order in which to show them: ``order[place]`` is the index of the answer at that place. It is
            drawn once for an annotator and a task, and stays.
        version: version of the label: 0 before the first answer; an answer, an edit and an undo each add one.
        earlier: the current label; None: unanswered, or taken back.
        number: position among the annotator's tasks, from 1.
        done, skipped: how many tasks this annotator has answered, and how many skipped.
        left: how many are still open for them, this one included if it is unanswered. Answers of others make it
            smaller too.
    """

    task: Task
    order: tuple[int, ...]
    version: int
    earlier: Label | None
    number: int
    done: int
    skipped: int
    left: int


@dataclass(frozen=True)
class Submission:
    """An answer to a task.

    Attributes:
        values: by name of the question, in the task's own order of answers; ignored if `skipped`.
        seconds: time spent on this answer; for an edit, on the edit alone. None: not known.
        comment: free text.
        flagged: something is wrong with the task.
        skipped: the annotator does not judge it.
        key: made by the sender, a new one for every answer; the same key again is a repetition of the same answer.
        version: version of the assignment that was shown.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    seconds: float | None = None
    comment: str = ""
    flagged: bool = False
    skipped: bool = False
    key: str = ""
    version: int = 0


@dataclass(frozen=True)
class Receipt:
    """The answer is on the disk, and stands.

    Attributes:
        version: of the label that it became, when it came first.
        repeated: the same key was there before; nothing was written.
    """

    version: int
    repeated: bool


@dataclass(frozen=True)
class HistoryEntry:
    """An annotator's standing answer to a task, and the version to send when it is edited."""

    task: Task
    label: Label
    version: int


@dataclass(frozen=True)
class AnnotatorProgress:
    """Progress of one annotator: tasks done, skipped, flagged and left, control tasks among them.

    Attributes:
        simulated: no human.
        median_seconds: of an answer; None: none is known.
        last: time of the last answer that stands; None: there is none.
    """

    name: str
    simulated: bool
    done: int
    skipped: int
    flagged: int
    median_seconds: float | None
    last: str | None
    left: int


@dataclass(frozen=True)
class Progress:
    """Progress of the tasks in use. Control tasks count only for the annotators.

    tasks, controls: how many ordinary tasks and how many control tasks there are.
    complete: tasks that have as many labels as the overlap asks for.
    wanted: tasks times overlap.
    given: labels that stand, skipped ones left out.
    left: labels still missing, summed over the tasks.
    annotators: one each, in the order in which they were added.
    """

    tasks: int
    controls: int
    complete: int
    wanted: int
    given: int
    left: int
    annotators: tuple[AnnotatorProgress, ...]
