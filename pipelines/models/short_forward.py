"""What of a forward pass a model lets one leave out: pads, and logits of other tokens than the responses'.

`try_short_ways` tries both ways once on a loaded model. A way whose numbers differ from those of the whole forward, or
that the family does not know, is left alone. `pipelines.models.forward` takes the ways that are open.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from pipelines.models.own_head import trunk_of

IN_LINE = "rows_in_line"
"""Name of the attention under which a model takes rows in one line, without pads."""
_LINEAR: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError, AssertionError)
"""What families raise that take no rows in one line, or give no logits of two tokens."""


def try_short_ways(model: PreTrainedModel | PeftModel) -> None:
    """Open to `model`, which is in evaluation mode, the ways that give the same numbers.

    Rows go in one line on CPUs only: attention is computed row by row, which on a GPU would be many small kernels.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if _has_linear_head(base):
        _LINEAR.add(base)
    if base.device.type == "cpu" and base.config._attn_implementation == "sdpa":
        expected = _lines(base, in_line=False)
        base.set_attn_implementation(IN_LINE)
        if not _close(_lines(base, in_line=True), expected):
            base.set_attn_implementation("sdpa")


def linear_head(model: PreTrainedModel | PeftModel) -> Tensor | None:
    """Weight [V, H] of the head, if the logits are its product with the last hidden states and nothing else."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return base.get_output_embeddings().weight if base in _LINEAR else None


@torch.no_grad()
def _has_linear_head(base: Any) -> bool:
    """Whether the logits are plain, also where they are large: families scale them, or cap them."""
    head = base.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        return False
    hidden = torch.randn(1, 2, head.in_features, generator=torch.Generator().manual_seed(0)).to(head.weight)
    hidden *= 1000 / head(hidden).abs().amax()

    def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = hidden
        return output

    handle = trunk_of(base)[1].register_forward_hook(replace)
    try:
        logits = base(input_ids=torch.tensor([[0, 1]], device=hidden.device), use_cache=False).logits
    except _FAILURES:
        return False
    finally:
        handle.remove()
    return _close([logits], [head(hidden)])


@torch.no_grad()
def _lines(base: Any, *, in_line: bool) -> list[Tensor]:
    """Last hidden states of two short rows, alone or in one line; none where the model fails."""
    trunk, size = trunk_of(base)[1], base.get_input_embeddings().num_embeddings
    rows = [torch.arange(length, device=base.device) * 7 % size for length in (5, 3)]
    try:
        if not in_line:
            return [
                trunk(input_ids=row[None], attention_mask=torch.ones_like(row[None]), use_cache=False).last_hidden_state
                for row in rows
            ]
        hidden = line_states(trunk, torch.cat(rows), [len(row) for row in rows])
    except _FAILURES:
        return []
    return list(torch.split(hidden[None], [len(row) for row in rows], dim=1))


def _close(results: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether the numbers are the same up to the rounding of their type."""
    if not expected or len(results) != len(expected):
        return False
    tolerance = 1e-4 if expected[0].dtype == torch.float32 else 2e-2
    return all(
        one.shape == two.shape and bool(((one - two).abs().amax() <= tolerance * two.abs().amax()).item())
        for one, two in zip(results, expected, strict=True)
    )


def takes_lines(trunk: PreTrainedModel) -> bool:
    """Whether `line_states` may be used."""
    return bool(trunk.config._attn_implementation == IN_LINE)


def line_states(trunk: nn.Module, ids: Tensor, lengths: Sequence[int]) -> Tensor:
    """Last hidden states [N, H] of rows that stand one after the other in `ids` [N], each as if it were alone."""
    positions = torch.tensor([place for length in lengths for place in range(length)], device=ids.device)
    with _line_of(lengths):
        output = trunk(
            input_ids=ids[None],
            attention_mask=torch.ones_like(ids[None]),
            position_ids=positions[None],
            use_cache=False,
        )
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


@dataclass(frozen=True)
class _Rows:
    """What a layer gets in place of a mask.

    Attributes:
        lengths: tokens of each row.
        mask: [longest, longest] bool, what a token of a row sees of the row; None: all before it.
    """

    lengths: list[int]
    mask: Tensor | None


_LENGTHS: ContextVar[list[int] | None] = ContextVar("lengths", default=None)


@contextlib.contextmanager
def _line_of(lengths: Sequence[int]) -> Iterator[None]:
    """The forward inside is of rows of these lengths."""
    token = _LENGTHS.set(list(lengths))
    try:
        yield
    finally:
        _LENGTHS.reset(token)


def _mask(*, mask_function: Callable[..., Any] = causal_mask_function, **options: Any) -> Any:
    """A mask as for "sdpa", or inside `_line_of` that of one row for all: each counts its positions from 0."""
    if (lengths := _LENGTHS.get()) is None:
        return sdpa_mask(mask_function=mask_function, **options)
    if options.get("use_vmap"):
        raise ValueError("this mask is not a function of positions alone")
    longest, local = max(lengths), options.get("local_size")
    if mask_function is causal_mask_function or (local is not None and longest <= local):
        return _Rows(lengths, None)
    place = torch.arange(longest, device=options["device"])
    first = torch.zeros((), dtype=torch.long, device=place.device)
    return _Rows(lengths, mask_function(first, first, place[:, None], place[None, :]))


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attention as "sdpa", or of each row of a line [1, heads, N, size] to itself: [1, N, heads, size].

    Neighbours of equal length are computed together.
    """
    if not isinstance(attention_mask, _Rows):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if any(options.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise ValueError("this attention is more than a softmax of products")
    mask, lengths = attention_mask.mask, attention_mask.lengths
    runs = [(length, len(list(rows))) for length, rows in itertools.groupby(lengths)]
    parts = (torch.split(states[0], [length * rows for length, rows in runs], dim=1) for states in (query, key, value))
    outputs = []
    for (length, rows), *line in zip(runs, *parts, strict=True):
        queries, keys, values = (part.unflatten(1, (rows, length)).transpose(0, 1) for part in line)
        output = nn.functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if mask is None else mask[:length, :length],
            dropout_p=options.get("dropout", 0.0),
            is_causal=mask is None,
            scale=options.get("scaling"),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None], None


AttentionInterface.register(IN_LINE, _attention)
AttentionMaskInterface.register(IN_LINE, _mask)
