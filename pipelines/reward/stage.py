"""The `reward` stage: a pairwise (Bradley-Terry) score, trained on the comparisons, judged, published and proven."""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features
from transformers import PreTrainedTokenizerBase, set_seed
from trl import RewardConfig, RewardTrainer  # type: ignore[attr-defined]

from pipelines.data.canonical import read_rows
from pipelines.data.encode import ChatEncoder
from pipelines.data.rows import Comparison, Message
from pipelines.disk import write_atomic
from pipelines.errors import DataError, UsageError
from pipelines.models.adapters import cast_trainable_to_fp32, trainable_parameters
from pipelines.models.artifact import open_policy, open_tokenizer
from pipelines.models.base import check_4bit
from pipelines.models.generate import closed, sample, stop_token_ids
from pipelines.models.judge import Pair, check_golden, judge, probe, write_golden
from pipelines.models.limits import length_limit
from pipelines.models.machine import autocast, choose_threads, resolve_device
from pipelines.models.publish import publish_model
from pipelines.models.reward_model import RewardModel
from pipelines.reward.start import Start, columns, on_its_own_base, on_the_sft_model
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
    policy_tokenizer = open_tokenizer(sft, config.model)
    comparisons = ctx.inputs["data/comparisons"]
    heldout_rows = list(read_rows(comparisons / "heldout.jsonl", Comparison))

    responses = _sft_responses(ctx, sft, policy_tokenizer, heldout_rows, device)
    if section.base is None:
        start = on_the_sft_model(ctx, sft, policy_tokenizer, device)
    else:
        start = on_its_own_base(ctx, device)
    pairs, report = start.encode(read_rows(comparisons / "train.jsonl", Comparison), TRAIN)
    heldout, _ = start.encode(heldout_rows, HELDOUT)
    if not heldout:
        raise DataError("there is no held-out pair to judge the reward model by", where=HELDOUT)
    say = ctx.reporter.warn if report.dropped else ctx.reporter.info
    say(f"reward: {report.used} pairs used, {report.dropped} dropped, {report.cut} cut; longest {report.longest}")

    scorer = start.scorer
    before = judge(scorer, heldout)
    trainer = _trainer(ctx, start, pairs, device)
    trained = trainable_parameters(start.model)
    result = train(trainer, ctx, "reward model")
    after = judge(scorer, heldout)
    probes = probe(scorer, config)

    base, reads = start.base, scorer.reads
    publish_model(start.model, start.tokenizer, ctx.out / "model", base=base, run_dir=ctx.out.parent)
    normalization = _normalization(ctx, scorer, responses)
    write_golden(ctx.out, scorer, heldout)
    del start, scorer, trainer
    _free()
    check_golden(ctx.out, config, device, base, reads)

    ctx.notes["base"] = base.as_dict()
    ctx.notes["reads"] = reads
    ctx.notes["rows"] = {"used": report.used, "dropped": report.dropped, "cut": report.cut}
    tokens = sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs)
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
        "train_loss": result.loss,
        "steps": result.steps,
        "tokens_per_second": round(tokens * result.epochs / max(result.seconds, 1e-9), 1),
        "trainable_parameters": trained,
    }


def _trainer(ctx: StageContext, start: Start, pairs: Sequence[Pair], device: torch.device) -> RewardTrainer:
    section = ctx.config.reward
    rows, features = columns(pairs, segments=start.collate is not None, margin=section.use_margin)
    own = {
        "max_length": None,  # TRL would drop longer rows without a word
        "disable_dropout": True,
        "center_rewards_coefficient": section.center_rewards_coefficient,
        "remove_unused_columns": start.collate is None,
    }
    args = trainer_arguments(RewardConfig, ctx.config, "reward", ctx.out, device, own)
    no_telemetry()
    try:
        trainer = RewardTrainer(
            model=start.model,
            args=args,
            train_dataset=Dataset.from_list(rows, features=Features(features)),
            processing_class=start.tokenizer,
            data_collator=start.collate,
        )
    except ValueError as error:
        raise UsageError(f"the reward model cannot be set up: {error}", where="reward") from error
    cast_trainable_to_fp32(start.model)
    return trainer


@dataclass(frozen=True)
class _Response:
    """What the SFT model answered: messages and text, and the answer's ids as sampled."""

    prompt: Sequence[Message]
    text: str
    ids: list[int]


def _sft_responses(
    ctx: StageContext,
    sft: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    heldout: Sequence[Comparison],
    device: torch.device,
) -> list[_Response]:
    """Held-out prompts with a sampled response of the SFT model each."""
    config, encoder = ctx.config, ChatEncoder(tokenizer)
    ends = stop_token_ids(tokenizer, config.ppo.stop_tokens)
    policy = open_policy(sft, config.model, device)
    choose_threads(config.run, policy.num_parameters(), ctx.reporter)
    room = length_limit(config.reward, policy.config, ctx.reporter) - config.ppo.response_length
    distinct = list(dict.fromkeys(row.prompt for row in heldout))
    encoded = [(prompt, encoder.prompt(prompt)) for prompt in distinct]
    prompts = [(prompt, ids) for prompt, ids in encoded if 0 < len(ids) <= room]
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
            [ids for _, ids in prompts],
            max_new_tokens=config.ppo.response_length,
            temperature=config.ppo.temperature,
            eos_token_id=ends,
            batch_size=config.ppo.rollout_forward_batch_size,
            seed=config.run.seed,
            on_batch=task.advance,
        )
    del policy
    _free()
    return [
        _Response(prompt, encoder.decode(ids), closed(ids, ends))
        for (prompt, _), ids in zip(prompts, responses, strict=True)
    ]


def _normalization(ctx: StageContext, scorer: RewardModel, responses: Sequence[_Response]) -> dict[str, float]:
    """Mean and deviation of the score on SFT responses, stored beside the model: PPO shifts and scales by them."""
    scores = scorer.scores([scorer.row(answer.prompt, answer.text, answer.ids) for answer in responses])
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
