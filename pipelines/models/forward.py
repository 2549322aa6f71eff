"""Forward passes over prompts with responses: log-probabilities of the responses, hidden states, scores and values.

Shapes: B rows, P prompt tokens, T response tokens, S = P + T, H hidden size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipelines.models.log_probabilities import linear_logprobs, token_entropy, token_logprobs
from pipelines.models.own_head import trunk_of
from pipelines.models.sequence_scores import apply_head, pool_last, position_ids
from pipelines.models.short_forward import line_states, linear_head, takes_lines


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

    @functools.cached_property
    def lengths(self) -> list[tuple[int, int]]:
        """Prompt tokens and response tokens of each row: on the CPU, so that nothing waits for the device."""
        tokens, answers = torch.stack([self.attention_mask.sum(1), self.response_mask.sum(1)]).tolist()
        return [(both - answer, answer) for both, answer in zip(tokens, answers, strict=True)]

    @functools.cached_property
    def token_places(self) -> Tensor:
        """[N] int64: where the tokens stand in the flat [B * S]."""
        width, start = self.input_ids.shape[1], self.prompt_width
        spans = (
            (row * width + start - prompt, row * width + start + response)
            for row, (prompt, response) in enumerate(self.lengths)
        )
        return _joined(spans).to(self.device)

    @functools.cached_property
    def response_places(self) -> Tensor:
        """[M] int64: where the response tokens stand in the flat [B * T]."""
        width = self.response_width
        spans = ((row * width, row * width + response) for row, (_, response) in enumerate(self.lengths))
        return _joined(spans).to(self.device)

    def rows(self, index: Sequence[int]) -> Self:
        """Some rows, cut to the width that they need: what a micro-batch computes on."""
        chosen = torch.tensor(index, device=self.device)
        part = self._map(lambda tensor: tensor[chosen])
        lengths = [self.lengths[row] for row in index]
        prompt, response = self.prompt_width, self.response_width
        start, longest = prompt - max(p for p, _ in lengths), max(r for _, r in lengths)

        def trim(tensor: Tensor) -> Tensor:
            if tensor.dim() == 1:
                return tensor
            if tensor.shape[1] == response:
                return tensor[:, :longest]
            return tensor[:, start : prompt + longest]

        trimmed = part._map(trim)
        vars(trimmed)["lengths"] = lengths
        return trimmed

    def by_length(self, size: int, index: Sequence[int] | None = None) -> list[list[int]]:
        """Row numbers in groups of like length, for one forward each: `size` rows of full width, or more shorter ones.

        Args:
            size: no group is larger than this many rows as wide as the batch.
            index: the rows to group; None: all.
        """
        rows = sorted(range(len(self)) if index is None else index, key=lambda row: sum(self.lengths[row]))
        groups: list[list[int]] = []
        prompt = response = 0
        for row in rows:
            wider = max(prompt, self.lengths[row][0]), max(response, self.lengths[row][1])
            if not groups or (len(groups[-1]) + 1) * sum(wider) > size * self.input_ids.shape[1]:
                groups.append([])
                wider = self.lengths[row]
            groups[-1].append(row)
            prompt, response = wider
        return groups

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(tensor) for name, tensor in tensors.items() if tensor is not None})


class Responses(NamedTuple):
    """What a causal model gives at the response tokens.

    Attributes:
        logprobs: [B, T] in fp32; 0 at pads, or any finite number.
        entropy: [B, T] in fp32, without a gradient; None where it was not asked for and costs a pass of its own.
        hidden: [B, S, H], as `hidden_states` gives them.
    """

    logprobs: Tensor
    entropy: Tensor | None
    hidden: Tensor


def response_logprobs(
    model: PreTrainedModel | PeftModel, batch: TokenBatch, temperature: float, *, with_entropy: bool = False
) -> Responses:
    """Log-probabilities of the response tokens under a causal model, and the entropy at their positions.

    Only the logits that predict response tokens are computed, and those of pads only where the head is not linear.
    """
    if (head := linear_head(model)) is not None:
        hidden, places = hidden_states(model, batch), batch.response_places
        results = linear_logprobs(
            states_before(hidden, batch).flatten(0, 1)[places], head, batch.responses.flatten()[places], temperature
        )
        logprobs, entropy = (_put_back(result, places, batch.response_mask.shape) for result in results)
        return Responses(logprobs, entropy, hidden)
    heard: list[Tensor] = []
    handle = _trunk(model).register_forward_hook(lambda module, inputs, output: heard.append(output.last_hidden_state))
    try:
        logits = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
            logits_to_keep=batch.response_width + 1,
        ).logits[:, -(batch.response_width + 1) : -1]
    finally:
        handle.remove()
    entropies = token_entropy(logits.detach(), temperature) if with_entropy else None
    hidden = heard[0] if heard else hidden_states(model, batch)  # OPT calls what is inside of its trunk
    return Responses(token_logprobs(logits, batch.responses, temperature), entropies, hidden)


def hidden_states(model: PreTrainedModel | PeftModel, batch: TokenBatch) -> Tensor:
    """Last hidden states of the model below its head, under the adapter that is active: [B, S, H]."""
    trunk = _trunk(model)
    if takes_lines(trunk):
        places = batch.token_places
        line = line_states(trunk, batch.input_ids.flatten()[places], [sum(pair) for pair in batch.lengths])
        return _put_back(line, places, batch.input_ids.shape)
    output = trunk(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


def _trunk(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return trunk_of(model.get_base_model() if isinstance(model, PeftModel) else model)[1]


def states_before(hidden: Tensor, batch: TokenBatch) -> Tensor:
    """States from which each response token is predicted: [B, S, H] -> [B, T, H]."""
    return hidden[:, batch.prompt_width - 1 : -1]


def state_values(hidden: Tensor, batch: TokenBatch, head: nn.Module) -> Tensor:
    """Value of the state before each response token, in fp32: [B, S, H] -> [B, T]."""
    return apply_head(head, states_before(hidden, batch))


def sequence_scores(hidden: Tensor, batch: TokenBatch, head: nn.Module) -> Tensor:
    """Score at the last token of each row, in fp32: [B, S, H] -> [B]."""
    return apply_head(head, pool_last(hidden, batch.attention_mask))


@torch.no_grad()
def in_groups(batch: TokenBatch, size: int, function: Callable[[TokenBatch], Tensor]) -> Tensor:
    """Apply a function to groups of rows (`TokenBatch.by_length`) and put its results, [b, t] or [b], back in order.

    Returns:
        [B, T], 0 where a group was cut, or [B]; in fp32.
    """
    result = torch.zeros(batch.response_mask.shape, dtype=torch.float32, device=batch.device)
    for rows in batch.by_length(size):
        part = function(batch.rows(rows))
        if part.dim() == 1:
            result[rows, 0] = part
        else:
            result[rows, : part.shape[1]] = part
    return result if part.dim() == 2 else result[:, 0]


def _joined(spans: Iterable[tuple[int, int]]) -> Tensor:
    return torch.tensor([place for start, end in spans for place in range(start, end)])


def _put_back(values: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Values [N, ...] at their places in a flat `shape`, 0 elsewhere: of `shape` and the rest of theirs."""
    rest = values.shape[1:]
    return values.new_zeros(shape.numel(), *rest).index_copy(0, places, values).view(*shape, *rest)
