"""The reward model: a pairwise (Bradley-Terry) score that starts from the SFT model and is read at the EOS."""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import RewardConfig, RewardTrainer  # type: ignore[attr-defined]

from pipelines.config import Config
from pipelines.data.canonical import read_rows
from pipelines.data.encode import ChatEncoder, EncodedComparison, encode_comparisons
from pipelines.data.rows import Comparison
from pipelines.disk import write_atomic
from pipelines.errors import DataError, UsageError
from pipelines.models.adapters import add_reward_adapter, cast_trainable_to_fp32, trainable_parameters
from pipelines.models.artifact import model_directory, open_policy, open_tokenizer
from pipelines.models.base import BaseRef, check_4bit, disable_dropout, load_sequence_classifier
from pipelines.models.generate import sample
from pipelines.models.judge import check_golden, judge, probe, write_golden
from pipelines.models.limits import length_limit
from pipelines.models.machine import autocast, choose_threads, resolve_device
from pipelines.models.publish import publish_model
from pipelines.models.score import score_ids
from pipelines.models.tokenizer import reward_tokenizer
from pipelines.stage import StageContext
from pipelines.trainers import no_telemetry, train, trainer_arguments

TRAIN, HELDOUT = "data/comparisons/train.jsonl", "data/comparisons/heldout.jsonl"


def run(ctx: StageContext) -> dict[str, Any]:
    """Train on `data/comparisons`; publish `model/`, its normalization and golden scores.

    Returns:
        The stage's final metrics.

    Raises:
        DataError: no pair is left to train or to judge on.
        TrainingError: training diverged, or the published model does not give the scores of the trained one.
        UsageError, ArtifactError, HubError, EnvironmentProblem: the base cannot be loaded or trained as asked.
    """
    config, section = ctx.config, ctx.config.reward
    device = resolve_device(config.run)
    check_4bit(config.model, device)
    set_seed(config.run.seed)
    sft = ctx.inputs.get("sft")
    tokenizer = open_tokenizer(sft, config.model)
    encoder, padded = ChatEncoder(tokenizer), reward_tokenizer(tokenizer)
    comparisons = ctx.inputs["data/comparisons"]
    heldout_rows = list(read_rows(comparisons / "heldout.jsonl", Comparison))

    base = BaseRef.of(config)
    responses = _sft_responses(ctx, sft, encoder, tokenizer, heldout_rows, device)
    model = _starting_point(config, sft, base, ctx.out.parent, device)
    disable_dropout(model)
    limit = length_limit(section, model.config, ctx.reporter)
    pairs, report = encode_comparisons(
        read_rows(comparisons / "train.jsonl", Comparison), encoder, limit, section.overlong, name=TRAIN
    )
    heldout, _ = encode_comparisons(heldout_rows, encoder, limit, section.overlong, name=HELDOUT)
    if not heldout:
        raise DataError("there is no held-out pair to judge the reward model by", where=HELDOUT)
    say = ctx.reporter.warn if report.dropped else ctx.reporter.info
    say(f"reward: {report.used} pairs used, {report.dropped} dropped, {report.cut} cut; longest {report.longest}")

    before = judge(model, heldout, section.per_device_eval_batch_size, config)
    trainer = _trainer(ctx, model, padded, pairs, device)
    trained = trainable_parameters(model)
    result = train(trainer, ctx, "reward model")
    after = judge(model, heldout, section.per_device_eval_batch_size, config)
    probes = probe(model, encoder, config)

    publish_model(model, padded, ctx.out / "model", base=base, run_dir=ctx.out.parent)
    normalization = _normalization(ctx, model, responses)
    write_golden(ctx.out, model, heldout)
    del model, trainer
    _free()
    check_golden(ctx.out, config, device, base)

    ctx.notes["base"] = base.as_dict()
    ctx.notes["rows"] = {"used": report.used, "dropped": report.dropped, "cut": report.cut}
    tokens = sum(2 * len(p["prompt_ids"]) + len(p["chosen_ids"]) + len(p["rejected_ids"]) for p in pairs)
    share_done = result.metrics.get("epoch", section.num_train_epochs)
    return {
        **{f"{key}_before": value for key, value in before.items()},
        **{f"{key}_after": value for key, value in after.items()},
        **probes,
        "rows_used": report.used,
        "rows_dropped": report.dropped,
        "rows_cut": report.cut,
        "rows_heldout": len(heldout),
        "normalization_mean": normalization["mean"],
        "normalization_std": normalization["std"],
        "train_loss": result.training_loss,
        "steps": result.global_step,
        "tokens_per_second": round(tokens * share_done / max(result.metrics["train_runtime"], 1e-9), 1),
        "trainable_parameters": trained,
    }


