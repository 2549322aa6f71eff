"""All the maths of PPO: tensors and floats in, tensors out. Imports torch and the standard library only.

Shapes: B rows, T response tokens, V vocabulary. One mask convention: True = this token counts; it is a prefix of each
row, because responses are padded on the right. What stands outside the mask never matters, NaN included.

Sources: PPO, Schulman et al. 2017 (arXiv 1707.06347); GAE, Schulman et al. 2016 (1506.02438); KL penalty per token,
Ziegler et al. 2019 (1909.08593); estimators k1-k3, Schulman, "Approximating KL divergence" (2020); advantages from the
other responses to the same prompt, Ahmadian et al. 2024 (2402.14740) and Shao et al. 2024 (2402.03300).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes; the identity where there is one."""

LOG_RATIO_LIMIT = 20.0
"""exp(20) = 5e8: keeps the ratio finite in fp32; far outside any clip range."""


GROUP_EPSILON = 1e-4
"""Added to the deviation of a group: rewards that differ by less than this count as nearly equal."""


def alone(total: Tensor) -> Tensor:
    """The sum over all processes where there is one."""
    return total


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of `values` where `mask`; NaN elsewhere changes nothing, in the gradient neither."""
    total: Tensor = torch.where(mask, values, 0.0).sum()
    return total


def masked_mean(values: Tensor, mask: Tensor, reduce: Reduce = alone) -> Tensor:
    """Mean of `values` where `mask`, over all processes; 0 where nothing counts."""
    sums = reduce(torch.stack([masked_sum(values, mask), mask.sum().to(values.dtype)]))
    return sums[0] / sums[1].clamp(min=1.0)


def masked_var(values: Tensor, mask: Tensor, reduce: Reduce = alone) -> Tensor:
    """Population variance of `values` where `mask`, over all processes."""
    return masked_mean((values - masked_mean(values, mask, reduce)) ** 2, mask, reduce)


def k1(logprobs: Tensor, other: Tensor) -> Tensor:
    """Unbiased estimate of KL(policy || other) per sampled token; the only one that is right inside the reward."""
    return logprobs - other


def k3(logprobs: Tensor, other: Tensor) -> Tensor:
    """Never negative, low-variance estimate of KL(policy || other) per sampled token; for logs and loss terms only."""
    log_ratio = other - logprobs
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Reward per token: -kl_coef * KL everywhere, plus the score on the last token of the response (the EOS itself).

    Args:
        scores: [B].
        kl: [B, T], k1.
        mask: [B, T].

    Returns:
        [B, T], 0 outside the mask.
    """
    rewards = torch.where(mask, -kl_coef * kl, 0.0)
    last = mask.sum(-1, keepdim=True) - 1
    return rewards.scatter_add(-1, last, scores.to(rewards.dtype).unsqueeze(-1))


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation, and the targets of the value model.

    The episode ends at the last token that counts: nothing beyond it is bootstrapped.

    Args:
        rewards: [B, T].
        values: [B, T]; the value of the state before token t.
        mask: [B, T].

    Returns:
        Raw advantages and returns = advantages + values, both [B, T] and 0 outside the mask.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(rewards)
    carry = next_value = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        carry = torch.where(mask[:, t], delta + gamma * lam * carry, 0.0)
        advantages[:, t] = carry
        next_value = values[:, t]
    return advantages, advantages + values


def rloo_advantages(rewards: Tensor, mask: Tensor, group: int) -> Tensor:
    """Advantages of REINFORCE with a leave-one-out baseline (RLOO): each response against the others to its prompt.

    The whole response is one action: its reward is the sum over its tokens, KL included, and its baseline is the mean
    reward of the other responses. The gradient is unbiased, because the baseline does not depend on the response. Kool
    et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!"; Ahmadian et al. 2024 (2402.14740).

    Args:
        rewards: [B, T], undiscounted; the responses to one prompt are `group` neighboring rows.
        mask: [B, T].
        group: number of responses to each prompt, at least 2; it divides B.

    Returns:
        Raw advantages [B, T], the same on every token of a response, 0 outside the mask.
    """
    totals = _totals(rewards, mask, group)
    others = (totals.sum(-1, keepdim=True) - totals) / (group - 1)
    return _on_every_token(totals - others, mask)


def grpo_advantages(rewards: Tensor, mask: Tensor, group: int) -> Tensor:
    """Advantages of group relative policy optimization (GRPO): rewards at mean 0 and deviation 1 within each prompt.

    Shao et al. 2024 (2402.03300), section 4.1.2, with the KL in the reward. The deviation is that of a sample (divided
    by group - 1). Responses of equal reward get 0.

    Args:
        rewards: [B, T], undiscounted; the responses to one prompt are `group` neighboring rows.
        mask: [B, T].
        group: number of responses to each prompt, at least 2; it divides B.

    Returns:
        Advantages [B, T], the same on every token of a response, 0 outside the mask.
    """
    totals = _totals(rewards, mask, group)
    deviation, mean = torch.std_mean(totals, -1, keepdim=True)
    return _on_every_token((totals - mean) / (deviation + GROUP_EPSILON), mask)


