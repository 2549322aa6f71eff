"""The `sft` stage: train a causal model to write the assistant's turns of the demonstrations."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from pipelines.config import Config
from pipelines.data.canonical import prompt_of, read_rows
from pipelines.data.encode import ChatEncoder, EncodedDemonstration, LengthReport, encode_demonstrations
from pipelines.data.prompts import sample_prompts
from pipelines.data.refusals import RefusedRows
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
from pipelines.models.base_fit import check_vocabulary, refuse_adapter_files, untrained_tokens
from pipelines.models.base_model import check_4bit, length_limit, load_causal, position_bound
from pipelines.models.base_ref import BaseRef
from pipelines.models.generate import end_token_ids, sample
from pipelines.models.machine import autocast, choose_threads, resolve_device
from pipelines.models.publish import publish_model
from pipelines.models.scratch import build_scratch, train_scratch_tokenizer
from pipelines.models.sequence_scores import pad_right, position_ids
from pipelines.models.tokenizer import load_tokenizer, plain_template
from pipelines.report.unfinished import unfinished
from pipelines.run.reporting import Reporter
from pipelines.run.stage import StageContext
from pipelines.trainers.training import no_telemetry, settings_kept, train, trainer_arguments

ANSWERED_PROMPTS = 16
"""Held-out prompts that the trained model answers, to see whether its answers end."""
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
    tokenizer, model = _starting_point(config, demonstrations, device, ctx.reporter)
    choose_threads(config.run, model.num_parameters(), ctx.reporter)

    encoder, limit = ChatEncoder(tokenizer), length_limit(section, model.config, ctx.reporter)

    def encoded(rows: Iterable[Demonstration], side: str) -> tuple[list[EncodedDemonstration], LengthReport]:
        name = f"data/demonstrations/{side}.jsonl"
        return encode_demonstrations(
            *(rows, encoder, limit, section.overlong, section.train_on), name=name, refusals=RefusedRows(ctx)
        )

    rows, report = encoded(demonstrations, "train")
    heldout, _ = encoded(read_rows(ctx.inputs["data/demonstrations"] / "heldout.jsonl", Demonstration), "heldout")
    _log_rows(ctx, report)

    if config.sft_trains_adapter:
        _warn_of_untrained(ctx, model, tokenizer, rows)
    before = heldout_loss(model, heldout, section.per_device_eval_batch_size, config)
    with settings_kept(model):
        trainer = _trainer(ctx, model, tokenizer, rows, limit, device)
        trained = trainable_parameters(model)
        result = train(trainer, ctx, section, "SFT")
    after = heldout_loss(model, heldout, section.per_device_eval_batch_size, config)

    if before is not None and after is not None:
        say = ctx.reporter.info if after < before else ctx.reporter.warn
        say(f"SFT: held-out loss {before:.3f} before, {after:.3f} after, in nats per trained token")

    finished = _share_finished(ctx, model, tokenizer, encoder)

    base = BaseRef.of(config)
    publish_model(model, tokenizer, ctx.out / "model", base=base, run_dir=ctx.run_dir)
    ctx.notes["base"] = base.as_dict()
    ctx.notes["rows"] = {"used": report.used, "dropped": report.dropped, "cut": report.cut, "refused": report.refused}
    tokens = sum(len(row["input_ids"]) for row in rows) * result.epochs
    return {
        "heldout_loss_before": before,
        "heldout_loss_after": after,
        "perplexity_before": _perplexity(before),
        "perplexity_after": _perplexity(after),
        "heldout_finished": finished,
        "rows_used": report.used,
        "rows_dropped": report.dropped,
        "rows_cut": report.cut,
        "rows_refused": report.refused,
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
    config: Config, demonstrations: Sequence[Demonstration], device: torch.device, reporter: Reporter
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
    if model.chat_template == "auto" and tokenizer.chat_template != plain_template(tokenizer):
        reporter.info(
            "sft: the base has a chat template of its own, as instruct models have: SFT teaches it other answers; "
            "sft.enabled: false starts from it as it is"
        )
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


def _warn_of_untrained(
    ctx: StageContext,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[EncodedDemonstration],
) -> None:
    untrained = untrained_tokens(model, tokenizer, {index for row in rows for index in row["input_ids"]})
    if untrained:
        ctx.reporter.warn(
            f"the base has no trained embedding of {', '.join(untrained)}, and LoRA trains none: the model may never "
            "learn to write them\n  train it whole (model.use_peft: false), or set model.chat_template to a template "
            "whose tokens the base knows"
        )


def _share_finished(
    ctx: StageContext,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    encoder: ChatEncoder,
) -> float | None:
    """Share of answers to held-out prompts that end within `ppo.response_length`; None where no prompt fits."""
    config, limit = ctx.config, ctx.config.ppo.response_length
    bound = position_bound(model.config)  # type: ignore[arg-type]
    room = config.ppo.max_prompt_length if bound is None else bound - limit
    rows = read_rows(ctx.inputs["data/demonstrations"] / "heldout.jsonl", Demonstration)
    turns = [prompt_of(row) for row in rows if row.text is None]
    prompts, _ = sample_prompts(turns, encoder, room, ANSWERED_PROMPTS, cut=False, refusals=RefusedRows(ctx))
    if not prompts:
        return None
    ends = end_token_ids(model, tokenizer, config.ppo.stop_tokens)
    with autocast(config.model, model.device):  # type: ignore[arg-type]
        answers = sample(
            model,
            [prompt["prompt_ids"] for prompt in prompts],
            max_new_tokens=limit,
            eos_token_id=ends,
            batch_size=ANSWERED_PROMPTS,
            seed=config.run.seed,
        )
    finished = sum(answer[-1] in ends for answer in answers) / len(answers)
    told = unfinished(finished, limit, f"{len(answers)} answers to held-out prompts")
    if told is not None:
        ctx.reporter.warn(f"SFT: {told}\n  train longer or at a higher rate, or raise ppo.response_length")
    return finished


def _log_rows(ctx: StageContext, report: LengthReport) -> None:
    say = ctx.reporter.warn if report.dropped else ctx.reporter.info
    say(f"SFT: {report.used} rows used, {report.dropped} dropped, {report.cut} cut; the longest has {report.longest}")


def _perplexity(loss: float | None) -> float | None:
    return None if loss is None else math.exp(min(loss, 700.0))
