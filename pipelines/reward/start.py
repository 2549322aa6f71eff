"""What a reward model starts from: the SFT model and its tokenizer, or a base of its own. One shape for both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import List, Value
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.config import Config
from pipelines.data.encode import ChatEncoder, EncodedComparison, LengthReport, encode_comparisons
from pipelines.data.rows import Comparison
from pipelines.errors import DataError
from pipelines.models.adapters import add_reward_adapter
from pipelines.models.artifact import model_directory
from pipelines.models.base import BaseRef, disable_dropout, load_sequence_classifier
from pipelines.models.judge import Pair
from pipelines.models.limits import length_limit
from pipelines.models.reward_model import RewardModel, TextRewardModel, TokenRewardModel
from pipelines.models.text_classifier import EncodedText, TextClassifier, load_text_classifier
from pipelines.models.tokenizer import reward_tokenizer
from pipelines.stage import StageContext

Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Start:
    """A reward model before its training, and all that is special about its kind.

    Attributes:
        model: what trains: a sequence classifier with one label, with dropout off.
        scorer: scores with that very model, before and after.
        tokenizer: what is published with it; its pad is not its EOS.
        base: where the weights come from.
        encode: rows and what to call them -> pairs within the length limit, and what that limit did.
        collate: rows of `columns` -> what the model's forward takes, chosen before rejected; None: TRL's own way.
    """

    model: PreTrainedModel | PeftModel
    scorer: RewardModel
    tokenizer: PreTrainedTokenizerBase
    base: BaseRef
    encode: Callable[[Iterable[Comparison], str], tuple[list[Pair], LengthReport]]
    collate: Collate | None


def on_the_sft_model(
    ctx: StageContext, sft: Path | None, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> Start:
    """The SFT model (or the outside base) with a new head, under a copy of the SFT adapter or whole; reads its tokens.

    Args:
        ctx: the stage's.
        sft: directory of the SFT stage; None: SFT is off.
        tokenizer: the policy's.
        device: where to train.
    """
    config, section, base = ctx.config, ctx.config.reward, BaseRef.of(ctx.config)
    model = _starting_point(config, sft, base, ctx.out.parent, device)
    disable_dropout(model)
    limit = length_limit(section, model.config, ctx.reporter)
    encoder = ChatEncoder(tokenizer)

    def encode(rows: Iterable[Comparison], name: str) -> tuple[list[Pair], LengthReport]:
        encoded, report = encode_comparisons(rows, encoder, limit, section.overlong, name=name)
        return [_pair_of_tokens(comparison) for comparison in encoded], report

    scorer = TokenRewardModel(model, encoder, config.model, section.per_device_eval_batch_size)
    return Start(model, scorer, reward_tokenizer(tokenizer), base, encode, collate=None)


def on_its_own_base(ctx: StageContext, device: torch.device) -> Start:
    """The model of `reward.base` with a new head, trained whole in fp32; reads text with its own tokenizer."""
    section = ctx.config.reward
    base = BaseRef(name_or_path=section.base, revision=section.base_revision)
    model, own = load_text_classifier(str(section.base), device, revision=section.base_revision, new_head=True)
    disable_dropout(model)
    tokenizer = reward_tokenizer(own)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    classifier = TextClassifier("reward", model, tokenizer, limit=section.max_length)
    if classifier.limit is not None and classifier.limit < section.max_length:
        ctx.reporter.warn(f"reward.max_length is above what {section.base} can hold; {classifier.limit} is used")
    _publish_as_read(tokenizer, classifier)

    def encode(rows: Iterable[Comparison], name: str) -> tuple[list[Pair], LengthReport]:
        return encode_texts(rows, classifier, section.overlong, name)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """As the texts are scored: same padding, positions and segments."""
        texts = [
            EncodedText(row[f"{side}_ids"], row[f"{side}_segments"], len(row[f"{side}_ids"]))
            for side in ("chosen", "rejected")
            for row in rows
        ]
        batch = classifier.inputs(texts, "cpu")
        if "margin" in rows[0]:
            batch["margin"] = torch.tensor([row["margin"] for row in rows], dtype=torch.float32)
        return batch

    scorer = TextRewardModel(classifier, section.per_device_eval_batch_size)
    return Start(model, scorer, tokenizer, base, encode, collate)


def encode_texts(
    rows: Iterable[Comparison], classifier: TextClassifier, overlong: str, name: str
) -> tuple[list[Pair], LengthReport]:
    """Both texts of each comparison; the length of a pair is that of its longer text. `cut` cuts the beginning.

    Raises:
        DataError: a row cannot be encoded, one is too long with `fail`, or none is left.
    """
    pairs: list[Pair] = []
    total = over = longest = 0
    for total, row in enumerate(rows, 1):
        try:
            chosen, rejected = (classifier.encode(row.prompt, answer) for answer in (row.chosen, row.rejected))
        except DataError as error:
            error.where = f"{name}:{total}"
            raise
        length = max(chosen.length, rejected.length)
        longest = max(longest, length)
        if classifier.limit is not None and length > classifier.limit:
            over += 1
            if overlong == "fail":
                raise DataError(
                    f"a pair of {length} tokens is longer than {classifier.limit}",
                    where=f"{name}:{total}",
                    hint="raise reward.max_length where the base allows it, or set reward.overlong to drop or cut",
                )
            if overlong == "drop":
                continue
        pairs.append(Pair(chosen, rejected, row.margin))
    if total and not pairs:
        raise DataError(
            f"none of the {total} pairs fits {classifier.limit} tokens; the longest has {longest}",
            where=name,
            hint="raise reward.max_length where the base allows it, or set reward.overlong to cut",
        )
    dropped = total - len(pairs)
    return pairs, LengthReport(used=len(pairs), dropped=dropped, cut=over - dropped, longest=longest)


def columns(pairs: Sequence[Pair], *, segments: bool, margin: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The pairs as rows for a data set, and the features of its columns.

    Args:
        pairs: of one kind of reward model.
        segments: whether the model's collator wants them.
        margin: whether margins count; a pair without one then has 0.
    """
    with_margin = margin and any(pair.margin is not None for pair in pairs)
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        row: dict[str, Any] = {"chosen_ids": pair.chosen.ids, "rejected_ids": pair.rejected.ids}
        if segments:
            row |= {"chosen_segments": pair.chosen.segments, "rejected_segments": pair.rejected.segments}
        if with_margin:
            row["margin"] = pair.margin or 0.0
        rows.append(row)
    features = {name: Value("float32") if name == "margin" else List(Value("int32")) for name in rows[0]}
    return rows, features


def _pair_of_tokens(comparison: EncodedComparison) -> Pair:
    prompt = comparison["prompt_ids"]
    chosen, rejected = prompt + comparison["chosen_ids"], prompt + comparison["rejected_ids"]
    return Pair(
        EncodedText(chosen, [], len(chosen)), EncodedText(rejected, [], len(rejected)), comparison.get("margin")
    )


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
    """Let the tokenizer say its limit and whether the model takes segments: all who open it read as it was trained."""
    if classifier.limit is not None:
        tokenizer.model_max_length = classifier.limit
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.model_input_names = [*names, *(["token_type_ids"] if classifier.takes_segments else [])]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # save_pretrained writes these