def _totals(rewards: Tensor, mask: Tensor, group: int) -> Tensor:
    """[B / group, group]: rewards of whole responses, one prompt a row, less that of the first response.

    A shift changes no advantage, and equal rewards are exactly 0 without a trace of rounding.
    """
    totals = torch.where(mask, rewards, 0.0).sum(-1).view(-1, group)
    return totals - totals[:, :1]


def _on_every_token(advantages: Tensor, mask: Tensor) -> Tensor:
    """[B, T]: the advantage of the response where `mask`, else 0."""
    return torch.where(mask, advantages.view(-1, 1), 0.0)


def whiten(values: Tensor, mask: Tensor, reduce: Reduce = alone) -> Tensor:
    """Shift and scale to mean 0 and variance 1 where `mask`, over all processes; 0 elsewhere."""
    mean, variance = masked_mean(values, mask, reduce), masked_var(values, mask, reduce)
    return torch.where(mask, (values - mean) * torch.rsqrt(variance + 1e-8), 0.0)


@dataclass(frozen=True)
class Loss:
    """A loss summed over the tokens that count, and what was clipped.

    Attributes:
        total: sum of the token losses; the caller divides it by the tokens of the whole minibatch.
        clipped: number of tokens at which the clipped branch was the larger loss.
    """

    total: Tensor
    clipped: Tensor


@dataclass(frozen=True)
class PolicyLoss(Loss):
    """The clipped surrogate.

    Attributes:
        ratio: [B, T]; new over old probability, 1 outside the mask.
        approx_kl: sum over the tokens of k3(old || new).
    """

    ratio: Tensor
    approx_kl: Tensor


def policy_loss(
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    cliprange: float,
    cliprange_high: float | None = None,
) -> PolicyLoss:
    """The clipped surrogate of PPO (1707.06347, eq. 7) as a loss to minimize.

    Args:
        new, old, advantages: [B, T].
        mask: [B, T].
        cliprange: the ratio is clipped to 1 - cliprange from below.
        cliprange_high: the ratio is clipped to 1 + cliprange_high from above ("clip-higher" in DAPO, 2503.14476, eq.
            10); None: as far as from below.
    """
    high = cliprange if cliprange_high is None else cliprange_high
    advantages = torch.where(mask, advantages, 0.0)
    log_ratio = torch.where(mask, new - old, 0.0).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - cliprange, 1.0 + high)
    with torch.no_grad():
        approx_kl = masked_sum(torch.expm1(log_ratio) - log_ratio, mask)
        count = ((clipped > plain) & mask).sum()
    return PolicyLoss(masked_sum(torch.max(plain, clipped), mask), count, ratio.detach(), approx_kl)


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, cliprange: float | None) -> Loss:
    """Half the squared error of the value, the larger of unclipped and clipped around the old value; all [B, T]."""
    new = torch.where(mask, new, 0.0)
    old, returns = torch.where(mask, old, 0.0), torch.where(mask, returns, 0.0)
    error = (new - returns) ** 2
    if cliprange is None:
        return Loss(0.5 * masked_sum(error, mask), mask.new_zeros((), dtype=torch.long))
    clipped_error = (old + (new - old).clamp(-cliprange, cliprange) - returns) ** 2
    count = ((clipped_error > error) & mask).sum()
    return Loss(0.5 * masked_sum(torch.max(error, clipped_error), mask), count)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, reduce: Reduce = alone) -> Tensor:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect value model, 0 one that knows nothing."""
    total = masked_var(returns, mask, reduce)
    return torch.where(total > 1e-8, 1.0 - masked_var(returns - values, mask, reduce) / total.clamp(min=1e-8), 0.0)


def length_penalties(lengths: Tensor, *, start: int, limit: int, penalty: float) -> Tensor:
    """[B] penalty of responses by their length in tokens: 0 up to `start`, then linear up to `penalty` at `limit`.

    Yu et al. 2025, "DAPO" (2503.14476), eq. 13: soft overlong punishment.
    """
    return penalty * ((lengths - start) / (limit - start)).clamp(0.0, 1.0)


def normalized_scores(
    scores: Tensor, finished: Tensor, *, mean: float, std: float, clip: float | None, missing_eos_penalty: float
) -> tuple[Tensor, Tensor]:
    """Scores as the reward sees them: shifted, scaled, clipped, then lowered where no EOS came; and which were clipped.

    Both [B], the second bool.
    """
    scaled = (scores - mean) / std
    scores = scaled if clip is None else scaled.clamp(-clip, clip)
    return scores - missing_eos_penalty * (~finished).to(scores.dtype), scores != scaled
