"""The two forwards that everything in PPO is computed from: response log-probabilities and hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipelines.models.sequence_scores import apply_head, pool_last
from pipelines.ppo.objective import token_entropy, token_logprobs
from pipelines.ppo.types import TokenBatch


def response_logprobs(
    model: nn.Module, batch: TokenBatch, temperature: float, *, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the response tokens under a causal model, and the entropy at their positions.

    Only the logits that predict response tokens are computed.

    Returns:
        [B, T] in fp32; the entropy carries no gradient.
    """
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=batch.response_width + 1,
    ).logits[:, -(batch.response_width + 1) : -1]
    logprobs = token_logprobs(logits, batch.responses, temperature)
    if not with_entropy:
        return logprobs, None
    with torch.no_grad():
        return logprobs, token_entropy(logits.detach(), temperature)


def hidden_states(model: PreTrainedModel | PeftModel, batch: TokenBatch) -> Tensor:
    """Last hidden states of the model below its head, under the adapter that is active: [B, S, H]."""
    output = _trunk(model)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


@contextmanager
def overheard_hidden_states(model: PreTrainedModel | PeftModel) -> Iterator[list[Tensor]]:
    """A list that gets what `hidden_states` would give, from every forward of the whole model inside.

    The head is left to the model: many scale or cap their logits.
    """
    heard: list[Tensor] = []
    handle = _trunk(model).register_forward_hook(lambda module, inputs, output: heard.append(output.last_hidden_state))
    try:
        yield heard
    finally:
        handle.remove()


def _trunk(model: PreTrainedModel | PeftModel) -> Any:
    return (model.get_base_model() if isinstance(model, PeftModel) else model).base_model


def state_values(hidden: Tensor, batch: TokenBatch, head: nn.Module) -> Tensor:
    """Value of the state before each response token, in fp32: [B, S, H] -> [B, T]."""
    return apply_head(head, hidden[:, batch.prompt_width - 1 : -1])


def sequence_scores(hidden: Tensor, batch: TokenBatch, head: nn.Module) -> Tensor:
    """Score at the last token of each row, in fp32: [B, S, H] -> [B]."""
    return apply_head(head, pool_last(hidden, batch.attention_mask))


def in_chunks(batch: TokenBatch, size: int) -> Iterator[TokenBatch]:
    """The rows of `batch` in order, `size` at a time, each chunk cut to the width it needs."""
    for start in range(0, len(batch), size):
        yield batch.rows(slice(start, start + size))


@torch.no_grad()
def per_token(batch: TokenBatch, size: int, function: Callable[[TokenBatch], Tensor]) -> Tensor:
    """Apply a [b, t] function in chunks and put the results back to [B, T], 0 where a chunk was cut."""
    result = torch.zeros(batch.response_mask.shape, dtype=torch.float32, device=batch.device)
    start = 0
    for chunk in in_chunks(batch, size):
        part = function(chunk)
        result[start : start + len(chunk), : part.shape[1]] = part
        start += len(chunk)
    return result
