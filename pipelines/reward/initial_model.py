"""The start of a reward model: the SFT model and its tokenizer, or a base of its own. One shape for both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from pipelines.config import Config
from pipelines.data.canonical import read_rows
from pipelines.data.encode import (
    ChatEncoder,
    EncodedComparison,
    LengthReport,
    Overlong,
    Refusals,
    encode_comparisons,
    encode_judgements,
    within_length,
)
from pipelines.data.refusals import RefusedRows
from pipelines.data.rows import Comparison, Judgement
from pipelines.data.split import prompt_key
from pipelines.models.adapters import add_reward_adapter
from pipelines.models.base_model import disable_dropout, length_limit, load_sequence_classifier
from pipelines.models.base_ref import BaseRef
from pipelines.models.policies import model_directory
from pipelines.models.published_reward import Output
from pipelines.models.reward_model import RewardModel, TextRewardModel, TokenRewardModel
from pipelines.models.sequence_scores import pad_right
from pipelines.models.text_classifier import EncodedText, TextClassifier, load_text_classifier
from pipelines.models.tokenizer import reward_tokenizer
from pipelines.reward.assessment import JudgedText, Pair
from pipelines.reward.training_rows import comparison_files, sum_of_reports
from pipelines.run.stage import StageContext

EncodeComparisons = Callable[[Iterable[Comparison], str], tuple[list[Pair], LengthReport]]
"""Comparisons and their name in errors -> pairs within the length limit, and the length report."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out comparisons, as they are and as the reward model reads them.

    Attributes:
        rows: the comparisons.
        pairs: the same, encoded.
        report: effect of the length limit.
    """

    rows: Sequence[Comparison]
    pairs: Sequence[Pair]
    report: LengthReport

    @classmethod
    def read(cls, inputs: Mapping[str, Path], encode: EncodeComparisons) -> HeldOut:
        """Read and encode the held-out comparisons of a reward stage; those that are too long are left out."""
        rows, pairs, reports = [], [], []
        for file in comparison_files(inputs, "heldout"):
            of_file = list(read_rows(file.path, Comparison))
            encoded, report = encode(of_file, file.name)
            rows += [of_file[pair.number] for pair in encoded]
            pairs += encoded
            reports.append(report)
        return cls(rows, pairs, sum_of_reports(reports))

    @property
    def prompts(self) -> list[int]:
        """A key of the prompt of each pair."""
        return [prompt_key(row.prompt) for row in self.rows]


class Objective(Protocol):
    """The rows, training and judging of a reward model.

    Attributes:
        report: effect of the length limit on the rows to train on.
        num_heldout: number of rows to judge by.
        num_tokens: number of tokens in all rows to train on.
        heldout_texts: texts of the first rows to judge by, at least two.
        heldout: comparisons to judge by.
        outputs: the outputs that PPO may use.
        pair_scores: scores of the chosen and of the rejected answers of `heldout` by the last call of `judge`.
    """

    report: LengthReport
    num_heldout: int
    num_tokens: int
    heldout_texts: Sequence[EncodedText]
    heldout: HeldOut
    outputs: Sequence[Output]
    pair_scores: tuple[list[float], list[float]]

    @property
    def polarity(self) -> str | None:
        """The labels that are good, in words; None of pairs, whose chosen answer is."""

    @property
    def notes(self) -> dict[str, Any]:
        """Further notes for the manifest, on the rows and on the model as `judge` saw it last."""

    def judge(self) -> dict[str, float | None]:
        """Figures of the model in its present state on the held-out rows; their names begin with ``heldout_``."""

    def trainer(self) -> Trainer:
        """The trainer of the model."""

    def log_figures(self, figures: Mapping[str, float | None]) -> None:
        """Log what `judge` found after the training, with warnings."""


@dataclass(frozen=True)
class InitialModel:
    """A reward model before its training, with everything that depends on its kind.

    Attributes:
        model: the model to train: a sequence classifier without dropout, of one label, or of two with
            `output: softmax`.
        scorer: scores with that very model, before and after the training.
        tokenizer: the tokenizer that is published; its pad is not its EOS.
        base: reference to the base of the weights.
        encode: comparisons and their name in errors -> pairs within the length limit, and the length report.
        encode_answers: judgements, whose label is a target from 0 to 1 -> judged answers, and the same.
        inputs: rows -> the inputs of the model's forward, each [B, longest] on the CPU, as `scorer` reads them.
    """

    model: PreTrainedModel | PeftModel
    scorer: RewardModel
    tokenizer: PreTrainedTokenizerBase
    base: BaseRef
    encode: EncodeComparisons
    encode_answers: Callable[[Iterable[Judgement], str], tuple[list[JudgedText], LengthReport]]
    inputs: Callable[[Sequence[EncodedText]], dict[str, torch.Tensor]]


def start_from_sft(
    ctx: StageContext, sft: Path | None, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> InitialModel:
    """Put a new head on the SFT model (or the outside base), under a copy of the SFT adapter or whole; it reads tokens.

    Args:
        sft: directory of the SFT stage; None: SFT is off.
    """
    config, section, base = ctx.config, ctx.config.reward, BaseRef.of(ctx.config)
    model = _starting_point(config, sft, base, ctx.run_dir, device)
    disable_dropout(model)
    limit = length_limit(section, model.config, ctx.reporter)
    encoder = ChatEncoder(tokenizer)

    def encode(rows: Iterable[Comparison], name: str) -> tuple[list[Pair], LengthReport]:
        encoded, report = encode_comparisons(
            rows, encoder, limit, section.overlong, name=name, refusals=RefusedRows(ctx)
        )
        return [pair_of_tokens(comparison) for comparison in encoded], report

    def encode_answers(rows: Iterable[Judgement], name: str) -> tuple[list[JudgedText], LengthReport]:
        encoded, report = encode_judgements(
            rows, encoder, limit, section.overlong, name=name, refusals=RefusedRows(ctx)
        )
        return [JudgedText(_whole(row["prompt_ids"], row["completion_ids"]), row["label"]) for row in encoded], report

    padded = reward_tokenizer(tokenizer)
    pad = padded.pad_token_id
    model.config.get_text_config().pad_token_id = pad  # the classifier finds the last token by it

    def inputs(rows: Sequence[EncodedText]) -> dict[str, torch.Tensor]:
        ids, mask = pad_right([row.ids for row in rows], "cpu")
        return {"input_ids": ids.masked_fill(mask == 0, pad), "attention_mask": mask}

    scorer = TokenRewardModel(model, encoder, config.model, section.per_device_eval_batch_size)
    return InitialModel(model, scorer, padded, base, encode, encode_answers, inputs)


def start_from_own_base(ctx: StageContext, device: torch.device) -> InitialModel:
    """Put a new head on the model of `reward.base`; it is trained whole in fp32, and has its own tokenizer."""
    section = ctx.config.reward
    base = BaseRef(name_or_path=section.base, revision=section.base_revision)
    labels = 2 if section.output == "softmax" else 1
    model, own = load_text_classifier(
        str(section.base),
        device,
        revision=section.base_revision,
        labels=labels,
        new_head=True,
        date=ctx.config.run.date,
    )
    disable_dropout(model)
    tokenizer = reward_tokenizer(own)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    classifier = TextClassifier("reward", model, tokenizer, limit=section.max_length)
    if classifier.limit is not None and classifier.limit < section.max_length:
        ctx.reporter.warn(f"reward.max_length is more than {section.base} can hold; {classifier.limit} is used")
    _publish_as_read(tokenizer, classifier)

    def encode(rows: Iterable[Comparison], name: str) -> tuple[list[Pair], LengthReport]:
        return encode_texts(rows, classifier, section.overlong, name, RefusedRows(ctx))

    def encode_answers(rows: Iterable[Judgement], name: str) -> tuple[list[JudgedText], LengthReport]:
        return encode_judged_texts(rows, classifier, section.overlong, name, RefusedRows(ctx))

    def inputs(rows: Sequence[EncodedText]) -> dict[str, torch.Tensor]:
        return classifier.inputs(rows, "cpu")

    scorer = TextRewardModel(classifier, section.per_device_eval_batch_size)
    return InitialModel(model, scorer, tokenizer, base, encode, encode_answers, inputs)


def encode_texts(
    rows: Iterable[Comparison],
    classifier: TextClassifier,
    overlong: Overlong,
    name: str,
    refusals: Refusals | None = None,
) -> tuple[list[Pair], LengthReport]:
    """Both texts of each comparison; the length of a pair is that of its longer text. `cut` cuts the beginning.

    Raises:
        DataError: a row cannot be encoded, one is too long with `fail`, or none is left.
    """

    numbers = itertools.count()

    def fit(row: Comparison) -> tuple[int, Pair]:
        number = next(numbers)
        chosen, rejected = (classifier.encode(row.prompt, answer) for answer in (row.chosen, row.rejected))
        return max(chosen.length, rejected.length), Pair(chosen, rejected, row.margin, number)

    return within_length(rows, fit, classifier.limit, overlong, name, refusals)


def encode_judged_texts(
    rows: Iterable[Judgement],
    classifier: TextClassifier,
    overlong: Overlong,
    name: str,
    refusals: Refusals | None = None,
) -> tuple[list[JudgedText], LengthReport]:
    """The text of each judgement with its label as the target; otherwise as `encode_texts`."""

    def fit(row: Judgement) -> tuple[int, JudgedText]:
        text = classifier.encode(row.prompt, row.completion)
        return text.length, JudgedText(text, float(row.label))

    return within_length(rows, fit, classifier.limit, overlong, name, refusals)


def pair_of_tokens(comparison: EncodedComparison) -> Pair:
    """Join each answer of a pair to the prompt."""
    prompt = comparison["prompt_ids"]
    chosen, rejected = _whole(prompt, comparison["chosen_ids"]), _whole(prompt, comparison["rejected_ids"])
    return Pair(chosen, rejected, comparison.get("margin"), comparison["number"])


def _whole(prompt: list[int], answer: list[int]) -> EncodedText:
    ids = prompt + answer
    return EncodedText(ids, [], len(ids))


def _starting_point(
    config: Config, sft: Path | None, base: BaseRef, run_dir: Path, device: torch.device
) -> PreTrainedModel | PeftModel:
    model = config.model
    if not model.use_peft:
        start = str(model_directory(sft)) if sft is not None else base.path(run_dir)
        revision = base.revision if sft is None else None
        return load_sequence_classifier(model, start, device, revision=revision, new_head=True)
    classifier = load_sequence_classifier(model, base.path(run_dir), device, revision=base.revision, new_head=True)
    adapter = model_directory(sft) if sft is not None and config.sft_trains_adapter else None
    return add_reward_adapter(classifier, model, adapter)


def _publish_as_read(tokenizer: PreTrainedTokenizerBase, classifier: TextClassifier) -> None:
    """Record the limit, and whether the model takes segments, in the tokenizer, so that all read as in training."""
    if classifier.limit is not None:
        tokenizer.model_max_length = classifier.limit
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.model_input_names = [*names, *(["token_type_ids"] if classifier.takes_segments else [])]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # save_pretrained writes these
