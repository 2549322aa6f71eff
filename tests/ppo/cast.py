"""Casts of roles over tiny models, for the tests of PPO."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from accelerate import Accelerator
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from pipelines.config.ppo import PpoSection
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


def cast(model: PreTrainedModel, kind: Kind = "full", *, sft: AdapterState | None = None, rank: int = 4) -> Roles:
    """Roles around `model`: no reward model (an outside scorer judges), value from a zero head."""
    model = model.eval()
    hidden = model.config.hidden_size
    if kind == "full":
        copies = [copy.deepcopy(model) for _ in range(3)]
        trained = PolicyAndValue(Role(copies[0]), Role(copies[1], None, value_head(hidden, None, Normalization())))
        roles = Roles(trained, Role(copies[2]), None)
    else:
        start = sft if sft is not None else lora_shape(rank)
        peft = add_adapter(copy.deepcopy(model), "policy", start, trainable=True)
        if sft is not None:
            peft = add_adapter(peft, "reference", sft, trainable=False)
        peft = add_adapter(peft, "value", start, trainable=True)
        value = Role(peft, "value", value_head(hidden, None, Normalization()))
        roles = Roles(PolicyAndValue(Role(peft, "policy"), value), Role(peft, "reference" if sft else None), None)
    roles.freeze_but_trained()
    return roles


def learner(roles: Roles, settings: PpoSection) -> Learner:
    policy, value = roles.policy.parameters(), roles.value.parameters()
    optimizer = torch.optim.AdamW(
        [{"params": policy, "lr": settings.learning_rate}, {"params": value, "lr": settings.value_learning_rate}],
        eps=settings.adam_eps,
        weight_decay=0.0,
    )
    return Learner(roles.trained, policy, value, optimizer, settings, Accelerator(cpu=True))
