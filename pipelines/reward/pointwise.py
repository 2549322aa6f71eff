"""The pointwise objective, by a plain Trainer: a classifier that gives the probability of a good answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import Trainer, TrainingArguments
from typing_extensions import override

from pipelines.data.canonical import read_rows
from pipelines.data.encode import LengthReport
from pipelines.data.rows import Comparison, Judgement
from pipelines.errors import DataError
from pipelines.models.adapters import cast_trainable_to_fp32
from pipelines.models.published_reward import Output
from pipelines.models.text_classifier import EncodedText
from pipelines.report.calibration import probability, reliability
from pipelines.reward.assessment import (
    GOLDEN_ROWS,
    MIDDLE,
    JudgedText,
    Pair,
    figures,
    pair_figures,
)
from pipelines.reward.initial_model import HeldOut, InitialModel, Objective
from pipelines.reward.shares import Share, rows_of
from pipelines.reward.training_rows import (
    RowFile,
    Side,
    comparison_files,
    judgement_files,
    scale_of,
    sum_of_reports,
    with_targets,
)
from pipelines.run.stage import StageContext
from pipelines.trainers.training import trainer_arguments

CLASSES = {"sigmoid": {0: "good"}, "softmax": {0: "bad", 1: "good"}}
"""Names of the classes in the published model."""
PROBLEMS = {"sigmoid": "multi_label_classification", "softmax": "single_label_classification"}
"""Names of the two outputs in transformers, whose text-classification pipeline then gives the same probability."""
_FEATURES = Features({"input_ids": List(Value("int32")), "segments": List(Value("int32")), "target": Value("float32")})


class Pointwise(Objective):
    """Single answers, each with a target from 0 (bad) to 1 (good)."""

    outputs: Sequence[Output] = ("logit", "probability", "logprob")

    def __init__(self, ctx: StageContext, start: InitialModel, device: torch.device, share: Share) -> None:
        """Read and encode judgements, and comparisons as two rows each.

        Raises:
            DataError: no row is left to train or to judge on, or all those to train on have the same target.
        """
        self._ctx, self._start, self._device = ctx, start, device
        self._scales = {
            file.stage: scale
            for file in judgement_files(ctx.inputs, "train")
            if (scale := scale_of(file, ctx.config)) is not None
        }
        self._name = "judge" if share == "judge" else "reward"
        self.heldout = HeldOut.read(ctx.inputs, start.encode)
        self._heldout = [*_both(self.heldout.pairs), *self._answers("heldout", "all")[0]]
        self._rows, self.report = self._to_train(share)
        self.num_heldout = len(self._heldout)
        self.num_tokens = sum(len(row.text.ids) for row in self._rows)
        self.heldout_texts: Sequence[EncodedText] = [row.text for row in self._heldout[:GOLDEN_ROWS]]
        self._good = _share_of_good(self._rows)
        self._log_rows()

    @property
    @override
    def notes(self) -> dict[str, Any]:
        """Notes on the labels and the model, with the held-out reliability table of the last `judge`."""
        targets = [row.target for row in self._heldout]
        bins = reliability([probability(logit) for logit in self._logits], targets)
        return {
            "output": self._ctx.config.reward.output,
            "labels": {stage: scale.as_dict() for stage, scale in self._scales.items()},
            "share_good": self._good,
            "calibration": [asdict(row) for row in bins],
        }

    @override
    def judge(self) -> dict[str, float | None]:
        """Judge the held-out rows; with held-out comparisons also ``heldout_pair_accuracy``."""
        self._logits = logits = self._start.scorer.scores([row.text for row in self._heldout])
        of_pairs = logits[: 2 * len(self.heldout.pairs)]
        self.pair_scores = of_pairs[::2], of_pairs[1::2]
        result = figures(logits, [row.target for row in self._heldout])
        if pairs := self.heldout.pairs:
            by_pair = pair_figures(pairs, *self.pair_scores, self.heldout.prompts)
            result |= {f"pair_{name}": value for name, value in by_pair.items()}
        return {f"heldout_{name}": value for name, value in result.items()}

    @override
    def log_figures(self, figures: Mapping[str, float | None]) -> None:
        reporter = self._ctx.reporter
        accuracy, majority, area = (figures[f"heldout_{name}"] for name in ("accuracy", "majority", "auc"))
        if accuracy is None or majority is None:
            reporter.warn(f"{self._name}: every held-out label is the middle of its scale, so accuracy is not defined")
            return
        low, high = figures["heldout_accuracy_low"], figures["heldout_accuracy_high"]
        area_text = "not defined" if area is None else f"{area:.3f}"
        reporter.info(
            f"{self._name}: held-out accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}], always the "
            f"more frequent class {majority:.3f}; AUC {area_text}; Brier {figures['heldout_brier']:.3f}; "
            f"calibration error {figures['heldout_calibration_error']:.3f}"
        )
        if area is None:
            reporter.warn(
                "reward: all held-out rows have the same class, so nothing shows whether it can tell good from bad"
            )
        elif accuracy <= majority:
            reporter.warn(
                f"{self._name}: the classifier is right on {accuracy:.1%} of the held-out rows: no better than always "
                f"choosing the more frequent class ({majority:.1%})"
            )

    @override
    def trainer(self) -> Trainer:
        """Make the trainer.

        Raises:
            UsageError: a field of `reward.trainer` does not exist, or the program sets it.
        """
        model, section = self._start.model, self._ctx.config.reward
        model.config.id2label = dict(CLASSES[section.output])
        model.config.label2id = {name: index for index, name in CLASSES[section.output].items()}
        model.config.problem_type = PROBLEMS[section.output]
        own = {"remove_unused_columns": False}
        args = trainer_arguments(TrainingArguments, self._ctx.config, "reward", self._ctx.out, self._device, own)
        if section.gradient_checkpointing and isinstance(model, PeftModel):
            model.enable_input_require_grads()  # else nothing below the first adapter has a gradient to recompute for
        rows = [{"input_ids": row.text.ids, "segments": row.text.segments, "target": row.target} for row in self._rows]
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows, features=_FEATURES),
            data_collator=self._collator(),
            compute_loss_func=two_class_loss if section.output == "softmax" else one_logit_loss,
        )
        cast_trainable_to_fp32(model)
        return trainer

    def _collator(self) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Collate rows as they are scored; without a cache of keys and values, which training does not use."""
        inputs, model = self._start.inputs, self._start.model
        forward = (model.get_base_model() if isinstance(model, PeftModel) else model).forward
        further = {"use_cache": False} if "use_cache" in inspect.signature(forward).parameters else {}

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            texts = [EncodedText(row["input_ids"], row["segments"], len(row["input_ids"])) for row in rows]
            targets = torch.tensor([row["target"] for row in rows], dtype=torch.float32)
            return {**inputs(texts), "labels": targets, **further}

        return collate

    def _to_train(self, share: Share) -> tuple[list[JudgedText], LengthReport]:
        """All rows of a share: answers of comparisons (chosen, rejected, chosen ...), then judged ones."""
        by, reports, rows = self._ctx.config.data.split_by, [], []
        for file in comparison_files(self._ctx.inputs, "train"):
            of_share = rows_of(read_rows(file.path, Comparison), share, by)
            pairs, report = self._start.encode(of_share, file.name)
            rows += _both(pairs)
            reports.append(
                LengthReport(2 * report.used, 2 * report.dropped, 2 * report.cut, report.longest, report.refused)
            )
        answers, of_answers = self._answers("train", share)
        return rows + answers, sum_of_reports([*reports, *of_answers])

    def _answers(self, side: Side, share: Share) -> tuple[list[JudgedText], list[LengthReport]]:
        by, reports, rows = self._ctx.config.data.split_by, [], []
        for file in judgement_files(self._ctx.inputs, side):
            answers, report = self._start.encode_answers(rows_of(self._targets(file), share, by), file.name)
            rows += answers
            reports.append(report)
        return rows, reports

    def _targets(self, file: RowFile) -> list[Judgement]:
        scale = self._scales.get(file.stage)
        rows = list(read_rows(file.path, Judgement))
        if scale is None and rows:
            raise DataError("there are held-out judgements but none to train on", where=file.name)
        return list(with_targets(rows, scale, file.name)) if scale is not None else []

    @property
    def polarity(self) -> str:
        """The labels that are good, in words, for the manifest and for tables."""
        words = [f"{stage}: {scale.words()}" for stage, scale in self._scales.items()]
        words += ["comparisons: chosen is good, rejected is bad"] if comparison_files(self._ctx.inputs, "train") else []
        return "; ".join(words)

    def _log_rows(self) -> None:
        reporter, report = self._ctx.reporter, self.report
        say = reporter.warn if report.dropped else reporter.info
        say(
            f"{self._name}: {report.used} answers used, {report.dropped} dropped, {report.cut} cut; "
            f"longest {report.longest}"
        )
        reporter.info(f"{self._name}: the model learns the probability that an answer is good; {self.polarity}")
        reporter.info(f"{self._name}: {self._good:.1%} of the answers to train on are good")
        targets = {row.target for row in self._rows}
        if len(targets) == 1:
            raise DataError(
                f"all {len(self._rows)} answers to train on have the same label: they teach a classifier nothing",
                where="reward",
                hint="give answers of both classes, good and bad",
            )


