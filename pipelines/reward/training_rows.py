"""Targets made of labels: 0 is bad and 1 is good, whatever the labels were. Their polarity is known only here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.config import Config
from pipelines.data.canonical import read_rows
from pipelines.data.encode import LengthReport
from pipelines.data.rows import Comparison, Judgement, Message, Prompt
from pipelines.errors import DataError

Side = Literal["train", "heldout"]


@dataclass(frozen=True)
class RowFile:
    """A file of canonical rows.

    Attributes:
        stage: the input that it belongs to.
        name: its name in errors, ``data/comparisons/train.jsonl``.
        path: its path.
    """

    stage: str
    name: str
    path: Path


def comparison_files(inputs: Mapping[str, Path], side: Side) -> list[RowFile]:
    """Comparisons of the data, and those made of people's labels."""
    return _existing(inputs, (("data/comparisons", f"{side}.jsonl"), ("pairs", f"{side}.jsonl")))


def judgement_files(inputs: Mapping[str, Path], side: Side) -> list[RowFile]:
    """Judgements of the data, and those made of people's labels."""
    return _existing(inputs, (("data/judgements", f"{side}.jsonl"), ("pairs", f"judgements-{side}.jsonl")))


def _existing(inputs: Mapping[str, Path], places: Iterable[tuple[str, str]]) -> list[RowFile]:
    files = [RowFile(stage, f"{stage}/{name}", inputs[stage] / name) for stage, name in places if stage in inputs]
    return [file for file in files if file.path.exists() or file.stage != "pairs"]  # a question has rows of one kind


def prompts_of_ppo(inputs: Mapping[str, Path], *, judgements: bool) -> list[tuple[Message, ...]]:
    """Prompts that PPO will answer; in a run without `data/prompts` those of the held-out rows.

    Args:
        inputs: inputs of the stage.
        judgements: whether the rows of judgements count as well.
    """
    if "data/prompts" in inputs:
        return [row.prompt for row in read_rows(inputs["data/prompts"] / "train.jsonl", Prompt)]
    files = comparison_files(inputs, "heldout")
    prompts = [row.prompt for file in files for row in read_rows(file.path, Comparison)]
    if judgements:
        files = judgement_files(inputs, "heldout")
        prompts += [row.prompt for file in files for row in read_rows(file.path, Judgement)]
    return prompts


def sum_of_reports(reports: Iterable[LengthReport]) -> LengthReport:
    """One length report of several files."""
    parts = [*reports, LengthReport(0, 0, 0, 0)]
    sums = {name: sum(getattr(report, name) for report in parts) for name in ("used", "dropped", "cut", "refused")}
    return LengthReport(**sums, longest=max(report.longest for report in parts))


def _has_rows(file: RowFile) -> bool:
    return file.path.exists() and file.path.stat().st_size > 0


def check_sides(inputs: Mapping[str, Path], *, judgements: bool, who: str = "the reward model") -> None:
    """Refuse a side of the split without rows, before any model is loaded.

    Args:
        inputs: inputs of the stage.
        judgements: whether judgements are used; comparisons always are.
        who: what is trained on them, for the error.

    Raises:
        DataError: there is no row to train on, or none to judge by.
    """
    sides: tuple[tuple[Side, str], ...] = (("train", "to train"), ("heldout", "held out to judge"))
    for side, purpose in sides:
        of_pairs, of_answers = comparison_files(inputs, side), judgement_files(inputs, side)
        files = [*of_pairs, *of_answers] if judgements else of_pairs
        if any(map(_has_rows, files)):
            continue
        what = "no answer with a label" if judgements else "no pair"
        only_answers = not judgements and any(map(_has_rows, of_answers))
        raise DataError(
            f"there is {what} {purpose} {who} {'on' if side == 'train' else 'by'}",
            where=", ".join(file.name for file in files) or "reward",
            hint="the labels judge one answer at a time, for reward.objective: pointwise" if only_answers else None,
        )


@dataclass(frozen=True)
class LabelScale:
    """The meaning of the labels of a file.

    Attributes:
        low: smallest label of the scale.
        high: largest label of the scale.
        lower_is_better: a high label means bad.
        configured: whether the range is that of the configuration, not of the rows: a label outside it is an error.
    """

    low: float
    high: float
    lower_is_better: bool
    configured: bool

    def target(self, label: bool | float) -> float:
        """Target of a label from 0 (bad) to 1 (good); true and false are the ends, whatever the range.

        Raises:
            ValueError: the label lies outside the configured range.
        """
        if isinstance(label, bool):
            share = float(label)
        elif self.configured and not self.low <= label <= self.high:
            raise ValueError(f"the label {label:g} is outside the range {self.low:g} to {self.high:g}")
        else:  # a held-out label may go beyond those to train on
            share = min(max((label - self.low) / (self.high - self.low), 0.0), 1.0)
        return 1.0 - share if self.lower_is_better else share

    def as_dict(self) -> dict[str, object]:
        """Plain data for a manifest."""
        return {"label_range": [self.low, self.high], "lower_is_better": self.lower_is_better}

    def words(self) -> str:
        """The good and the bad label as text for people."""
        good, bad = (self.low, self.high) if self.lower_is_better else (self.high, self.low)
        turned = " (reward.lower_is_better: the labels are reversed)" if self.lower_is_better else ""
        return f"label {good:g} is good and {bad:g} is bad{turned}"


def scale_of(file: RowFile, config: Config) -> LabelScale | None:
    """Scale of a file of judgements to train on; None where it holds none.

    It is `reward.label_range`; else that of the question, where the labels are the run's own; else it goes from the
    smallest label to the largest, and from 0 to 1 where all are true or false.

    Raises:
        DataError: all labels are the same number, so its meaning is unknown.
    """
    section = config.reward
    rows, numbers = 0, set()
    for row in read_rows(file.path, Judgement):
        rows += 1
        if not isinstance(row.label, bool):
            numbers.add(row.label)
    if not rows:
        return None
    bounds = section.label_range or (_range_of_question(config) if file.stage == "pairs" else None)
    if bounds is None and len(numbers) == 1:
        raise DataError(
            f"every label is {numbers.pop():g}, so its meaning on the scale is unknown",
            where=file.name,
            hint="set the whole scale, for example reward.label_range: [1, 5]",
        )
    low, high = bounds or ((min(numbers), max(numbers)) if numbers else (0.0, 1.0))
    return LabelScale(low, high, section.lower_is_better, configured=section.label_range is not None)


def with_targets(rows: Iterable[Judgement], scale: LabelScale, name: str) -> Iterator[Judgement]:
    """The rows with targets in place of their labels.

    Raises:
        DataError: a label lies outside the configured range.
    """
    for number, row in enumerate(rows, 1):
        try:
            target = scale.target(row.label)
        except ValueError as error:
            raise DataError(
                str(error), where=f"{name}:{number}", hint="correct the label, or reward.label_range"
            ) from error
        yield row.model_copy(update={"label": target})


def _range_of_question(config: Config) -> tuple[float, float] | None:
    """Range of the question whose labels the run trains on; None for a kind without numbers."""
    questions = {question.name: question for question in config.feedback.label.questions}
    question = questions[config.feedback.pairs.question or next(iter(questions))]
    ranges = {"scale": (1.0, float(question.points)), "binary": (0.0, 1.0)}
    return ranges.get(question.kind)
