"""The `ppo` stage: load the roles, the prompts and the reward source, train, publish the policy."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pipelines.data.canonical import read_rows
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt, LengthReport, encode_prompts
from pipelines.data.rows import Prompt
from pipelines.models.artifact import open_tokenizer
from pipelines.models.base import BaseRef
from pipelines.models.machine import choose_threads, resolve_device
from pipelines.models.publish import publish_model
from pipelines.ppo.casting import build_roles
from pipelines.ppo.generation import TransformersEngine
from pipelines.ppo.rollout import Reward, RoleReward, TextReward
from pipelines.ppo.train import Training
from pipelines.scorers import load_scorer
from pipelines.stage import StageContext


def run(ctx: StageContext) -> dict[str, Any]:
    """Train the policy against the reward source; publish `model/`, metrics.jsonl and samples.jsonl."""
    config, settings, run_dir = ctx.config, ctx.config.ppo, ctx.out.parent
    device = resolve_device(config.run)
    sft, reward_model = ctx.inputs.get("sft"), ctx.inputs.get("reward")
    tokenizer = open_tokenizer(sft, config.model)
    encoder = ChatEncoder(tokenizer)
    prompts, lengths = _prompts(ctx, encoder, "train")
    held_out, _ = _prompts(ctx, encoder, "heldout")
    ctx.notes["rows"] = asdict(lengths)

    normalization = _normalization(reward_model) if settings.normalize_reward else (0.0, 1.0)
    roles = build_roles(config, run_dir, sft, reward_model, normalization, device)
    choose_threads(config.run, roles.policy.model.num_parameters(), ctx.reporter)

    reward: Reward
    if reward_model is not None:
        reward = RoleReward(roles, settings.rollout_forward_batch_size, *normalization)
    else:
        reward = TextReward(
            load_scorer(settings.reward, ctx, device),
            encoder,
            tokenizer.eos_token_id,
        )
    engine = TransformersEngine(
        roles,
        tokenizer.eos_token_id,
        settings.response_length,
        settings.temperature,
        settings.rollout_forward_batch_size,
    )
    accelerator = Accelerator(cpu=device.type == "cpu", log_with=config.run.report_to or None, project_dir=ctx.out)
    if config.run.report_to:
        accelerator.init_trackers("rlhf", config={"ppo": json.dumps(settings.results_view())})
    training = Training(
        roles=roles,
        engine=engine,
        reward=reward,
        encoder=encoder,
        eos_token_id=tokenizer.eos_token_id,
        prompts=prompts,
        held_out=held_out[: settings.num_sample_prompts],
        settings=settings,
        accelerator=accelerator,
        reporter=ctx.reporter,
        log=ctx.log,
        seed=config.run.seed,
    )
    try:
        metrics = training.run()
    finally:
        accelerator.end_training()
    base = BaseRef.of(config)
    publish_model(
        roles.policy.model, tokenizer, ctx.out / "model", base=base, run_dir=run_dir, adapter=roles.policy.adapter or ""
    )
    if roles.policy.adapter is not None:
        ctx.notes["base"] = base.as_dict()
    return metrics


def _prompts(ctx: StageContext, encoder: ChatEncoder, side: str) -> tuple[list[EncodedPrompt], LengthReport]:
    path = ctx.inputs["data/prompts"] / f"{side}.jsonl"
    return encode_prompts(read_rows(path, Prompt), encoder, ctx.config.ppo.max_prompt_length, name=path.name)


def _normalization(reward: Path | None) -> tuple[float, float]:
    """Mean and deviation of the reward model's scores on SFT responses; 0 and 1 for any other reward source."""
    if reward is None:
        return 0.0, 1.0
    stored = json.loads((reward / "model" / "normalization.json").read_text(encoding="utf-8"))
    return stored["mean"], max(stored["std"], 1e-6)
