"""Questions, tasks and labels, the data types of the human loop. No torch, no database, no web."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from pipelines.data.rows import Message, as_dict

Kind = Literal["ranking", "pairwise", "binary", "scale", "demonstration"]
JUDGING: tuple[Kind, ...] = ("ranking", "pairwise", "binary", "scale")

Value: TypeAlias = tuple[int, ...] | str
"""The answer to one question: a number for each answer of the task, in the task's own order, or a text.

- ranking, pairwise: the rank of each answer, 1 = best; equal numbers are a tie, and no number is left out before the
  next (1, 1, 2 and not 1, 1, 3). pairwise is a ranking of two.
- binary: 0 or 1 for each answer.
- scale: 1 to `points` for each answer.
- demonstration: the text that was written.
"""


_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True)
class Question:
    """One thing that annotators are asked about a task; several criteria are several questions.

    Attributes:
        name: its key in labels and files, such as ``overall``.
        kind: what is asked.
        text: the words that the annotator reads.
        points: of a scale: values go from 1 to this.
        low: words for 0, or for 1 on a scale.
        high: words for 1, or for the highest point.
        required: an annotator cannot leave it out.
    """

    __pydantic_config__ = _STRICT
    name: Annotated[str, Field(min_length=1)]
    kind: Kind
    text: str = ""
    points: Annotated[int, Field(ge=2)] = 5
    low: str = ""
    high: str = ""
    required: bool = True

    def fault(self, value: object, answers: int) -> str | None:
        """Return why `value` is no answer to this question on a task of `answers` answers; None: it is one."""
        if self.kind == "demonstration":
            return None if isinstance(value, str) and value.strip() else "it must be a text that is not blank"
        if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
            return "it must be a list of whole numbers"
        if len(value) != answers:
            return f"it must hold {answers} numbers, one for each answer, not {len(value)}"
        if self.kind in ("ranking", "pairwise"):
            distinct = sorted(set(value))
            if distinct != list(range(1, len(distinct) + 1)):
                return "ranks must begin at 1 and leave none out"
            return None
        low, high = (0, 1) if self.kind == "binary" else (1, self.points)
        return None if all(low <= item <= high for item in value) else f"numbers must go from {low} to {high}"


def values_fault(values: Mapping[str, object], questions: Iterable[Question], answers: int) -> str | None:
    """Return why these values, by name of the question, do not answer the questions on a task of so many answers.

    None: they do.
    """
    by_name = {question.name: question for question in questions}
    for name, value in values.items():
        if name not in by_name:
            return f"no question is named `{name}`"
        if fault := by_name[name].fault(value, answers):
            return f"`{name}`: {fault}"
    return None


@dataclass(frozen=True)
class Answer:
    """One completion of a task, and the model that wrote it: never shown to an annotator. None: not known."""

    __pydantic_config__ = _STRICT
    text: str
    model: str | None = None


@dataclass(frozen=True)
class Task:
    """Task for an annotator: a prompt and its answers.

    Attributes:
        prompt: the dialogue to be answered.
        answers: one or more; none only where a demonstration is to be written from nothing.
        control: of a control task the known value of some questions, by name; None: an ordinary task.
        source: where it is from, such as ``round-1``.
        id: made from prompt and answers where it is not given, so that the same task is the same everywhere.
    """

    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]
    control: Mapping[str, tuple[int, ...]] | None = None
    source: str | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", task_id(self.prompt, [answer.text for answer in self.answers]))


def task_id(prompt: Sequence[Message], answers: Sequence[str]) -> str:
    """16 hexadecimal digits that stand for a prompt and its answers in their order."""
    text = json.dumps([[as_dict(turn) for turn in prompt], list(answers)], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Label:
    """Latest label of one task by one annotator.

    Attributes:
        values: by name of the question; empty where the task was skipped.
        order: the order in which the answers were shown: ``order[place]`` is the index of the answer at that place.
            Empty where it is not known.
        seconds: from the first sight of the task to the answer; None: not known.
        skipped: the annotator would not or could not judge it; it counts for nothing.
        flagged: something is wrong with the task, by the annotator's words in `comment`.
        comment: free words.
        time: when, in UTC, as ``2026-11-21T18:00:00Z``; None: not known.
        simulated: no human gave it.
    """

    task: str
    annotator: str
    values: Mapping[str, Value]
    order: tuple[int, ...] = ()
    seconds: float | None = None
    skipped: bool = False
    flagged: bool = False
    comment: str = ""
    time: str | None = None
    simulated: bool = False


@dataclass
class LabelSet:
    """Questions, tasks and the labels they got: what every store and file format is read into.

    Attributes:
        questions: at least one; names are distinct.
        tasks: by id.
        labels: at most one of an annotator for a task.
        notes: counts of what was left out of the file, or read in a way that the user should know.
        ordered: the first question is the main one; False: the file gives its questions no order.
    """

    questions: tuple[Question, ...]
    tasks: dict[str, Task]
    labels: list[Label]
    notes: dict[str, int] = field(default_factory=dict)
    ordered: bool = True

    def question(self, name: str | None = None) -> Question:
        """The question of that name; None: the first one.

        Raises:
            KeyError: there is none.
        """
        for question in self.questions:
            if name in (None, question.name):
                return question
        raise KeyError(name)

    def answered(self, question: str, *, control: bool = False) -> Iterator[tuple[Task, Label, Value]]:
        """Every label that answers `question`, skipped ones left out; of control tasks or of all others."""
        for label in self.labels:
            task = self.tasks[label.task]
            if not label.skipped and question in label.values and (task.control is not None) is control:
                yield task, label, label.values[question]

    def without(self, annotators: Collection[str]) -> LabelSet:
        """All but the labels of these annotators."""
        return replace(self, labels=[label for label in self.labels if label.annotator not in annotators])

    @property
    def simulated(self) -> bool:
        """Whether any label was given by no human."""
        return any(label.simulated for label in self.labels)


def question_dict(question: Question) -> dict[str, Any]:
    """The question as plain data, what is unset left out."""
    plain: dict[str, Any] = {"name": question.name, "kind": question.kind, "text": question.text}
    if question.kind == "scale":
        plain["points"] = question.points
    plain |= {key: getattr(question, key) for key in ("low", "high") if getattr(question, key)}
    return plain if question.required else plain | {"required": False}


UNKNOWN = "unknown-"
"""Start of the name of an annotator whom the file does not name; a number follows.

The numbers keep the labels of one task apart: the same number at two tasks need not be the same person.
"""


def is_unknown(annotator: str) -> bool:
    """Whether nobody knows who it was, so that no figures of a person can be given."""
    return re.fullmatch(f"{UNKNOWN}[0-9]+", annotator) is not None


def with_pseudonyms(labels: LabelSet, annotators: Iterable[str] | None = None) -> LabelSet:
    """The same labels by annotator-01, annotator-02 and so on; those of unknown people keep their names.

    Args:
        labels: the labels.
        annotators: the names in the order in which they are numbered; None: in that of their first labels.
    """
    named = dict.fromkeys(annotators if annotators is not None else (label.annotator for label in labels.labels))
    known = [name for name in named if not is_unknown(name)]
    names = {name: name for name in named} | {name: f"annotator-{number:02d}" for number, name in enumerate(known, 1)}
    return replace(labels, labels=[replace(label, annotator=names[label.annotator]) for label in labels.labels])
