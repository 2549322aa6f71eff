"""The rows that a reward model is trained on and judged by: which files hold them, by side of the split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.data.canonical import read_rows
from pipelines.data.encode import LengthReport
from pipelines.data.rows import Comparison, Judgement, Message
from pipelines.errors import DataError

Side = Literal["train", "heldout"]


@dataclass(frozen=True)
class RowFile:
    """A file of canonical rows.

    Attributes:
        stage: the input that it belongs to.
        name: what errors call it, ``data/comparisons/train.jsonl``.
        path: where it is.
    """

    stage: str
    name: str
    path: Path


def comparison_files(inputs: Mapping[str, Path], side: Side) -> list[RowFile]:
    """Comparisons that were there, and those that people's labels became."""
    return _existing(inputs, (("data/comparisons", f"{side}.jsonl"), ("pairs", f"{side}.jsonl")))


def judgement_files(inputs: Mapping[str, Path], side: Side) -> list[RowFile]:
    """Judgements that were there, and those that people's labels became."""
    return _existing(inputs, (("data/judgements", f"{side}.jsonl"), ("pairs", f"judgements-{side}.jsonl")))


def _existing(inputs: Mapping[str, Path], places: Iterable[tuple[str, str]]) -> list[RowFile]:
    found = [RowFile(stage, f"{stage}/{name}", inputs[stage] / name) for stage, name in places if stage in inputs]
    return [file for file in found if file.path.exists() or file.stage != "pairs"]  # a question has rows of one kind


def heldout_prompts(inputs: Mapping[str, Path], *, judgements: bool) -> list[tuple[Message, ...]]:
    """The prompts of all held-out rows, each once; those of judgements too where they are used."""
    files = comparison_files(inputs, "heldout")
    prompts = [row.prompt for file in files for row in read_rows(file.path, Comparison)]
    if judgements:
        files = judgement_files(inputs, "heldout")
        prompts += [row.prompt for file in files for row in read_rows(file.path, Judgement)]
    return list(dict.fromkeys(prompts))


def together(reports: Iterable[LengthReport]) -> LengthReport:
    """The reports of several files as one."""
    found = [*reports, LengthReport(0, 0, 0, 0)]
    used, dropped, cut = (sum(getattr(report, name) for report in found) for name in ("used", "dropped", "cut"))
    return LengthReport(used, dropped, cut, max(report.longest for report in found))


def _has_rows(file: RowFile) -> bool:
    return file.path.exists() and file.path.stat().st_size > 0


def check_sides(inputs: Mapping[str, Path], *, judgements: bool) -> None:
    """Refuse a side without a row, before any model is loaded.

    Args:
        inputs: of the stage.
        judgements: whether they are used; comparisons always are.

    Raises:
        DataError: there is nothing to train on, or nothing to judge by.
    """
    sides: tuple[tuple[Side, str], ...] = (("train", "to train the"), ("heldout", "held out to judge the"))
    for side, purpose in sides:
        of_pairs, of_answers = comparison_files(inputs, side), judgement_files(inputs, side)
        files = [*of_pairs, *of_answers] if judgements else of_pairs
        if any(map(_has_rows, files)):
            continue
        what = "no answer with a label" if judgements else "no pair"
        only_answers = not judgements and any(map(_has_rows, of_answers))
        raise DataError(
            f"there is {what} {purpose} reward model {'on' if side == 'train' else 'by'}",
            where=", ".join(file.name for file in files) or "reward",
            hint="the labels judge one answer at a time: set reward.objective: pointwise" if only_answers else None,
        )
