"""Training rows from labels: comparisons from rankings, judgements from pointwise labels, demonstrations from texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from pipelines.config.feedback_section import PairsSection
from pipelines.data.faults import fault_of
from pipelines.data.rows import Comparison, Demonstration, Judgement, Message, has_answers
from pipelines.errors import DataError, UsageError
from pipelines.labels.label_types import Label, LabelSet, Question, Task
from pipelines.labels.pairs.aggregate import aggregate, reliability, weighted_mean
from pipelines.labels.votes import Votes, votes_of

CONTROL = "control task"
SKIPPED = "skipped"
NOT_JUDGED = "no label"
FEW = "too few annotators"
EQUAL = "equal texts"
BLANK = "blank text"
TIE = "tie"
AGREEMENT = "below min_agreement"
MARGIN = "below min_margin"

_Found = TypeVar("_Found", Comparison, Judgement, Demonstration)


@dataclass
class PairsResult:
    """Rows, and what became of everything that could have been one.

    Attributes:
        comparisons: of a ranking or a pairwise choice; by task, and in a task by answer.
        judgements: of 0/1 or a scale.
        demonstrations: of written answers.
        possible: pairs of answers, single answers or written texts that there are, control tasks among them: those that
            became rows (`made`; a tie kept as half is one, and makes two rows), and those `dropped`, by reason.
        weights: of each annotator; empty: all the same.
        simulated_labels: labels used that no human gave.
        left_out: labels that were not used because of who gave them, by annotator.
    """

    question: Question
    comparisons: list[Comparison] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    possible: int = 0
    made: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    weights: dict[str, float] = field(default_factory=dict)
    simulated_labels: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> Sequence[Comparison] | Sequence[Judgement] | Sequence[Demonstration]:
        """The rows, of whatever kind the question gives."""
        return self.comparisons or self.judgements or self.demonstrations

    @property
    def counts(self) -> dict[str, Any]:
        """Counts of the rows made and left out, by reason, as plain data."""
        plain = {name: getattr(self, name) for name in ("possible", "made", "weights", "simulated_labels", "left_out")}
        return plain | {"question": self.question.name, "rows": len(self.rows), "dropped": dict(self.dropped)}


def build(labels: LabelSet, section: PairsSection) -> PairsResult:
    """The rows that the labels of one question give.

    A ranking of K answers gives all K(K-1)/2 comparisons, the better answer chosen; the margin is in units of
    `section.method`. 0/1 gives one judgement an answer, true or false by the majority; a scale gives the mean. Control
    tasks give no rows: their answer was known before.

    Raises:
        UsageError: there is no such question, or an option does not go with its kind.
        DataError: a prompt cannot be one of a training row.
    """
    names = ", ".join(question.name for question in labels.questions) or "none at all"
    if section.question is None and len(labels.questions) > 1 and not labels.ordered:
        raise UsageError(
            f"the file has several questions, and does not say which is the main one: {names}",
            where="--question",
            hint="name one with --question",
        )
    try:
        question = labels.question(section.question)
    except KeyError:
        raise UsageError(f"no question is named `{section.question}`; there are: {names}") from None
    given = Counter(label.annotator for _, label, _ in labels.answered(question.name))
    labels = labels.without(section.leave_out)
    result = PairsResult(question, left_out={name: given[name] for name in section.leave_out})
    result.simulated_labels = sum(label.simulated for _, label, _ in labels.answered(question.name))
    if question.kind == "demonstration":
        _demonstrations(labels, question, result)
        return result
    _check_goes_together(question, section)
    votes = votes_of(labels, question)
    if section.weights == "reliability":
        result.weights = reliability(labels, votes)
    rated = {task.id for task in votes.tasks}
    skipped = _skipped(labels)
    for task in labels.tasks.values():
        size = len(task.answers)
        units = size * (size - 1) // 2 if votes.ranked else size
        result.possible += units
        if task.control is not None:
            result.dropped[CONTROL] += units
        elif task.id not in rated:
            result.dropped[SKIPPED if task.id in skipped else NOT_JUDGED] += units
    if votes.labels:
        (_compare if votes.ranked else _judge)(votes, section, result)
    result.dropped = +result.dropped
    return result


def _check_goes_together(question: Question, section: PairsSection) -> None:
    """Refuse an option that would do nothing for this kind of question."""
    if question.kind in ("ranking", "pairwise"):
        return
    judged = f"the question `{question.name}` is of kind {question.kind}, which gives one judgement an answer"
    unfit = {
        "method": section.method in ("bradley_terry", "plackett_luce"),
        "ties": section.ties == "half",
        "min_agreement": question.kind == "scale" and section.min_agreement > 0,
        "min_margin": question.kind == "scale" and section.min_margin > 0,
    }
    for name, wrong in unfit.items():
        if wrong:
            value = getattr(section, name)
            raise UsageError(f"{name} = {value} does not go with it: {judged}", where=f"feedback.pairs.{name}")


def _skipped(labels: LabelSet) -> set[str]:
    return {label.task for label in labels.labels if label.skipped}


def _compare(votes: Votes, section: PairsSection, result: PairsResult) -> None:
    """Comparisons of every two answers of each task."""
    verdicts = aggregate(votes, section.method, result.weights or None)
    pairs = list(zip(*np.triu_indices(votes.value.shape[1], 1), strict=True))
    for index, (task, labels) in enumerate(_by_task(votes)):
        annotator, source = _who(labels, result.weights)
        for number, (first, second) in enumerate(pairs):
            if second >= len(task.answers):
                continue
            texts = task.answers[first].text, task.answers[second].text
            margin, share = float(verdicts.margin[index, number]), float(verdicts.share[index, number])
            reason = _why_not(texts, int(verdicts.annotators[index, number]), margin, share, section)
            if reason:
                result.dropped[reason] += 1
                continue
            result.made += 1
            orders = [texts] if margin > 0 else [texts[::-1]] if margin < 0 else [texts, texts[::-1]]
            for chosen, rejected in orders:
                row = {"prompt": task.prompt, "chosen": chosen, "rejected": rejected, "margin": round(abs(margin), 6)}
                result.comparisons.append(_row(Comparison, task, annotator=annotator, source=source, **row))


def _why_not(texts: tuple[str, str], annotators: int, margin: float, share: float, section: PairsSection) -> str | None:
    """Return the reason why a pair is left out; None: it is kept."""
    if annotators < section.min_annotators:
        return FEW
    if not all(text.strip() for text in texts):
        return BLANK
    if texts[0].strip() == texts[1].strip():
        return EQUAL
    if margin == 0 and section.ties == "drop":
        return TIE
    on_its_side = share if margin > 0 else 1 - share if margin < 0 else 0.5
    # weights make shares such as 0.6666666 where two thirds are meant
    if on_its_side < section.min_agreement - 1e-6:
        return AGREEMENT
    return MARGIN if abs(margin) < section.min_margin - 1e-6 else None


def _judge(votes: Votes, section: PairsSection, result: PairsResult) -> None:
    """One judgement for each answer of each task."""
    weight = np.array([result.weights.get(name, 1.0) for name in votes.annotators])[votes.annotator]
    mean = weighted_mean(votes, votes.value, weight)
    counts = votes.by_task(weight > 0)
    binary = votes.question.kind == "binary"
    reason: str | None
    for index, (task, labels) in enumerate(_by_task(votes)):
        annotator, source = _who(labels, result.weights)
        for answer, value in zip(task.answers, mean[index], strict=False):
            if counts[index] < section.min_annotators or np.isnan(value):
                reason = FEW
            elif not answer.text.strip():
                reason = BLANK
            else:
                reason = _undecided(float(value), section) if binary else None
            if reason:
                result.dropped[reason] += 1
                continue
            result.made += 1
            label = bool(value > 0.5) if binary else round(float(value), 6)
            row = {"prompt": task.prompt, "completion": answer.text, "label": label}
            result.judgements.append(_row(Judgement, task, annotator=annotator, source=source, **row))


def _undecided(ones: float, section: PairsSection) -> str | None:
    """Return the reason why a share of ones gives no judgement; None: it gives one."""
    if abs(ones - 0.5) < 1e-6:
        return TIE
    if max(ones, 1 - ones) < section.min_agreement - 1e-6:
        return AGREEMENT
    return MARGIN if abs(2 * ones - 1) < section.min_margin - 1e-6 else None


def _demonstrations(labels: LabelSet, question: Question, result: PairsResult) -> None:
    """One demonstration for each text; the same text of two people counts once."""
    written: dict[str, list[str]] = {}
    for task, _, value in sorted(labels.answered(question.name), key=lambda answer: answer[1].annotator):
        written.setdefault(task.id, []).append(str(value))
    skipped = _skipped(labels)
    for task in labels.tasks.values():
        texts = written.get(task.id, [])
        result.possible += max(len(texts), 1)
        if task.control is not None:
            result.dropped[CONTROL] += 1
        elif not texts:
            result.dropped[SKIPPED if task.id in skipped else NOT_JUDGED] += 1
        distinct = {text.strip(): text for text in reversed(texts)}
        result.dropped[EQUAL] += len(texts) - len(distinct)
        for text in sorted(distinct.values(), key=texts.index):
            result.made += 1
            messages = (*task.prompt, Message(role="assistant", content=text))
            row = _row(Demonstration, task, messages=messages, last_only=has_answers(task.prompt))
            result.demonstrations.append(row)
    result.dropped = +result.dropped


def _by_task(votes: Votes) -> list[tuple[Task, Sequence[Label]]]:
    """The labels of each task."""
    ends = [*votes.starts[1:], len(votes.labels)]
    return [(task, votes.labels[start:end]) for task, start, end in zip(votes.tasks, votes.starts, ends, strict=True)]


def _who(labels: Sequence[Label], weights: Mapping[str, float]) -> tuple[str, str]:
    """Return the annotators behind an opinion as text, and whether they are people."""
    counted = [label for label in labels if weights.get(label.annotator, 1.0) > 0] or labels
    simulated = sum(label.simulated for label in counted)
    source = "human" if not simulated else "simulated" if simulated == len(counted) else "human and simulated"
    return counted[0].annotator if len(counted) == 1 else f"{len(counted)} annotators", source


def _row(kind: type[_Found], task: Task, **fields: Any) -> _Found:
    try:
        return kind(**fields)
    except ValidationError as error:
        raise DataError(f"task {task.id} gives no {kind.__name__.lower()}: {fault_of(error)}") from error
