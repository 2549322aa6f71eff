"""Rollouts by transformers' `generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from typing_extensions import override

from pipelines.errors import TrainingError
from pipelines.models.generate import sample
from pipelines.ppo.engines import RolloutEngine
from pipelines.ppo.roles import Roles


@dataclass(frozen=True)
class TransformersEngine(RolloutEngine):
    """`generate` of transformers on the policy in training, in place: nothing is copied or synchronized.

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
        with self.roles.policy.active() as model, self.roles.precision(), _as_training_error():
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


@contextmanager
def _as_training_error() -> Iterator[None]:
    """Raise torch's complaint about probabilities that are not finite as a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor contains either" not in str(error):
            raise
        raise TrainingError(
            "the policy gives probabilities that are not finite: training diverged",
            hint="lower ppo.learning_rate or ppo.max_grad_norm; the last checkpoint is from before",
        ) from error
