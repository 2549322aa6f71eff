"""Casts of roles over tiny models, for the tests of PPO."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from accelerate import Accelerator
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from pipelines.config.ppo_section import PpoSection
from pipelines.models.adapters import AdapterState, adapter_state, add_adapter
from pipelines.ppo.learner import Learner
from pipelines.ppo.roles import PolicyAndValue, Role, Roles, value_head
from pipelines.ppo.types import Normalization

Kind = Literal["full", "lora"]


def lora_shape(rank: int = 4) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def random_adapter(model: PreTrainedModel, seed: int = 0) -> AdapterState:
    """A LoRA adapter that changes something, as one that SFT has trained."""
    peft = add_adapter(copy.deepcopy(model), "sft", lora_shape(), trainable=True)
    torch.manual_seed(seed)
    for name, parameter in peft.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.05)
    return adapter_state(peft, "sft")


def cast(
    model: PreTrainedModel,
    kind: Kind = "full",
    *,
    sft: AdapterState | None = None,
    rank: int = 4,
    shared: bool = False,
    valued: bool = True,
) -> Roles:
    """Roles around `model`: no reward model (an outside scorer judges), value from a head of zeros, or none at all."""
    model = model.eval()
    hidden = model.config.hidden_size
    if kind == "full":
        copies = [copy.deepcopy(model) for _ in range(3)]
        head = value_head(hidden, None, Normalization())
        value = Role(copies[0], None, head, head_only=True) if shared else Role(copies[1], None, head)
        roles = Roles(PolicyAndValue(Role(copies[0]), value if valued else None), Role(copies[2]), None)
    else:
        start = sft if sft is not None else lora_shape(rank)
        peft = add_adapter(copy.deepcopy(model), "policy", start, trainable=True)
        if sft is not None:
            peft = add_adapter(peft, "reference", sft, trainable=False)
        if valued and not shared:
            peft = add_adapter(peft, "value", start, trainable=True)
        head = value_head(hidden, None, Normalization())
        value = Role(peft, "policy" if shared else "value", head, head_only=shared)
        trained = PolicyAndValue(Role(peft, "policy"), value if valued else None)
        roles = Roles(trained, Role(peft, "reference" if sft else None), None)
    roles.freeze_but_trained()
    return roles


def learner(roles: Roles, settings: PpoSection) -> Learner:
    policy, value = roles.policy.parameters(), roles.value.parameters() if roles.value is not None else []
    optimizer = torch.optim.AdamW(
        [{"params": policy, "lr": settings.learning_rate}, {"params": value, "lr": settings.value_learning_rate}],
        eps=settings.adam_eps,
        weight_decay=0.0,
        fused=True,
    )
    return Learner(roles.trained, policy, value, optimizer, settings, Accelerator(cpu=True))
