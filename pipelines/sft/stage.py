"""The `sft` stage: train a causal model to write the assistant's turns of the demonstrations."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset, Features, List, Value
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from pipelines.config import Config
from pipelines.data.canonical import read_rows
from pipelines.data.encode import ChatEncoder, EncodedDemonstration, LengthReport, encode_demonstrations
from pipelines.data.rows import Demonstration
from pipelines.errors import UsageError
from pipelines.models.adapters import (
    DEFAULT,
    add_adapter,
    cast_trainable_to_fp32,
    check_reward_model_of,
    lora_config,
    trainable_parameters,
)
from pipelines.models.base_fit import check_vocabulary, refuse_adapter_files
from pipelines.models.base_model import check_4bit, length_limit, load_causal
from pipelines.models.base_ref import BaseRef
from pipelines.models.machine import autocast, choose_threads, resolve_device
from pipelines.models.publish import publish_model
from pipelines.models.scratch import build_scratch, train_scratch_tokenizer
from pipelines.models.sequence_scores import pad_right, position_ids
from pipelines.models.tokenizer import load_tokenizer
from pipelines.run.stage import StageContext
from pipelines.trainers.training import no_telemetry, settings_kept, train, trainer_arguments

LOGIT_BUDGET = 2**27
"""Maximum number of logits in one forward of the held-out loss: 512 MB in fp32."""
_FEATURES = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})


def run(ctx: StageContext) -> dict[str, Any]:
    """Train on `data/demonstrations` and publish `model/`.

    Returns:
        The stage's final metrics.

    Raises:
        DataError: no row is left to train on.
        TrainingError: training diverged.
        UsageError, ArtifactError, HubError, EnvironmentProblem: the base cannot be loaded or trained as configured.
    """
    config, section = ctx.config, ctx.config.sft
    device = resolve_device(config.run)
    check_4bit(config.model, device)
    set_seed(config.run.seed)
    demonstrations = list(read_rows(ctx.inputs["data/demonstrations"] / "train.jsonl", Demonstration))
    tokenizer, model = _starting_point(config, demonstrations, device)
    choose_threads(config.run, model.num_parameters(), ctx.reporter)

    encoder, limit = ChatEncoder(tokenizer), length_limit(section, model.config, ctx.reporter)
    rows, report = encode_demonstrations(
        demonstrations, encoder, limit, section.overlong, section.train_on, name="data/demonstrations/train.jsonl"
    )
    heldout = _heldout(ctx.inputs["data/demonstrations"], encoder, limit, section.overlong, section.train_on)
    _log_rows(ctx, report)

    before = heldout_loss(model, heldout, section.per_device_eval_batch_size, config)
    with settings_kept(model):
        trainer = _trainer(ctx, model, tokenizer, rows, limit, device)
        trained = trainable_parameters(model)
        result = train(trainer, ctx, "SFT")
    after = heldout_loss(model, heldout, section.per_device_eval_batch_size, config)

    if before is not None and after is not None:
        say = ctx.reporter.info if after < before else ctx.reporter.warn
        say(f"SFT: held-out loss {before:.3f} before, {after:.3f} after, in nats per trained token")

    base = BaseRef.of(config)
    publish_model(model, tokenizer, ctx.out / "model", base=base, run_dir=ctx.run_dir)
    ctx.notes["base"] = base.as_dict()
    ctx.notes["rows"] = {"used": report.used, "dropped": report.dropped, "cut": report.cut}
    tokens = sum(len(row["input_ids"]) for row in rows) * result.epochs
    return {
        "heldout_loss_before": before,
        "heldout_loss_after": after,
        "perplexity_before": _perplexity(before),
        "perplexity_after": _perplexity(after),
        "rows_used": report.used,
        "rows_dropped": report.dropped,
        "rows_cut": report.cut,
        "rows_heldout": len(heldout),
        "train_loss": result.loss,
        "steps": result.steps,
        "tokens_per_second": round(tokens / max(result.seconds, 1e-9), 1),
        "trainable_parameters": trained,
    }


@torch.no_grad()
def heldout_loss(
    model: PreTrainedModel | PeftModel, rows: Sequence[EncodedDemonstration], batch_size: int, config: Config
) -> float | None:
    """Mean negative log-likelihood per trained token, in nats, over all rows together; None without such tokens."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    device = next(base.parameters()).device
    order = sorted(rows, key=lambda row: len(row["input_ids"]))
    longest = max((len(row["input_ids"]) for row in rows), default=1)
    batch_size = max(1, min(batch_size, LOGIT_BUDGET // (longest * base.config.get_text_config().vocab_size)))
    total, count = 0.0, 0
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            ids, mask = pad_right([row["input_ids"] for row in batch], device)
            labels = torch.full_like(ids, -100)
            for index, row in enumerate(batch):
                labels[index, : len(row["labels"])] = torch.tensor(row["labels"], device=device)
            with autocast(config.model, device):
                logits = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits
            trained = labels[:, 1:] != -100
            total += float(cross_entropy(logits[:, :-1][trained].float(), labels[:, 1:][trained], reduction="sum"))
            count += int(trained.sum())
    finally:
        model.train(was_training)
    return total / count if count else None


def _starting_point(
    config: Config, demonstrations: Sequence[Demonstration], device: torch.device
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel | PeftModel]:
    """Tokenizer and model to train: from scratch, loaded whole, or under a fresh adapter."""
    model = config.model
    if model.init == "scratch":
        texts = (text for row in demonstrations for text in row.texts())
        tokenizer: PreTrainedTokenizerBase = train_scratch_tokenizer(texts, model.scratch)
        return tokenizer, build_scratch(model.scratch, tokenizer, config.run.seed).to(device)  # type: ignore[arg-type]
    base = BaseRef.outside(model)
    refuse_adapter_files(base.path(Path()), base.revision)
    tokenizer = load_tokenizer(base.path(Path()), model, revision=base.revision)
    causal = load_causal(model, base.path(Path()), device, revision=base.revision)
    check_vocabulary(causal, tokenizer)
    start: PreTrainedModel | PeftModel = causal
    if config.sft_trains_adapter:
        start = add_adapter(causal, DEFAULT, lora_config(model, "CAUSAL_LM"), trainable=True)
    if config.reward.enabled and config.reward.base is None:
        check_reward_model_of(start, model, base.path(Path()))
    return tokenizer, start


def _trainer(
    ctx: StageContext,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[EncodedDemonstration],
    limit: int,
    device: torch.device,
) -> SFTTrainer:
    packing = ctx.config.sft.packing
    own = {"packing": packing, "packing_strategy": "bfd", "max_length": limit if packing else None}
    args = trainer_arguments(SFTConfig, ctx.config, "sft", ctx.out, device, own)
    no_telemetry()
    try:
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list([dict(row) for row in rows], features=_FEATURES),
            processing_class=copy.deepcopy(tokenizer),  # TRL gives it a pad token where it has none
        )
    except ValueError as error:
        raise UsageError(f"SFT cannot be set up: {error}", where="sft") from error
    cast_trainable_to_fp32(model)
    return trainer


def _heldout(
    directory: Path,
    encoder: ChatEncoder,
    limit: int,
    overlong: Literal["drop", "cut", "fail"],
    train_on: Literal["all", "last"],
) -> list[EncodedDemonstration]:
    rows = read_rows(directory / "heldout.jsonl", Demonstration)
    return encode_demonstrations(rows, encoder, limit, overlong, train_on, name="data/demonstrations/heldout.jsonl")[0]


def _log_rows(ctx: StageContext, report: LengthReport) -> None:
    say = ctx.reporter.warn if report.dropped else ctx.reporter.info
    say(f"SFT: {report.used} rows used, {report.dropped} dropped, {report.cut} cut; the longest has {report.longest}")


def _perplexity(loss: float | None) -> float | None:
    return None if loss is None else math.exp(min(loss, 700.0))
