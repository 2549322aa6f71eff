"""Log-probabilities and entropy from logits. Imports torch only.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
