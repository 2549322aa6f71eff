"""Decoding loop for plain caches: nothing is computed for rows that have ended, repeated prompts or most pads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from pipelines.models.sequence_scores import pad_left, position_ids

NOT_FINITE = "probability tensor contains either"
"""Beginning of what torch says where it cannot draw."""


def draw(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a token for each row from the softmax of its logits, by one uniform number and the cumulated probabilities.

    `torch.multinomial` draws a number for each token of the vocabulary: a tenth of the time of generation.

    Args:
        logits: [B, V] fp32.

    Returns:
        Tokens, [B] int64, and whether all probabilities were finite, [] bool.
    """
    # summed in fp64: in fp32 the tokens at the end of a large vocabulary would share few numbers
    cumulated = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    total = cumulated[:, -1:]
    place = torch.rand_like(total) * total
    tokens = torch.searchsorted(cumulated, place, right=True).squeeze(-1)
    return tokens.clamp_(max=logits.shape[-1] - 1), total.isfinite().all()


class _Slots(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of a layer for all rows, in two tensors with room for the tokens to come.

    Args:
        rows: number of rows.
        width: tokens of the longest prompt.
        room: tokens that may follow.
        like: layer with keys and values of the same shape, [rows, heads, tokens, size].
    """

    def __init__(self, rows: int, width: int, room: int, like: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(like.keys, like.values)
        self._stores = [
            tensor.new_empty(rows, tensor.shape[1], width + room, tensor.shape[3])
            for tensor in (like.keys, like.values)
        ]
        self._extend(width)

    def _extend(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (store[:, :, :length] for store in self._stores)
        return self.keys, self.values

    def put(self, rows: Tensor, layer: Any, sources: Tensor) -> None:
        """Copy the prompts `sources` of a layer to the end of the prompts of `rows`."""
        end = self.get_seq_length()
        for store, tensor in zip(self._stores, (layer.keys, layer.values), strict=True):
            start = end - tensor.shape[2]
            store[rows, :, start:end] = tensor[sources]
            store[rows, :, :start] = 0  # even with weight 0 a NaN under a pad would spread

    def keep(self, rows: Tensor) -> None:
        """Move `rows`, in ascending order, to the front, and drop the others."""
        length = self.get_seq_length()
        for index, store in enumerate(self._stores):
            store[: len(rows), :, :length] = store[rows, :, :length]
            self._stores[index] = store[: len(rows)]
        self._extend(length)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Add tokens to all rows."""
        start = self.get_seq_length()
        keys, values = self._extend(start + key_states.shape[2])
        keys[:, :, start:], values[:, :, start:] = key_states, value_states
        return keys, values


def can_decode(model: PreTrainedModel, tokens: int) -> bool:
    """Whether `decode` can serve a model: all layers of its cache hold keys and values of all tokens, and no more.

    Args:
        tokens: the longest prompt with its response; a sliding window that is as wide holds all of them.
    """
    default_cache: Any = model._supports_default_dynamic_cache
    if model.config.is_encoder_decoder or not default_cache():
        return False
    if getattr(type(model), _PREPARE) is not getattr(GenerationMixin, _PREPARE):
        return False  # it wants other inputs
    return all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and tokens <= layer.sliding_window)
        for layer in DynamicCache(config=model.config).layers
    )


