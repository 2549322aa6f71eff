"""Data types that the parts of PPO exchange. B rows, T response tokens."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch import Tensor

from pipelines.models.forward import TokenBatch


@dataclass(frozen=True)
class Normalization:
    """How a score is brought to unit scale before it becomes a reward.

    Attributes:
        mean: of the scores on SFT responses.
        std: of the same.
    """

    mean: float = 0.0
    std: float = 1.0


AS_IT_IS = Normalization()
"""For scores that are used as the source gives them."""


@dataclass(frozen=True)
class Rollout(TokenBatch):
    """Responses of the policy with everything an update needs; holds no gradients.

    Attributes:
        logprobs: [B, T] log-probability of each token under the policy that sampled it, by the training forward.
        ref_logprobs: [B, T] the same under the reference.
        values: [B, T] value of the state before each token; None where there is no value model.
        scores: [B] what the reward source gave, as it gave it.
        rewards: [B, T] KL penalty per token, and the normalized score on the last one.
        advantages: [B, T] raw, in reward units.
        returns: [B, T] targets of the value model; None where there is none.
        loss_mask: [B, T] bool, True = this token takes part in whitening and losses; the response mask, less the rows
            that are left out of training.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor | None
    scores: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor | None
    loss_mask: Tensor

    @functools.cached_property
    def trains(self) -> list[bool]:
        """Whether a token of each row takes part in the losses."""
        trains: list[bool] = self.loss_mask.any(1).tolist()
        return trains


@dataclass(frozen=True)
class Update:
    """What one update did, averaged over its minibatches where not said otherwise; 0 where no token took part in any.

    The figures of the value are 0 where there is no value model.

    Attributes:
        policy_loss: clipped surrogate per token.
        value_loss: half squared error per token.
        approx_kl: k3 between the policies before and after, per token.
        policy_clipfrac: share of tokens at which the policy's clip was the larger loss.
        value_clipfrac: the same for the value.
        entropy: nats per token.
        ratio_mean: mean of new over old probability.
        ratio_var: variance of the minibatches' mean ratios.
        first_ratio_deviation: largest |ratio - 1| before the first optimizer step: 0 up to rounding.
        policy_grad_norm: before clipping.
        value_grad_norm: before clipping.
        optimizer_steps: taken in this update.
        stopped_early: `kl_early_stop` ended it.
    """

    policy_loss: float
    value_loss: float
    approx_kl: float
    policy_clipfrac: float
    value_clipfrac: float
    entropy: float
    ratio_mean: float
    ratio_var: float
    first_ratio_deviation: float
    policy_grad_norm: float
    value_grad_norm: float
    optimizer_steps: int
    stopped_early: bool = False
