"""Log-probabilities and entropy from logits, or from the states below a linear head. Imports torch only.

Shapes: B rows, T tokens, N tokens of all rows, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LARGEST = 2**25
"""Numbers in the largest tensor of logits: 128 MiB in fp32."""
CACHED = 2**19
"""Numbers read at a time on a CPU: 2 MiB in fp32, so that the few passes over them stay in the cache."""


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probability of each token under the tempered policy, in fp32.

    Args:
        logits: [B, T, V]; position t predicts token t.
        tokens: [B, T].
        temperature: the sampling temperature: the policy that is optimized is the one that is sampled from.

    Returns:
        [B, T].
    """
    scaled = logits.float() / temperature
    return scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)


def token_entropy(logits: Tensor, temperature: float) -> Tensor:
    """Entropy in nats of the tempered policy at each position: [B, T, V] -> [B, T], in fp32."""
    log_probs = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def linear_logprobs(states: Tensor, weight: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """`token_logprobs` and `token_entropy` of the logits ``states @ weight.T``, which are never all in memory.

    Logits are computed for at most `LARGEST` numbers at a time. The gradient of the states is finished in the forward,
    up to one factor a token; that of the weight, where it trains, takes the logits once more, unless they fit in one
    such part, which is then kept.

    Args:
        states: [N, H], the states before the tokens.
        weight: [V, H] of the head.
        tokens: [N].
        temperature: as in `token_logprobs`.

    Returns:
        Two [N] in fp32; the entropy carries no gradient.
    """
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    learns = torch.is_grad_enabled() and (states.requires_grad, weight.requires_grad)
    with torch.autocast(device, enabled=False):
        logprobs, entropy = _LinearLogprobs.apply(  # type: ignore[no-untyped-call]
            states.to(dtype), weight.to(dtype), tokens, temperature, learns or (False, False)
        )
    return logprobs, entropy


class _LinearLogprobs(torch.autograd.Function):
    """See `linear_logprobs`.

    d(log p_i)/d(logits) is (onehot_i - p) / temperature. So with the factor g of each token that comes from above, the
    gradient of its state is g / temperature times (its row of the weight, less the mean row under p).
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, tokens: Tensor, temperature: float, learns: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy = (torch.empty(len(tokens), dtype=torch.float32, device=states.device) for _ in range(2))
        slopes = torch.empty_like(states) if learns[0] else None
        parts = list(_parts(len(tokens), LARGEST // len(weight)))
        kept = None
        for part in parts:
            probabilities, logprobs[part], entropy[part] = _read(states[part], weight, tokens[part], temperature)
            if slopes is not None:
                slopes[part] = torch.addmm(weight[tokens[part]], probabilities.to(weight.dtype), weight, alpha=-1)
            kept = probabilities if learns[1] and len(parts) == 1 else None
        ctx.mark_non_differentiable(entropy)
        ctx.temperature, ctx.parts = temperature, parts
        ctx.save_for_backward(slopes, kept, *((states, weight, tokens) if learns[1] else ()))
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        slopes, kept, *rest = ctx.saved_tensors
        factors = (gradients[0] / ctx.temperature).unsqueeze(1)
        of_weight = None
        if rest:
            states, weight, tokens = rest
            of_weight = torch.zeros_like(weight)
            for part in ctx.parts:
                scaled = (factors[part] * states[part]).to(weight.dtype)
                again = kept is None
                probabilities = _read(states[part], weight, tokens[part], ctx.temperature)[0] if again else kept
                of_weight.addmm_(probabilities.to(weight.dtype).T, scaled, alpha=-1).index_add_(0, tokens[part], scaled)
        return None if slopes is None else (factors * slopes).to(slopes.dtype), of_weight, None, None, None


def _read(states: Tensor, weight: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities [n, V], log-probability of the token and entropy [n] of each state, in fp32."""
    logits = torch.nn.functional.linear(states, weight).float()
    logprobs, entropy = (torch.empty(len(tokens), dtype=torch.float32, device=states.device) for _ in range(2))
    for part in _parts(len(tokens), (CACHED if states.device.type == "cpu" else LARGEST) // len(weight)):
        scaled = logits[part].div_(temperature)
        largest, place = scaled.max(-1, keepdim=True)
        probabilities = scaled.sub_(largest).softmax(-1)
        normalizer = -probabilities.gather(-1, place).log()  # the largest is at least 1 / V: no underflow
        logprobs[part] = (scaled.gather(-1, tokens[part].unsqueeze(-1)) - normalizer).squeeze(-1)
        entropy[part] = normalizer.squeeze(-1) - torch.linalg.vecdot(probabilities, scaled)
        logits[part] = probabilities
    return logits, logprobs, entropy


def _parts(count: int, size: int) -> Iterator[slice]:
    size = max(size, 1)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
