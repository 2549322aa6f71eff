"""What the parts of PPO hand to each other. B rows, P prompt tokens, T response tokens, S = P + T."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from pipelines.models.sequence_scores import position_ids


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
        """Where the tensors are."""
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
        return replace(self, **{field.name: function(getattr(self, field.name)) for field in fields(self)})


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
        values: [B, T] value of the state before each token.
        scores: [B] what the reward source gave, as it gave it.
        rewards: [B, T] KL penalty per token, and the normalized score on the last one.
        advantages: [B, T] raw, in reward units.
        returns: [B, T] targets of the value model.
        loss_mask: [B, T] bool, True = this token takes part in whitening and losses; the response mask, less the rows
            that are left out of training.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    scores: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor
    loss_mask: Tensor


@dataclass(frozen=True)
class Update:
    """What one update did, averaged over its minibatches where not said otherwise; 0 where no token took part in any.

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
