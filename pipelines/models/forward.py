"""Forward passes over prompts with responses: log-probabilities of the responses, hidden states, scores and values.

Shapes: B rows, P prompt tokens, T response tokens, S = P + T, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipelines.models.log_probabilities import token_entropy, token_logprobs
from pipelines.models.own_head import trunk_of
from pipelines.models.sequence_scores import apply_head, pool_last, position_ids


@dataclass(frozen=True)
class TokenBatch:
    """Prompts padded on the left, responses on the right. Masks come from lengths, never from ids.

    Attributes:
        input_ids: [B, S] int64.
        attention_mask: [B, S] bool, True = a token of the row.
        response_mask: [B, T] bool, True = this response token counts.
        finished: [B] bool, True = the response ends on EOS or a stop token; False = it hit the length limit.
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    finished: Tensor

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], eos_token_id: int | Sequence[int]
    ) -> TokenBatch:
        """Pad and stack token ids.

        Args:
            prompts: at least one token each.
            responses: at least one token each, the ending one included where it came.
            eos_token_id: the id or ids that end a response.
        """
        ends = (eos_token_id,) if isinstance(eos_token_id, int) else eos_token_id
        prompt_width, response_width = max(map(len, prompts)), max(map(len, responses))
        input_ids = torch.zeros(len(prompts), prompt_width + response_width, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids, dtype=torch.bool)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            start, end = prompt_width - len(prompt), prompt_width + len(response)
            input_ids[row, start:end] = torch.tensor([*prompt, *response])
            attention_mask[row, start:end] = True
        finished = torch.tensor([response[-1] in ends for response in responses])
        return cls(input_ids, attention_mask, attention_mask[:, prompt_width:].clone(), finished)

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.input_ids.device

    @property
    def response_width(self) -> int:
        """T."""
        return self.response_mask.shape[1]

    @property
    def prompt_width(self) -> int:
        """P."""
        return self.input_ids.shape[1] - self.response_width

    @property
    def responses(self) -> Tensor:
        """[B, T] int64."""
        return self.input_ids[:, self.prompt_width :]

    @property
    def position_ids(self) -> Tensor:
        """[B, S] int64: positions counted over the row's own tokens, so that left padding moves nothing."""
        return position_ids(self.attention_mask)

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def rows(self, index: Tensor | slice) -> Self:
        """Some rows, cut to the width that they need: what a micro-batch computes on."""
        part = self._map(lambda tensor: tensor[index])
        prompt, response = self.prompt_width, self.response_width
        longest = int(part.response_mask.sum(-1).max())
        start = prompt - int(part.attention_mask[:, :prompt].sum(-1).max())

        def trim(tensor: Tensor) -> Tensor:
            if tensor.dim() == 1:
                return tensor
            if tensor.shape[1] == response:
                return tensor[:, :longest]
            return tensor[:, start : prompt + longest]

        return part._map(trim)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(tensor) for name, tensor in tensors.items() if tensor is not None})


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
    return trunk_of(model.get_base_model() if isinstance(model, PeftModel) else model)[1]


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
