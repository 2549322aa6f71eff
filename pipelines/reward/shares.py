"""The shares of the comparisons: the reward model's, and its independent judge's, whose prompts it never sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pipelines.config import Config
from pipelines.config.data_section import SplitBy
from pipelines.data.canonical import read_rows
from pipelines.data.rows import Comparison, Judgement
from pipelines.data.split import share_of, split_key
from pipelines.report.pair_accuracy import ENOUGH_PAIRS
from pipelines.reward.training_rows import comparison_files, judgement_files

Share = Literal["all", "reward", "judge"]
WITHHELD = 0.25
"""Share of the prompts to train on that is kept for the judge."""
FEWEST_ROWS = 500
"""Rows that a judge is trained on at least. Quickstart: 500 pairs give an accuracy of .63 [.60, .66], 3,000 one of .70;
real models learn more from as many. Below, a judge would seldom pass the gate, and the reward model needs the rows."""
FEWEST_PROMPTS = 100
"""Prompts of these rows at least: many pairs of a few prompts say little about others."""
_SEED = 1
"""Seed of the hash that withholds a prompt: independent of the split into training and held-out prompts."""
_Row = TypeVar("_Row", Comparison, Judgement)


def rows_of(rows: Iterable[_Row], share: Share, by: SplitBy) -> Iterator[_Row]:
    """Pass on the rows of a share; all rows of a prompt are in the same one.

    Args:
        rows: rows to train on.
        share: ``all`` passes on every row.
        by: `data.split_by`.
    """
    for row in rows:
        if share == "all" or (share == "judge") == _is_withheld(row, by):
            yield row


@dataclass(frozen=True)
class Withheld:
    """Counts that decide whether a judge is trained.

    Attributes:
        rows: rows to train on whose prompts would be withheld.
        prompts: number of these prompts.
        heldout: rows held out to assess the reward model and the judge.
    """

    rows: int
    prompts: int
    heldout: int

    @classmethod
    def count(cls, inputs: Mapping[str, Path], config: Config) -> Withheld:
        """Count the rows of the inputs of a reward stage."""
        by, keys, rows = config.data.split_by, set(), 0
        for row in _rows(inputs, config, "train"):
            if _is_withheld(row, by):
                rows += 1
                keys.add(split_key(row.prompt, by, _SEED))
        return cls(rows, len(keys), sum(1 for _ in _rows(inputs, config, "heldout")))

    @property
    def too_few(self) -> str | None:
        """The count that is too small for a judge, in words; None: there is enough."""
        least = (
            (self.rows, FEWEST_ROWS, "rows to train it on"),
            (self.prompts, FEWEST_PROMPTS, "prompts to train it on"),
            (self.heldout, ENOUGH_PAIRS, "held-out rows to assess it by"),
        )
        return next(
            (f"{count} {what}, and {fewest} are needed" for count, fewest, what in least if count < fewest), None
        )


def share_of_reward(inputs: Mapping[str, Path], config: Config) -> tuple[Share, int]:
    """The share that the reward model is trained on, and how many rows are withheld from it."""
    if not config.has_judge:
        return "all", 0
    withheld = Withheld.count(inputs, config)
    return ("all", 0) if withheld.too_few else ("reward", withheld.rows)


def _is_withheld(row: Comparison | Judgement, by: SplitBy) -> bool:
    return share_of(split_key(row.prompt, by, _SEED)) < WITHHELD


def _rows(
    inputs: Mapping[str, Path], config: Config, side: Literal["train", "heldout"]
) -> Iterator[Comparison | Judgement]:
    for file in comparison_files(inputs, side):
        yield from read_rows(file.path, Comparison)
    if config.reward.objective == "pointwise":
        for file in judgement_files(inputs, side):
            yield from read_rows(file.path, Judgement)
