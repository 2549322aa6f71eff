"""The `ppo` stage: load the roles, the prompts and the reward source, train, publish the policy."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pipelines.config import Config
from pipelines.config.ppo import PpoSection
from pipelines.data.canonical import read_rows
from pipelines.data.encode import ChatEncoder
from pipelines.errors import DataError
from pipelines.models.adapters import add_adapter, lora_config, read_score_head
from pipelines.models.artifact import open_policy, open_reward, open_tokenizer
from pipelines.models.base import BaseRef, disable_dropout, load_causal
from pipelines.models.machine import autocast, choose_threads, resolve_device
from pipelines.models.publish import publish_model
from pipelines.ppo.generation import TransformersEngine
from pipelines.ppo.roles import PolicyAndValue, Precision, Role, Roles, score_head, value_head
from pipelines.ppo.rollout import Reward, RoleReward, TextReward
from pipelines.ppo.train import Training
from pipelines.ppo.types import EncodedPrompt
from pipelines.scorers import load_scorer
from pipelines.stage import StageContext


def run(ctx: StageContext) -> dict[str, Any]:
    """Train the policy against the reward source; publish `model/`, metrics.jsonl and samples.jsonl."""
    config, settings, run_dir = ctx.config, ctx.config.ppo, ctx.out.parent
    device = resolve_device(config.run)
    sft, reward_model = ctx.inputs.get("sft"), ctx.inputs.get("reward")
    tokenizer = open_tokenizer(sft, config.model)
    encoder = ChatEncoder(tokenizer)
    prompts, held_out, rows = _prompts(ctx.inputs["data/prompts"], encoder, settings)
    ctx.notes["rows"] = rows

    normalization = _normalization(reward_model) if settings.normalize_reward else (0.0, 1.0)
    cast = _adapters_on_one_base if config.model.use_peft else _separate_models
    roles = cast(config, run_dir, sft, reward_model, normalization, device)
    choose_threads(config.run, roles.policy.model.num_parameters(), ctx.reporter)

    reward: Reward
    if reward_model is not None:
        reward = RoleReward(roles, settings.rollout_forward_batch_size, *normalization)
    else:
        reward = TextReward(load_scorer(settings.reward, config=config, inputs=ctx.inputs, device=device), encoder, tokenizer.eos_token_id)
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
    if roles.policy.adapter is not None:
        ctx.notes["base"] = base.as_dict()
    return metrics


def _prompts(
    directory: Path, encoder: ChatEncoder, settings: PpoSection
) -> tuple[list[EncodedPrompt], list[EncodedPrompt], dict[str, int]]:
    """Prompts to train on, held-out ones for samples, and the counts."""
    sides = {}
    for side in ("train", "heldout"):
        rows = read_rows(directory / f"{side}.jsonl", "prompts")
        sides[side] = [EncodedPrompt(row.prompt, tuple(encoder.prompt(row.prompt))) for row in rows]
    fitting = {
        side: [prompt for prompt in found if len(prompt.ids) <= settings.max_prompt_length]
        for side, found in sides.items()
    }
    if not fitting["train"]:
        raise DataError(
            f"all {len(sides['train'])} prompts are longer than ppo.max_prompt_length {settings.max_prompt_length}",
            hint="raise ppo.max_prompt_length",
        )
    counts = {"used": len(fitting["train"]), "dropped": len(sides["train"]) - len(fitting["train"])}
    return fitting["train"], fitting["heldout"][: settings.num_sample_prompts], counts


def _normalization(reward: Path | None) -> tuple[float, float]:
    """Mean and deviation of the reward model's scores on SFT responses; 0 and 1 for any other reward source."""
    if reward is None:
        return 0.0, 1.0
    stored = json.loads((reward / "model" / "normalization.json").read_text(encoding="utf-8"))
    return stored["mean"], max(stored["std"], 1e-6)


def _adapters_on_one_base(
    config: Config,
    run_dir: Path,
    sft: Path | None,
    reward: Path | None,
    normalization: tuple[float, float],
    device: torch.device,
) -> Roles:
    """Four adapters over one base; the reference is the frozen SFT adapter, or the base itself where there is none."""
    section, base = config.model, BaseRef.of(config)
    start = sft / "model" if sft is not None and config.sft_trains_adapter else lora_config(section, "CAUSAL_LM")
    causal = load_causal(section, base.path(run_dir), device, revision=base.revision)
    model = add_adapter(causal, "policy", start, trainable=True)
    if isinstance(start, Path):
        model = add_adapter(model, "reference", start, trainable=False)
    reference = Role(model, "reference" if isinstance(start, Path) else None)
    model = add_adapter(model, "value", start if reward is None else reward / "model", trainable=True)
    weight = None
    reward_role = None
    if reward is not None:
        model = add_adapter(model, "reward", reward / "model", trainable=False)
        weight = read_score_head(reward / "model")
        reward_role = Role(model, "reward", score_head(weight).to(device))
    value = Role(model, "value", _value_head(model, weight, normalization).to(device))
    return _cast(config, Role(model, "policy"), value, reference, reward_role, device)


def _separate_models(
    config: Config,
    run_dir: Path,
    sft: Path | None,
    reward: Path | None,
    normalization: tuple[float, float],
    device: torch.device,
) -> Roles:
    """Four models, as full fine-tuning needs them."""
    section = config.model
    policy, reference = (Role(open_policy(sft, section, device)) for _ in range(2))
    if reward is None:
        trunk, weight, reward_role = open_policy(sft, section, device), None, None
    else:
        (judge, _), (trunk, _) = (open_reward(reward, section, device) for _ in range(2))
        weight = judge.score.weight  # type: ignore[union-attr]
        reward_role = Role(judge, None, score_head(weight).to(device))
    value = Role(trunk, None, _value_head(trunk, weight, normalization).to(device))
    return _cast(config, policy, value, reference, reward_role, device)


def _value_head(model: Any, weight: Tensor | None, normalization: tuple[float, float]) -> torch.nn.Linear:
    return value_head(model.config.get_text_config().hidden_size, weight, *normalization)


def _cast(
    config: Config, policy: Role, value: Role, reference: Role, reward: Role | None, device: torch.device
) -> Roles:
    precision: Precision = functools.partial(autocast, config.model, device)
    roles = Roles(PolicyAndValue(policy, value, precision), reference, reward)
    for model in roles.models():
        disable_dropout(model)
    return roles