_PREPARE = "prepare_inputs_for_generation"


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
) -> list[list[int]]:
    """Sample one response for each prompt, all at once.

    Args:
        model: one that `can_decode`, in evaluation mode.
        prompts: token ids, none empty.
        config: gives `max_new_tokens`, `eos_token_id` as a list, `temperature`, `top_k` and `top_p`; all else in it is
            neutral.

    Returns:
        The ids of each response, the ending one included where it came.

    Raises:
        RuntimeError: probabilities are not finite.
    """
    room, ends = config.max_new_tokens, config.eos_token_id
    width = max(map(len, prompts))
    warp = _warper(config)
    layers, logits = _prefill(model, prompts, width, room)
    cache = DynamicCache()
    cache.layers = list(layers)
    device = logits.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    mask = torch.arange(width + room, device=device) >= (width - lengths)[:, None]
    padded = len(set(map(len, prompts))) > 1
    stops = torch.tensor(ends, device=device)
    responses = torch.full((len(prompts), room), ends[0], device=device)
    rows = torch.arange(len(prompts), device=device)
    ongoing = torch.ones_like(rows, dtype=torch.bool)
    for step in range(room):
        tokens, finite = draw(warp(logits))
        responses[rows, step] = tokens
        ongoing &= ~torch.isin(tokens, stops)
        remaining = int(torch.where(finite, ongoing.sum(), -1))  # the one number a step that waits for the device
        if remaining < 0:
            raise RuntimeError(f"{NOT_FINITE} `inf`, `nan` or element < 0")
        if remaining == 0 or step + 1 == room:
            break
        if remaining <= len(rows) * _CROWDED:
            kept = ongoing.byte().argsort(descending=True, stable=True)[:remaining]
            rows, tokens, ongoing, lengths, mask = (part[kept] for part in (rows, tokens, ongoing, lengths, mask))
            for layer in layers:
                layer.keep(kept)
        logits = _last_logits(
            model,
            input_ids=tokens[:, None],
            attention_mask=mask[:, : width + step + 1] if padded else None,
            position_ids=(lengths + step)[:, None],
            past_key_values=cache,
        )
    return [until_end(row, ends) for row in responses.tolist()]


def _warper(config: GenerationConfig) -> Callable[[Tensor], Tensor]:
    """A function that makes the logits to draw from of the model's, in the order of `generate`."""
    warpers: list[Any] = [TemperatureLogitsWarper(config.temperature)] if config.temperature != 1 else []
    warpers += [TopKLogitsWarper(config.top_k)] if config.top_k else []
    warpers += [TopPLogitsWarper(config.top_p)] if config.top_p < 1 else []

    def warp(logits: Tensor) -> Tensor:
        for warper in warpers:
            logits = warper(None, logits)
        return logits

    return warp


_CROWDED = 7 / 8
"""Share of rows still going at which the others leave: leaving copies the cache."""


def _prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], width: int, room: int
) -> tuple[list[_Slots], Tensor]:
    """The cache of each layer, with the prompts in it, and the logits after each prompt, [B, V] fp32."""
    places: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        places.setdefault(tuple(prompt), []).append(row)
    slots: list[_Slots] = []
    logits: Tensor | None = None
    for group in _of_like_length(list(places)):
        cache = DynamicCache(config=model.config)
        ids, mask = pad_left(group, model.device)
        whole = all(len(prompt) == len(group[0]) for prompt in group)
        last = _last_logits(
            model,
            input_ids=ids,
            attention_mask=None if whole else mask,
            position_ids=position_ids(mask),
            past_key_values=cache,
        )
        if logits is None:
            slots = [_Slots(len(prompts), width, room, layer) for layer in cache.layers]
            logits = last.new_empty(len(prompts), last.shape[1])
        rows = torch.tensor([row for prompt in group for row in places[prompt]], device=last.device)
        sources = torch.tensor(
            [index for index, prompt in enumerate(group) for _ in places[prompt]], device=last.device
        )
        logits[rows] = last[sources]
        for slot, layer in zip(slots, cache.layers, strict=True):
            slot.put(rows, layer, sources)
    assert logits is not None
    return slots, logits


def _of_like_length(prompts: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Groups of prompts in which few pads are needed, the longest first."""
    group: list[tuple[int, ...]] = []
    for prompt in sorted(prompts, key=len, reverse=True):
        if group and len(group[0]) - len(prompt) > max(8, len(group[0]) // 8):
            yield group
            group = []
        group.append(prompt)
    yield group


def _last_logits(model: PreTrainedModel, **inputs: object) -> Tensor:
    """[B, V] fp32 after the last token of each row."""
    logits: Tensor = model(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1]
    return logits.float()


def until_end(row: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens up to the first that ends them."""
    return row[: next((place + 1 for place, token in enumerate(row) if token in ends), len(row))]
