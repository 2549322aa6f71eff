"""Data types that go into the label store and come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pipelines.labels.label_types import Label, Question, Task, Value


class Conflict(Exception):
    """The request does not fit the standing label: another tab was faster, or it was taken back.

    Attributes:
        label: what stands now; None: nothing, the earlier answer was taken back.
        version: the version to answer to.
        kept: the answer that was sent is in the history, though it does not stand; so its time counts already.
    """

    def __init__(self, label: Label | None, version: int, *, kept: bool = False) -> None:
        super().__init__("this task was answered somewhere else in the meantime")
        self.label = label
        self.version = version
        self.kept = kept


class Invalid(Exception):
    """The answer does not fit the task or its questions; the text says why, in words for the annotator."""


class NotAssigned(Exception):
    """There is no such task for this annotator, or no such annotator."""


class Paused(Exception):
    """Labelling is paused: no task is given and no answer taken."""


Role: TypeAlias = Literal["annotator", "admin"]


@dataclass(frozen=True)
class Settings:
    """Settings of a store: questions, guidelines, overlap and control tasks.

    Attributes:
        title: the name of the project.
        questions: at least one; they stay as they are once there are answers.
        guidelines: Markdown.
        overlap: how many annotators judge the same task.
        control_share: share of control tasks among those that an annotator gets, 0 to 0.5.
        seed: of every shuffle: order of tasks, of answers, and places of the control tasks.
    """

    title: str
    questions: tuple[Question, ...]
    guidelines: str = ""
    overlap: int = 1
    control_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Session:
    """A fresh session: `token` is shown this once, the store keeps only its hash."""

    token: str
    name: str
    role: Role


@dataclass(frozen=True)
class Identity:
    """Owner of a session."""

    name: str
    role: Role


@dataclass(frozen=True)
class AnnotatorState:
    """Number of an annotator, the settings, and whether labeling is paused, all of one moment."""

    me: int
    settings: Settings
    paused: bool


@dataclass(frozen=True)
class Assignment:
    """One task as one annotator has it.

    Attributes:
        task: the task, answers in its own order.
        order: the order in which to show them: ``order[place]`` is the index of the answer at that place. It is
            drawn once for an annotator and a task, and stays.
        version: of the label: 0 before the first answer; an answer, an edit and an undo each add one.
        earlier: the label that stands now; None: unanswered, or taken back.
        number: how many this one is for the annotator, from 1.
        done: how many tasks this annotator has answered.
        skipped: how many tasks this annotator has skipped.
        left: how many are still open for this annotator, this one among them if it is unanswered. It shrinks, too,
            when others answer.
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
        values: by name of the question, answers in the TASK's own order; does not matter where `skipped`.
        seconds: how long this answer took, an edit without the time of what it edits; None: not known.
        comment: free words.
        flagged: something is wrong with the task.
        skipped: the annotator does not judge it.
        key: made anew for every answer by whoever sends it; the same key again is the same answer again.
        version: of the assignment that was shown.
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
    """Progress of one annotator.

    Attributes:
        name: of the annotator.
        simulated: no human.
        done: tasks answered, control tasks among them.
        skipped: tasks skipped.
        flagged: tasks flagged, answered or skipped.
        median_seconds: of an answer; None: none is known.
        last: time of the last answer that stands; None: there is none.
        left: tasks still open for this annotator.
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

    Attributes:
        tasks: how many.
        controls: how many control tasks there are beside them.
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
