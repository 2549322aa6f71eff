"""The `ppo` stage: load the roles, the prompts and the reward source, train, publish the policy."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import set_seed

from pipelines.config.ppo import PpoSection
from pipelines.data.canonical import read_rows
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt, cut_prompt, encode_prompts
from pipelines.data.rows import Prompt
from pipelines.errors import EnvironmentProblem
from pipelines.models.artifact import open_config, open_tokenizer
from pipelines.models.base import BaseRef
from pipelines.models.limits import prompt_limit
from pipelines.models.machine import choose_threads, resolve_device
from pipelines.models.publish import publish_model
from pipelines.models.reward_model import what_it_reads
from pipelines.ppo.casting import build_roles
from pipelines.ppo.generation import TransformersEngine
from pipelines.ppo.rollout import Reward, RoleReward, TextReward
from pipelines.ppo.train import Training
from pipelines.ppo.types import AS_IT_IS, Normalization
from pipelines.scorers import load_scorer
from pipelines.stage import StageContext


def run(ctx: StageContext) -> dict[str, Any]:
    """Train the policy against the reward source; publish `model/`, metrics.jsonl and samples.jsonl."""
    config, settings, run_dir = ctx.config, ctx.config.ppo, ctx.out.parent
    device = resolve_device(config.run)
    set_seed(config.run.seed)
    sft = ctx.inputs.get("sft")
    reward_model = ctx.inputs.get("reward") if settings.reward.kind == "run" else None  # in a sum it is a text scorer
    tokenizer = open_tokenizer(sft, config.model)
    encoder = ChatEncoder(tokenizer)
    limit = prompt_limit(settings, open_config(sft, config.model), ctx.reporter)
    prompts, held_out = _prompts(ctx, encoder, limit)

    # only a reward model on the policy's own base and tokens can be a role; any other source reads text
    judges = reward_model if reward_model is not None and what_it_reads(reward_model) == "tokens" else None
    normalization = _normalization(reward_model, settings)
    roles = build_roles(config, run_dir, sft, judges, normalization, device)
    choose_threads(config.run, roles.policy.model.num_parameters(), ctx.reporter)

    reward: Reward
    if judges is not None:
        reward = RoleReward(roles, settings.rollout_forward_batch_size, normalization)
    else:
        scorer = load_scorer(settings.reward, ctx, device)
        reward = TextReward(scorer, encoder, tokenizer.eos_token_id, normalization)
    engine = TransformersEngine(
        roles,
        tokenizer.eos_token_id,
        settings.response_length,
        settings.temperature,
        settings.rollout_forward_batch_size,
    )
    accelerator = Accelerator(cpu=device.type == "cpu", log_with=config.run.report_to or None, project_dir=ctx.out)
    if accelerator.num_processes != 1:
        raise EnvironmentProblem(
            f"PPO was started in {accelerator.num_processes} processes and runs in one",
            hint="start it without accelerate launch or torchrun",
        )
    if config.run.report_to:
        accelerator.init_trackers("rlhf", config={"ppo": json.dumps(settings.results_view())})
    training = Training(
        roles=roles,
        engine=engine,
        reward=reward,
        encoder=encoder,
        eos_token_id=tokenizer.eos_token_id,
        prompts=prompts,
        held_out=held_out,
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
    ctx.notes["base"] = base.as_dict()
    return metrics


def _prompts(ctx: StageContext, encoder: ChatEncoder, limit: int) -> tuple[list[EncodedPrompt], list[EncodedPrompt]]:
    """Prompts to train on, and a few held-out ones to show; longer ones than `limit` are left out, and told."""
    train, heldout = (ctx.inputs["data/prompts"] / f"{side}.jsonl" for side in ("train", "heldout"))
    overlong = ctx.config.ppo.overlong
    prompts, lengths = encode_prompts(read_rows(train, Prompt), encoder, limit, overlong, name=train.name)
    ctx.notes["rows"] = asdict(lengths)
    say = ctx.reporter.warn if lengths.dropped else ctx.reporter.info
    say(f"PPO: {lengths.used} prompts used, {lengths.dropped} above {limit} tokens left out, {lengths.cut} cut")
    shown: list[EncodedPrompt] = []
    for row in read_rows(heldout, Prompt):
        length, encoded = cut_prompt(row, encoder, limit)
        if len(shown) < ctx.config.ppo.num_sample_prompts and encoded and (length <= limit or overlong == "cut"):
            shown.append(encoded)
    return prompts, shown


def _normalization(reward: Path | None, settings: PpoSection) -> Normalization:
    """Of the run's reward model, as its stage measured it on SFT responses; any other source is used as it is."""
    if reward is None or not settings.normalize_reward:
        return AS_IT_IS
    stored = json.loads((reward / "model" / "normalization.json").read_text(encoding="utf-8"))
    return Normalization(stored["mean"], stored["std"], settings.reward_clip)
