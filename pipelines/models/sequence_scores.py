"""Scores of a sequence classifier with one label, at the last real token of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from pipelines.models.published_reward import Output


def read_logit(logit: Tensor, output: Output) -> Tensor:
    """A logit as it is, its sigmoid, or the logarithm of that; of the same shape."""
    if output == "logit":
        return logit
    logprob = torch.nn.functional.logsigmoid(logit)
    return logprob.exp() if output == "probability" else logprob


def pool_last(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """State of each row's last real token.

    Args:
        hidden: [B, S, H].
        attention_mask: [B, S], nonzero = this token counts; left or right padding.

    Returns:
        [B, H]. Values at padded positions, even NaN, have no influence.

    Raises:
        ValueError: a row has no real token.
    """
    mask = attention_mask.bool()
    if not bool(mask.any(dim=1).all()):
        raise ValueError("a row has no token to score")
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, -1).amax(dim=1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


def position_ids(attention_mask: Tensor) -> Tensor:
    """[B, S] positions that count real tokens only, so that padding shifts nothing."""
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def pad_left(rows: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """``input_ids`` and ``attention_mask``, both [B, longest]; padded with id 0, the mask made from lengths."""
    return _pad(rows, device, left=True)


def pad_right(rows: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Pad on the right; see `pad_left`."""
    return _pad(rows, device, left=False)


def _pad(rows: Sequence[Sequence[int]], device: torch.device | str, *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        span = slice(width - len(row), width) if left else slice(len(row))
        ids[index, span] = torch.tensor(row, dtype=torch.long)
        mask[index, span] = 1
    return ids.to(device), mask.to(device)


def trunk_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Body and score head of a sequence classifier; inside a PeftModel the head of its active adapter."""
    classifier: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    head = classifier.score
    if isinstance(head, ModulesToSaveWrapper):
        head = head.original_module if head.disable_adapters else head.modules_to_save[head.active_adapters[0]]
    return classifier.base_model, head


def apply_head(head: nn.Module, pooled: Tensor) -> Tensor:
    """Scores [B] of pooled states [B, H], in fp32 also under autocast: bf16 would round scores to 3 digits."""
    with torch.autocast(pooled.device.type, enabled=False):
        weight, bias = cast(Tensor, head.weight), cast(Tensor | None, head.bias)
        bias = None if bias is None else bias.float()
        return nn.functional.linear(pooled.float(), weight.float(), bias).squeeze(-1)


@torch.no_grad()
def score_ids(model: nn.Module, rows: Sequence[Sequence[int]], batch_size: int) -> list[float]:
    """Scores of rows of token ids, prompt and response together, read at their last token; the mode is restored.

    Rows of similar length go together in a forward pass.
    """
    trunk, head = trunk_and_head(model)
    device = next(trunk.parameters()).device
    scores = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = pad_right([rows[index] for index in chosen], device)
            hidden = trunk(
                input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
            ).last_hidden_state
            for index, score in zip(chosen, apply_head(head, pool_last(hidden, mask)).tolist(), strict=True):
                scores[index] = score
    finally:
        model.train(was_training)
    return scores
