"""Loading the roles of PPO from the published stages: adapters over one base, or separate models."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipelines.config import Config
from pipelines.models.adapters import add_adapter, lora_config, read_reward_adapter
from pipelines.models.base_model import disable_dropout, load_causal
from pipelines.models.base_ref import BaseRef
from pipelines.models.machine import autocast
from pipelines.models.policies import open_policy, open_reward
from pipelines.models.published_reward import PublishedReward
from pipelines.ppo.roles import PolicyAndValue, Role, Roles, score_head, value_head
from pipelines.ppo.types import AS_IT_IS, Normalization


@dataclass(frozen=True)
class RoleSources:
    """Where the roles come from.

    Attributes:
        config: configuration of the run.
        run_dir: the run directory.
        sft: directory of the SFT stage, which is the reference; None: the outside base is.
        reward: directory of the reward stage; None: an outside scorer judges, and the value model starts as with
            `value_model: zero`.
        normalization: normalization of the reward model's scores; the value model predicts in the same units. None: the
            rewards of PPO are no linear function of the reward model's head, so the value model takes its body and a
            head of zeros.
        device: where to put them.
        before: directory of the PPO stage that this one continues; None: the policy starts as the reference.
    """

    config: Config
    run_dir: Path
    sft: Path | None
    reward: Path | None
    normalization: Normalization | None
    device: torch.device
    before: Path | None = None


def build_roles(sources: RoleSources) -> Roles:
    """Load every role, without dropout.

    Raises:
        RlhfError: what `load_causal` and `open_reward` raise.
    """
    config, device = sources.config, sources.device
    build = _adapters_on_one_base if config.model.use_peft else _separate_models
    policy, value, reference, reward = build(sources)
    roles = Roles(PolicyAndValue(policy, value, functools.partial(autocast, config.model, device)), reference, reward)
    for model in roles.models():
        disable_dropout(model)
    return roles


FourRoles = tuple[Role, Role | None, Role, Role | None]
"""Policy, value, reference, reward."""


def _adapters_on_one_base(sources: RoleSources) -> FourRoles:
    """Put up to four adapters on one base; the reference is the frozen SFT adapter, or the base itself without one."""
    config, sft, before, device = sources.config, sources.sft, sources.before, sources.device
    section, base = config.model, BaseRef.of(config)
    start = sft / "model" if sft is not None and config.sft_trains_adapter else lora_config(section, "CAUSAL_LM")
    causal = load_causal(section, base.path(sources.run_dir), device, revision=base.revision)
    model = add_adapter(causal, "policy", before / "model" if before is not None else start, trainable=True)
    if isinstance(start, Path):
        model = add_adapter(model, "reference", start, trainable=False)
    reference = Role(model, "reference" if isinstance(start, Path) else None)
    reward = read_reward_adapter(sources.reward / "model") if sources.reward is not None else None
    reward_role = None
    if reward is not None and reward.head is not None:
        model = add_adapter(model, "reward", reward, trainable=False)
        reward_role = Role(model, "reward", score_head(reward.head).to(device))
    policy = Role(model, "policy")
    if not config.ppo.has_value_model:
        return policy, None, reference, reward_role
    if config.ppo.value_model == "shared":
        return policy, _head_on(policy, device), reference, reward_role
    first = reward if config.ppo.value_model == "reward" else None
    model = add_adapter(model, "value", first or start, trainable=True)
    head = _value_head(model, first.head if first else None, sources.normalization)
    return policy, Role(model, "value", head.to(device)), reference, reward_role


def _separate_models(sources: RoleSources) -> FourRoles:
    """Load up to four models, as full fine-tuning needs them."""
    config, sft, reward, device = sources.config, sources.sft, sources.reward, sources.device
    section = config.model
    policy, reference = (Role(open_policy(stage, section, device)) for stage in (sources.before or sft, sft))
    weight, reward_role = None, None
    if reward is not None:
        classifier, _ = open_reward(PublishedReward.read(reward), section, device)
        weight = cast(Tensor, cast(nn.Module, classifier.score).weight)
        reward_role = Role(classifier, None, score_head(weight).to(device))
    if not config.ppo.has_value_model:
        return policy, None, reference, reward_role
    if config.ppo.value_model == "shared":
        return policy, _head_on(policy, device), reference, reward_role
    if reward is not None and config.ppo.value_model == "reward":
        trunk, _ = open_reward(PublishedReward.read(reward), section, device)
    else:
        trunk, weight = open_policy(sft, section, device), None
    value = Role(trunk, None, _value_head(trunk, weight, sources.normalization).to(device))
    return policy, value, reference, reward_role


def _head_on(policy: Role, device: torch.device) -> Role:
    """Return a value model that is only a head of zeros on the policy: its loss trains the policy's body too."""
    head = _value_head(policy.model, None, None).to(device)
    return Role(policy.model, policy.adapter, head, head_only=True)


def _value_head(
    model: PreTrainedModel | PeftModel, weight: Tensor | None, normalization: Normalization | None
) -> nn.Linear:
    """Return a head as wide as the reward model's, or as the input of the causal head (not always `hidden_size`)."""
    read = weight if weight is not None else model.get_output_embeddings().weight
    return value_head(read.shape[1], weight if normalization is not None else None, normalization or AS_IT_IS)
