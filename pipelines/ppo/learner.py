"""One update: epochs over a rollout, minibatches (one optimizer step each), micro-batches (one backward each).

Never generates. Every loss is divided by the tokens of its whole minibatch over all processes, so the micro-batch size
changes memory and speed and nothing else.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.config.ppo import PpoSection
from pipelines.errors import TrainingError
from pipelines.ppo.objective import masked_sum, policy_loss, value_loss, whiten
from pipelines.ppo.types import Rollout, Update

STATISTICS = ("policy_loss", "value_loss", "approx_kl", "policy_clipped", "value_clipped", "entropy", "ratio")
"""What a step sums over its tokens, in this order."""


@dataclass(frozen=True)
class Learner:
    """The trained module, its optimizer and how they are stepped.

    Attributes:
        module: PolicyAndValue as prepared by `accelerator`.
        policy_parameters, value_parameters: clipped each by its own norm.
    """

    module: nn.Module
    policy_parameters: Sequence[nn.Parameter]
    value_parameters: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    settings: PpoSection
    accelerator: Accelerator

    def update(self, rollout: Rollout, generator: torch.Generator) -> Update:
        """Train on one rollout.

        Args:
            rollout: the rows of this process.
            generator: shuffles the rows; on the CPU.

        Raises:
            TrainingError: a loss or a gradient is not finite; no step was taken with it.
        """
        settings = self.settings
        if settings.whiten_advantages:
            rollout = replace(rollout, advantages=whiten(rollout.advantages, rollout.response_mask, self._sum))
        sums: dict[str, float] = defaultdict(float)
        ratios: list[float] = []
        first_deviation = 0.0
        steps = 0
        for _ in range(settings.num_ppo_epochs):
            order = torch.randperm(len(rollout), generator=generator)
            for minibatch in order.chunk(settings.num_mini_batches):
                stats, deviation = self._step(rollout, minibatch)
                if steps == 0:
                    first_deviation = deviation
                steps += 1
                ratios.append(stats["ratio"])
                for name, value in stats.items():
                    sums[name] += value
        mean = {name: total / steps for name, total in sums.items()}
        return Update(
            policy_loss=mean["policy_loss"],
            value_loss=mean["value_loss"],
            approx_kl=mean["approx_kl"],
            policy_clipfrac=mean["policy_clipped"],
            value_clipfrac=mean["value_clipped"],
            entropy=mean["entropy"],
            ratio_mean=mean["ratio"],
            ratio_var=sum((ratio - mean["ratio"]) ** 2 for ratio in ratios) / len(ratios),
            first_ratio_deviation=first_deviation,
            policy_grad_norm=mean["policy_grad_norm"],
            value_grad_norm=mean["value_grad_norm"],
            optimizer_steps=steps,
        )

    def _step(self, rollout: Rollout, minibatch: Tensor) -> tuple[dict[str, float], float]:
        """One optimizer step on the rows `minibatch`; statistics per token, and the largest |ratio - 1|."""
        settings = self.settings
        minibatch = minibatch.to(rollout.device)
        tokens = self._sum(rollout.response_mask[minibatch].sum())
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(len(STATISTICS), device=rollout.device)
        deviation = torch.zeros((), device=rollout.device)
        micro_batches = torch.split(minibatch, settings.per_device_train_batch_size)
        for index, micro in enumerate(micro_batches):
            batch = rollout.rows(micro)
            last = index == len(micro_batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                logprobs, entropy, values = self.module(batch, settings.temperature)
                mask = batch.response_mask
                policy = policy_loss(logprobs, batch.logprobs, batch.advantages, mask, settings.cliprange)
                value = value_loss(values, batch.values, batch.returns, mask, settings.cliprange_value)
                loss = (policy.total + settings.vf_coef * value.total) / tokens
                self.accelerator.backward(loss * self.accelerator.num_processes)  # DDP takes the mean over ranks
            with torch.no_grad():
                sums += torch.stack(
                    [
                        policy.total.detach(),
                        value.total.detach(),
                        policy.approx_kl,
                        policy.clipped.float(),
                        value.clipped.float(),
                        masked_sum(entropy, mask),
                        masked_sum(policy.ratio, mask),
                    ]
                )
                deviation = torch.maximum(deviation, (policy.ratio - 1).abs().max())
        stats = dict(zip(STATISTICS, (self._sum(sums) / tokens).tolist(), strict=True))
        stats["policy_grad_norm"] = self._clip(self.policy_parameters)
        stats["value_grad_norm"] = self._clip(self.value_parameters)
        broken = [name for name, number in stats.items() if not math.isfinite(number)]
        if broken:
            raise TrainingError(
                f"{broken[0]} is not finite; the optimizer step was not taken",
                hint="lower ppo.learning_rate, or look at the scores and samples of the last update",
            )
        self.optimizer.step()
        return stats, float(deviation)

    def _clip(self, parameters: Sequence[nn.Parameter]) -> float:
        return float(self.accelerator.clip_grad_norm_(list(parameters), self.settings.max_grad_norm))

    def _sum(self, total: Tensor) -> Tensor:
        reduced: Tensor = self.accelerator.reduce(total, reduction="sum")
        return reduced
