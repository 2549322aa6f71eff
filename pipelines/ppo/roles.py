"""Policy, reference, value and reward: adapters over one base or separate models; the rest sees no difference."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipelines.models.adapters import adapter, is_of_adapter
from pipelines.models.forward import (
    TokenBatch,
    hidden_states,
    in_groups,
    response_logprobs,
    sequence_scores,
    state_values,
)
from pipelines.models.short_forward import try_short_ways
from pipelines.ppo.types import Normalization

Precision = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Role:
    """One role: a model, which of its adapters plays it, and its head.

    Attributes:
        model: a causal model or a classifier; a PeftModel where adapters share one base.
        adapter: the adapter's name; None: the model as it is, adapters switched off.
        head: maps hidden states to one number; None for the policy and the reference.
        head_only: the rest belongs to another role; the head alone is this one's.
    """

    model: PreTrainedModel | PeftModel
    adapter: str | None = None
    head: nn.Module | None = None
    head_only: bool = False

    @contextlib.contextmanager
    def active(self) -> Iterator[PreTrainedModel | PeftModel]:
        """The model with this role's adapter, and only it, switched on."""
        with adapter(self.model, self.adapter) if isinstance(self.model, PeftModel) else contextlib.nullcontext():
            yield self.model

    def parameters(self) -> list[nn.Parameter]:
        """What trains when this role trains."""
        named = () if self.head_only else self.model.named_parameters()
        body = [parameter for name, parameter in named if self._owns(name)]
        return [*body, *(self.head.parameters() if self.head is not None else ())]

    def _owns(self, name: str) -> bool:
        if self.adapter is not None:
            return is_of_adapter(name, self.adapter)
        if self.head is None:
            return True
        return name.startswith(
            f"{self.model.base_model_prefix}."
        )  # a classifier's or a causal model's own head is idle


class PolicyAndValue(nn.Module):
    """The roles that train, in one module. With `value` None the policy trains alone."""

    def __init__(self, policy: Role, value: Role | None, precision: Precision = contextlib.nullcontext) -> None:
        super().__init__()
        self.policy, self.value, self.precision = policy, value, precision
        # as attributes of their own, so that their parameters are this module's
        self.policy_model = policy.model
        if value is not None:
            assert value.head is not None
            self.value_model, self.value_head = value.model, value.head

    def forward(self, batch: TokenBatch, temperature: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probabilities of the response tokens, entropy and value at their positions: three [B, T] in fp32.

        The third is there where the value model is a head on the policy, which reads the same forward.
        """
        with self.precision(), self.policy.active() as model:
            logprobs, entropy, hidden = response_logprobs(model, batch, temperature, with_entropy=True)
        assert entropy is not None
        shared = self.value is not None and self.value.head_only
        return logprobs, entropy, state_values(hidden, batch, self.value_head) if shared else None

    def own_values(self, batch: TokenBatch) -> Tensor | None:
        """[B, T] in fp32 by a forward of the value model's own; None where it has none."""
        if self.value is None or self.value.head_only:
            return None
        with self.precision(), self.value.active() as model:
            return state_values(hidden_states(model, batch), batch, self.value_head)


@dataclass(frozen=True)
class Roles:
    """The cast of one PPO training.

    Attributes:
        trained: policy and, where there is one, value.
        reference: frozen; what the KL penalty is measured against.
        reward: frozen; None where an outside scorer judges.
    """

    trained: PolicyAndValue
    reference: Role
    reward: Role | None

    @property
    def precision(self) -> Precision:
        """Context of every forward: the roles must not differ in it, or KL starts above 0."""
        return self.trained.precision

    @property
    def policy(self) -> Role:
        """The role that generates."""
        return self.trained.policy

    @property
    def value(self) -> Role | None:
        """The role that estimates returns; None where the advantages need none."""
        return self.trained.value

    @property
    def learning(self) -> list[Role]:
        """The roles that train."""
        return [self.policy] if self.value is None else [self.policy, self.value]

    def models(self) -> list[PreTrainedModel | PeftModel]:
        """The distinct models in memory: one where adapters share a base."""
        roles = [self.policy, self.reference, *self.learning[1:], *([self.reward] if self.reward else [])]
        return list({id(role.model): role.model for role in roles}.values())

    def freeze_but_trained(self) -> None:
        """Let exactly the parameters of `learning` train, in fp32; dropout is off in every role.

        Each model is tried for what its forward may leave out.
        """
        for model in self.models():
            model.requires_grad_(False)
            model.eval()
            try_short_ways(model)
        for parameter in (parameter for role in self.learning for parameter in role.parameters()):
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward, each layer under the adapter that its forward ran with.

        The backward runs when the adapter of the forward is no longer active: without the context its layers would be
        recomputed with another.
        """
        for model in {id(role.model): role.model for role in self.learning}.values():
            options: dict[str, Any] = {"use_reentrant": False}
            if isinstance(model, PeftModel):
                options["context_fn"] = functools.partial(_adapter_contexts, model)
            model.gradient_checkpointing_enable(options)
            model.train()

    @torch.no_grad()
    def reference_logprobs(self, batch: TokenBatch, temperature: float, chunk: int) -> Tensor:
        """[B, T] log-probabilities under the reference."""
        with self.reference.active() as model, self.precision():
            return in_groups(batch, chunk, lambda part: response_logprobs(model, part, temperature).logprobs)

    @torch.no_grad()
    def policy_logprobs(self, batch: TokenBatch, temperature: float, chunk: int) -> Tensor:
        """[B, T] log-probabilities under the policy, by the forward that trains it."""
        with self.policy.active() as model, self.precision():
            return in_groups(batch, chunk, lambda part: response_logprobs(model, part, temperature).logprobs)

    @torch.no_grad()
    def values(self, batch: TokenBatch, chunk: int) -> Tensor:
        """[B, T] values of the states before each token; there must be a value model."""
        assert self.value is not None
        assert self.value.head is not None
        head = self.value.head
        with self.value.active() as model, self.precision():
            return in_groups(batch, chunk, lambda part: state_values(hidden_states(model, part), part, head))

    @torch.no_grad()
    def scores(self, batch: TokenBatch, chunk: int) -> Tensor:
        """[B] scores of the run's reward model at the last token of each row."""
        assert self.reward is not None
        assert self.reward.head is not None
        head = self.reward.head
        with self.reward.active() as model, self.precision():
            return in_groups(batch, chunk, lambda part: sequence_scores(hidden_states(model, part), part, head))


def _adapter_contexts(model: PeftModel) -> tuple[Any, Any]:
    """Contexts of a checkpointed layer's forward and of its recomputation."""
    return contextlib.nullcontext(), adapter(model, model.active_adapter)


def score_head(weight: Tensor) -> nn.Linear:
    """The reward model's head [1, H] as a module in fp32."""
    head = nn.Linear(weight.shape[1], 1, bias=False)
    head.weight.data = weight.detach().float().clone()
    return head


def value_head(hidden_size: int, score_weight: Tensor | None, normalization: Normalization) -> nn.Linear:
    """The value model's first head: the reward model's, in the normalized units that PPO trains on; else zero."""
    mean, std = normalization.mean, normalization.std
    head = nn.Linear(hidden_size, 1)
    with torch.no_grad():
        head.weight.zero_() if score_weight is None else head.weight.copy_(score_weight.float() / std)
        head.bias.fill_(0.0 if score_weight is None else -mean / std)
    return head