def _starting_point(
    config: Config, sft: Path | None, base: BaseRef, run_dir: Path, device: torch.device
) -> PreTrainedModel | PeftModel:
    """The SFT model (or the outside base) with a new head: under a copy of the SFT adapter, or whole."""
    model = config.model
    if not model.use_peft:
        start = str(model_directory(sft)) if sft is not None else base.path(run_dir)
        revision = base.revision if sft is None else None
        return load_sequence_classifier(model, start, device, revision=revision, new_head=True)
    classifier = load_sequence_classifier(model, base.path(run_dir), device, revision=base.revision, new_head=True)
    adapter = model_directory(sft) if sft is not None and config.sft_trains_adapter else None
    return add_reward_adapter(classifier, model, adapter)


def _trainer(
    ctx: StageContext,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[EncodedComparison],
    device: torch.device,
) -> RewardTrainer:
    section = ctx.config.reward
    rows: list[dict[str, Any]] = [
        {
            "chosen_ids": pair["prompt_ids"] + pair["chosen_ids"],
            "rejected_ids": pair["prompt_ids"] + pair["rejected_ids"],
        }
        for pair in pairs
    ]
    features = {"chosen_ids": List(Value("int32")), "rejected_ids": List(Value("int32"))}
    if section.use_margin and any("margin" in pair for pair in pairs):
        features["margin"] = Value("float32")
        rows = [{**row, "margin": pair.get("margin", 0.0)} for row, pair in zip(rows, pairs, strict=True)]
    own = {
        "max_length": None,  # TRL would drop longer rows without a word
        "disable_dropout": True,
        "center_rewards_coefficient": section.center_rewards_coefficient,
    }
    args = trainer_arguments(RewardConfig, ctx.config, "reward", ctx.out, device, own)
    no_telemetry()
    try:
        trainer = RewardTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows, features=Features(features)),
            processing_class=tokenizer,
        )
    except ValueError as error:
        raise UsageError(f"the reward model cannot be set up: {error}", where="reward") from error
    cast_trainable_to_fp32(model)
    return trainer


def _sft_responses(
    ctx: StageContext,
    sft: Path | None,
    encoder: ChatEncoder,
    tokenizer: PreTrainedTokenizerBase,
    heldout: Sequence[Comparison],
    device: torch.device,
) -> list[list[int]]:
    """Held-out prompts with a sampled response of the SFT model each, as ids."""
    config = ctx.config
    policy = open_policy(sft, config.model, device)
    choose_threads(config.run, policy.num_parameters(), ctx.reporter)
    room = length_limit(config.reward, policy.config, ctx.reporter) - config.ppo.response_length
    distinct = list(dict.fromkeys(row.prompt for row in heldout))
    prompts = [ids for ids in map(encoder.prompt, distinct) if 0 < len(ids) <= room]
    prompts = prompts[: config.reward.normalization_prompts]
    if not prompts:
        raise DataError(
            f"no held-out prompt leaves room for a response of {config.ppo.response_length} tokens",
            where=HELDOUT,
            hint="lower ppo.response_length or raise reward.max_length",
        )
    with ctx.reporter.task("SFT responses", len(prompts)) as task, autocast(config.model, device):
        responses = sample(
            policy,
            prompts,
            max_new_tokens=config.ppo.response_length,
            temperature=config.ppo.temperature,
            eos_token_id=int(tokenizer.eos_token_id),
            batch_size=config.ppo.rollout_forward_batch_size,
            seed=config.run.seed,
            on_batch=task.advance,
        )
    del policy
    _free()
    return [prompt + response for prompt, response in zip(prompts, responses, strict=True)]


def _normalization(
    ctx: StageContext, model: PreTrainedModel | PeftModel, responses: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Mean and deviation of the score on SFT responses, stored beside the model: PPO shifts and scales by them."""
    with autocast(ctx.config.model, next(model.parameters()).device):  # as PPO scores
        scores = score_ids(model, responses, ctx.config.reward.per_device_eval_batch_size)
    deviation = statistics.pstdev(scores)
    if deviation < 1e-6:
        ctx.reporter.warn("the reward model gives every SFT response the same score; it will not be scaled")
        deviation = 1.0
    normalization = {"mean": statistics.fmean(scores), "std": deviation, "n": len(scores)}
    write_atomic(ctx.out / "model" / "normalization.json", json.dumps(normalization) + "\n")
    return normalization


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
