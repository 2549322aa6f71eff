"""The pairwise objective (Bradley-Terry): the better of two answers gets the higher score. Trained by TRL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from trl import RewardConfig, RewardTrainer  # type: ignore[attr-defined]
from typing_extensions import override

from pipelines.data.canonical import read_rows
from pipelines.data.encode import LengthReport
from pipelines.data.rows import Comparison
from pipelines.errors import UsageError
from pipelines.models.adapters import cast_trainable_to_fp32
from pipelines.models.published_reward import Output
from pipelines.models.text_classifier import EncodedText
from pipelines.report.pair_accuracy import CHANCE
from pipelines.reward.assessment import GOLDEN_ROWS, Pair, pair_figures, scores_of_pairs
from pipelines.reward.initial_model import HeldOut, InitialModel, Objective
from pipelines.reward.shares import Share, rows_of
from pipelines.reward.training_rows import comparison_files, sum_of_reports
from pipelines.run.stage import StageContext
from pipelines.trainers.training import no_telemetry, trainer_arguments

MARGIN_CAP = 3.0
"""Maximum of a margin in units of their root mean square: beyond it one pair would outweigh many."""


class Pairwise(Objective):
    """Pairs of answers, the better one first."""

    outputs: Sequence[Output] = ("logit",)
    polarity: str | None = None

    def __init__(self, ctx: StageContext, start: InitialModel, device: torch.device, share: Share) -> None:
        """Read and encode the comparisons.

        Raises:
            DataError: no pair is left to train or to judge on.
        """
        self._ctx, self._start, self._device = ctx, start, device
        self._name = "judge" if share == "judge" else "reward"
        self._pairs, self.report = _to_train(ctx, start, share)
        self.heldout = HeldOut.read(ctx.inputs, start.encode)
        self.num_heldout = len(self.heldout.pairs)
        self.num_tokens = sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in self._pairs)
        golden = self.heldout.pairs[: GOLDEN_ROWS // 2]
        self.heldout_texts: Sequence[EncodedText] = [text for pair in golden for text in (pair.chosen, pair.rejected)]
        say = ctx.reporter.warn if self.report.dropped else ctx.reporter.info
        report = self.report
        say(
            f"{self._name}: {report.used} pairs used, {report.dropped} dropped, {report.cut} cut; "
            f"longest {report.longest}"
        )

    @property
    @override
    def notes(self) -> dict[str, Any]:
        return {}

    @override
    def judge(self) -> dict[str, float | None]:
        pairs, prompts = self.heldout.pairs, self.heldout.prompts
        self.pair_scores = scores_of_pairs(self._start.scorer, pairs)
        return {f"heldout_{name}": value for name, value in pair_figures(pairs, *self.pair_scores, prompts).items()}

    @override
    def log_figures(self, figures: Mapping[str, float | None]) -> None:
        reporter = self._ctx.reporter
        accuracy, low, high = (figures[f"heldout_{name}"] for name in ("accuracy", "accuracy_low", "accuracy_high"))
        if accuracy is None or low is None:
            reporter.warn(f"{self._name}: every held-out pair occurs in both orders, so accuracy is not defined")
            return
        pairs, by_length = figures["heldout_pairs"], figures["heldout_length_accuracy"]
        reporter.info(
            f"{self._name}: held-out accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] on {pairs:.0f} pairs, "
            f"by length alone {by_length:.3f}"
        )
        if low <= CHANCE and self._name == "reward":
            reporter.warn(
                f"reward: the held-out accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] may be chance (.5): PPO would "
                "maximize noise; more or cleaner comparisons, more steps or another learning rate may help"
            )

    @override
    def trainer(self) -> RewardTrainer:
        """Make the trainer.

        Raises:
            UsageError: TRL refuses the model or its settings.
        """
        start, section = self._start, self._ctx.config.reward
        of_text = start.scorer.reads == "text"
        rows, features = columns(self._pairs, segments=of_text, margin=section.use_margin)
        own = {
            "max_length": None,  # TRL would drop longer rows silently
            "disable_dropout": True,
            "center_rewards_coefficient": section.center_rewards_coefficient,
            "remove_unused_columns": not of_text,
        }
        args = trainer_arguments(RewardConfig, self._ctx.config, "reward", self._ctx.out, self._device, own)
        no_telemetry()
        try:
            trainer = RewardTrainer(
                model=start.model,
                args=args,
                train_dataset=Dataset.from_list(rows, features=Features(features)),
                processing_class=start.tokenizer,
                data_collator=self._collate if of_text else None,
            )
        except ValueError as error:
            raise UsageError(f"the reward model cannot be set up: {error}", where="reward") from error
        cast_trainable_to_fp32(start.model)
        return trainer

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Batch all chosen texts before all rejected ones, with the padding, positions and segments of scoring."""
        texts = [
            EncodedText(row[f"{side}_ids"], row[f"{side}_segments"], len(row[f"{side}_ids"]))
            for side in ("chosen", "rejected")
            for row in rows
        ]
        batch = self._start.inputs(texts)
        if "margin" in rows[0]:
            batch["margin"] = torch.tensor([row["margin"] for row in rows], dtype=torch.float32)
        return batch


def columns(pairs: Sequence[Pair], *, segments: bool, margin: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Turn pairs into rows of a data set, and give the features of its columns.

    Args:
        pairs: of one kind of reward model.
        segments: whether the model's collator takes segments.
        margin: whether margins count, see `scaled_margins`.
    """
    margins = scaled_margins([pair.margin for pair in pairs]) if margin else None
    rows: list[dict[str, Any]] = []
    for index, pair in enumerate(pairs):
        row: dict[str, Any] = {"chosen_ids": pair.chosen.ids, "rejected_ids": pair.rejected.ids}
        if segments:
            row |= {"chosen_segments": pair.chosen.segments, "rejected_segments": pair.rejected.segments}
        if margins is not None:
            row["margin"] = margins[index]
        rows.append(row)
    features = {name: Value("float32") if name == "margin" else List(Value("int32")) for name in rows[0]}
    return rows, features


def scaled_margins(margins: Sequence[float | None]) -> list[float] | None:
    """Margins divided by their root mean square and cut at `MARGIN_CAP`; a pair without one has 0.

    A loss of log sigmoid(difference - margin) takes margins for logits, but they come in the unit of whoever gave them.

    Returns:
        One margin a pair; None where no pair has one, or all are 0.
    """
    squares = [margin**2 for margin in margins if margin is not None]
    unit = math.sqrt(sum(squares) / len(squares)) if squares else 0.0
    if unit == 0:
        return None
    return [min(max((margin or 0.0) / unit, -MARGIN_CAP), MARGIN_CAP) for margin in margins]


def _to_train(ctx: StageContext, start: InitialModel, share: Share) -> tuple[list[Pair], LengthReport]:
    files, by = comparison_files(ctx.inputs, "train"), ctx.config.data.split_by
    encoded = [start.encode(rows_of(read_rows(file.path, Comparison), share, by), file.name) for file in files]
    return [pair for pairs, _ in encoded for pair in pairs], sum_of_reports(report for _, report in encoded)
