"""Data of an agreement report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.labels.agreement.annotator_figures import AnnotatorFigures
from pipelines.report.estimates import Estimate, many


@dataclass(frozen=True)
class PairFigures:
    """Agreement of two annotators on the tasks that both judged, as `AgreementReport.pairwise`.

    The interval is Wilson's with the tasks as trials, wide rather than narrow, as the answers of one task go together.
    """

    first: str
    second: str
    agreement: Estimate
    tasks: int


@dataclass(frozen=True)
class Disputed:
    """A task (its id, and the last turn of its prompt) about which annotators differ.

    Attributes:
        spread: 1 - the mean agreement of its annotators, two by two; of a scale, their mean distance as a share of its
            length. 0: all agree.
        values: each annotator's answer, in the order of the answers of the task.
    """

    task: str
    prompt: str
    spread: float
    values: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Contradicted:
    """A control task whose key is more likely wrong than the people: most of what they answered contradicts it.

    The `key` was taken to be right; the other fields are those of `Disputed`.
    """

    task: str
    prompt: str
    key: tuple[int, ...]
    values: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Flagged:
    """A task that somebody flagged, and why."""

    task: str
    prompt: str
    annotator: str
    comment: str


@dataclass(frozen=True)
class AgreementReport:
    """Agreement on one question, and figures of its annotators. Control tasks count for `controls` only.

    Attributes:
        level: ``ordinal`` (rankings, scales) or ``nominal`` (0/1): how alpha weighs differences.
        tasks: how many have at least one answer.
        overlapping: how many have answers of at least two annotators; all agreement is about these.
        labels: how many answers there are; `simulated_labels` of them no human gave.
        unknown_labels: how many are of annotators whose name is not known. They count for agreement, and have no
            figures of a person: two such labels of different tasks may be of one person or of two.
        alpha: Krippendorff's, with a bootstrap interval over tasks. Of a ranking, each answer of each task is a unit
            and its mid-rank the value.
        tau: mean of Kendall's tau-b between two annotators' orders of one task; rankings only.
        pairwise: rankings: the share of pairs of answers that two annotators order alike; both calling it a tie is
            agreement, one of them alone is half. 0/1 and scales: the share of answers to which they give the same
            value. With a bootstrap interval over tasks.
        chance: what `pairwise` would be if all answered by chance, with as many ties, or each value as often.
        pairs: the same for every two known annotators who share a task.
        longer_wins: of all labels together, the share of pairs of answers that the longer one wins.
        annotators: figures of each known annotator.
        contradicted: control tasks that count for nobody, as most people contradict their keys.
        disputed: the tasks with the most disagreement, the most disputed first.
        flagged: tasks that somebody flagged, also where the task was then skipped.
        notes: what the reader of the file had to say.
    """

    question: str
    kind: str
    level: str
    tasks: int
    overlapping: int
    labels: int
    simulated_labels: int
    unknown_labels: int
    alpha: Estimate
    tau: Estimate
    pairwise: Estimate
    chance: float | None
    pairs: tuple[PairFigures, ...]
    longer_wins: Estimate
    annotators: tuple[AnnotatorFigures, ...]
    contradicted: tuple[Contradicted, ...]
    disputed: tuple[Disputed, ...]
    flagged: tuple[Flagged, ...]
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether any label was given by no human."""
        return self.simulated_labels > 0

    @property
    def suspicious(self) -> tuple[str, ...]:
        """Every pattern found, with the name of the annotator in front."""
        return tuple(f"{one.name}: {pattern}" for one in self.annotators for pattern in one.patterns)

    @property
    def whose(self) -> str:
        """Text for the origin of the labels: people, simulated annotators, or the number of each."""
        if not self.simulated:
            return "people gave all labels"
        if self.simulated_labels == self.labels:
            return "no human gave these labels"
        return f"no human gave {self.simulated_labels} of {self.labels} labels"

    @property
    def who(self) -> str:
        """``3 annotators``, or ``3 known annotators and 12 labels of unknown ones``."""
        judging = sum(one.labels > 0 for one in self.annotators)
        if not self.unknown_labels:
            return many(judging, "annotator")
        return f"{many(judging, 'known annotator')} and {many(self.unknown_labels, 'label')} of unknown ones"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"simulated": self.simulated}
