"""One update: epochs over a rollout, minibatches (one optimizer step each), micro-batches (one backward each).

Never generates. Every loss is divided by the tokens of its whole minibatch over all processes, so the micro-batch size
changes memory and speed and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.config.ppo_section import PpoSection
from pipelines.errors import TrainingError
from pipelines.ppo.objective import Loss, Reduce, masked_sum, policy_loss, value_loss, whiten
from pipelines.ppo.roles import PolicyAndValue
from pipelines.ppo.types import Rollout, Update

STATISTICS = ("policy_loss", "value_loss", "approx_kl", "policy_clipped", "value_clipped", "entropy", "ratio")
"""What a step sums over its tokens, in this order."""


def over_processes(accelerator: Accelerator) -> Reduce:
    """Sums a tensor over all processes."""

    def reduce(total: Tensor) -> Tensor:
        reduced: Tensor = accelerator.reduce(total, reduction="sum")
        return reduced

    return reduce


@dataclass(frozen=True)
class Learner:
    """The trained module, its optimizer and how they are stepped.

    Attributes:
        module: the roles that train.
        policy_parameters, value_parameters: clipped each by its own norm; the second is empty without a value model.
    """

    module: PolicyAndValue
    policy_parameters: Sequence[nn.Parameter]
    value_parameters: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    settings: PpoSection
    accelerator: Accelerator

    def update(self, rollout: Rollout, generator: torch.Generator, *, train_policy: bool = True) -> Update:
        """Train on one rollout.

        Args:
            rollout: the rows of this process.
            generator: shuffles the rows; on the CPU.
            train_policy: False: only the value model learns; the policy and what Adam remembers of it stay.

        Raises:
            TrainingError: a loss or a gradient is not finite; no step was taken with it.
        """
        limit = self.settings.kl_early_stop
        if self.settings.whitens:
            rollout = replace(rollout, advantages=whiten(rollout.advantages, rollout.loss_mask, self._sum))
        seen: list[dict[str, float]] = []
        first_deviation, taken, stopped = 0.0, 0, False
        for minibatch in self._minibatches(len(rollout), generator):
            stats, deviation = self._gradients(rollout, minibatch, train_policy=train_policy)
            if not stats:
                continue
            if not seen:
                first_deviation = float(self.accelerator.gather(deviation).max())
            seen.append(stats)
            if limit is not None and stats["approx_kl"] > limit:
                stopped = True
                break
            self.optimizer.step()
            taken += 1

        def mean(name: str) -> float:
            return sum(stats[name] for stats in seen) / max(len(seen), 1)

        ratio = mean("ratio")
        return Update(
            policy_loss=mean("policy_loss"),
            value_loss=mean("value_loss"),
            approx_kl=mean("approx_kl"),
            policy_clipfrac=mean("policy_clipped"),
            value_clipfrac=mean("value_clipped"),
            entropy=mean("entropy"),
            ratio_mean=ratio,
            ratio_var=sum((stats["ratio"] - ratio) ** 2 for stats in seen) / max(len(seen), 1),
            first_ratio_deviation=first_deviation,
            policy_grad_norm=mean("policy_grad_norm"),
            value_grad_norm=mean("value_grad_norm"),
            optimizer_steps=taken,
            stopped_early=stopped,
        )

    def _minibatches(self, rows: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Row numbers of one optimizer step after the other; every epoch in a new order."""
        for _ in range(self.settings.num_ppo_epochs):
            yield from torch.randperm(rows, generator=generator).chunk(self.settings.num_mini_batches)

    def _gradients(
        self, rollout: Rollout, minibatch: Tensor, *, train_policy: bool = True
    ) -> tuple[dict[str, float], Tensor]:
        """The clipped gradients of the rows `minibatch`, left in the parameters.

        Returns:
            Statistics per token over all processes, empty where no token takes part; the largest |ratio - 1| here.
        """
        settings = self.settings
        tokens = self._sum(rollout.loss_mask[minibatch.to(rollout.device)].sum())
        divisor = tokens.clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(len(STATISTICS), device=rollout.device)
        deviation = torch.zeros((), device=rollout.device)
        trained = [row for row in minibatch.tolist() if rollout.trains[row]]
        for rows in rollout.by_length(settings.per_device_train_batch_size, trained):
            batch = rollout.rows(rows)
            mask = batch.loss_mask
            logprobs, entropy, values = self.module(batch, settings.temperature)
            policy = policy_loss(
                logprobs, batch.logprobs, batch.advantages, mask, settings.cliprange, settings.cliprange_high
            )
            loss = policy.total / divisor
            if values is None:  # the graph of the policy goes before that of the value model comes
                self.accelerator.backward(loss)
                loss, values = torch.zeros_like(loss), self.module.own_values(batch)
            value = self._value_loss(values, batch)
            if values is not None:
                self.accelerator.backward(loss + settings.vf_coef * value.total / divisor)
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
        self._sum_gradients()
        if not train_policy:
            for parameter in self.policy_parameters:  # None, not 0: by its memory Adam moves what has a gradient of 0
                parameter.grad = None
        norms = [self._clip(parameters).to(sums) for parameters in (self.policy_parameters, self.value_parameters)]
        # what the step waits for the device for, once
        *numbers, counted = torch.cat([self._sum(sums) / divisor, torch.stack([*norms, tokens.to(sums)])]).tolist()
        if counted == 0:
            return {}, deviation
        stats = dict(zip((*STATISTICS, "policy_grad_norm", "value_grad_norm"), numbers, strict=True))
        broken = [name for name, number in stats.items() if not math.isfinite(number)]
        if broken:
            raise TrainingError(
                f"{broken[0]} is not finite; the optimizer step was not taken",
                hint="lower ppo.learning_rate, or look at the scores and samples of the last update",
            )
        return stats, deviation

    def _sum_gradients(self) -> None:
        """Sum the gradients over all processes; one of them may lack some (no row reached an expert)."""
        if self.accelerator.num_processes > 1:
            for parameter in (*self.policy_parameters, *self.value_parameters):
                parameter.grad = self._sum(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)

    def _value_loss(self, values: Tensor | None, batch: Rollout) -> Loss:
        """The loss of the value model; 0 where there is none."""
        if values is None:
            zero = batch.advantages.new_zeros(())
            return Loss(zero, zero)
        assert batch.values is not None
        assert batch.returns is not None
        return value_loss(values, batch.values, batch.returns, batch.loss_mask, self.settings.cliprange_value)

    def _clip(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Clip the gradients by their common norm; return it."""
        norm: Tensor = self.accelerator.clip_grad_norm_(list(parameters), self.settings.max_grad_norm)
        return norm

    def _sum(self, total: Tensor) -> Tensor:
        return over_processes(self.accelerator)(total)
