"""Rollouts by the model of transformers that is in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from pipelines.errors import TrainingError
from pipelines.models.generate import refuse_not_finite_draws, sample
from pipelines.ppo.engines import RolloutEngine
from pipelines.ppo.roles import Roles


@dataclass(frozen=True)
class TransformersEngine(RolloutEngine):
    """Samples with the policy in training, in place: nothing is copied or synchronized.

    Attributes:
        eos_token_id: the id or ids that end a response.
    """

    roles: Roles
    eos_token_id: int | Sequence[int]
    response_length: int
    temperature: float
    batch_size: int
    top_k: int = 0
    top_p: float = 1.0

    @override
    def generate(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
        diverged = TrainingError(
            "the policy gives probabilities that are not finite: training diverged",
            hint="lower ppo.learning_rate or ppo.max_grad_norm; the last checkpoint is from before",
        )
        with self.roles.policy.active() as model, self.roles.precision(), refuse_not_finite_draws(diverged):
            return sample(
                model,
                [list(prompt) for prompt in prompts],
                max_new_tokens=self.response_length,
                temperature=self.temperature,
                eos_token_id=self.eos_token_id,
                batch_size=self.batch_size,
                seed=seed,
                top_k=self.top_k,
                top_p=self.top_p,
            )