def _both(pairs: Sequence[Pair]) -> list[JudgedText]:
    return [judged for pair in pairs for judged in (JudgedText(pair.chosen, 1.0), JudgedText(pair.rejected, 0.0))]


def one_logit_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Binary cross entropy of one logit with targets from 0 to 1.

    Args:
        outputs: with ``logits`` [B, 1].
        labels: [B] targets.
        num_items_in_batch: rows of the whole optimizer step, by which the sum is divided; None: the mean.

    Returns:
        A scalar in fp32.
    """
    losses = binary_cross_entropy_with_logits(outputs.logits.squeeze(-1).float(), labels.float(), reduction="none")
    return _over(losses, num_items_in_batch)


def two_class_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross entropy of two classes, bad and good, with targets from 0 to 1: logits are [B, 2]; see `one_logit_loss`."""
    targets = torch.stack([1 - labels, labels], dim=-1).float()
    return _over(cross_entropy(outputs.logits.float(), targets, reduction="none"), num_items_in_batch)


def _over(losses: Tensor, count: Tensor | int | None) -> Tensor:
    return losses.mean() if count is None else losses.sum() / count


def _share_of_good(rows: Sequence[JudgedText]) -> float:
    """Share of good targets; one in the middle counts half."""
    return sum((row.target > MIDDLE) + 0.5 * (row.target == MIDDLE) for row in rows) / len(rows)
