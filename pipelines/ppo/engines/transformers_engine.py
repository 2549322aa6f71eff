"""The rollout engine behind one small protocol, so that a faster one can take the place of `generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from pipelines.errors import TrainingError
from pipelines.models.generate import sample
from pipelines.ppo.roles import Roles


class RolloutEngine(Protocol):
    """Samples responses of the current policy."""

    def generate(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
        """Token ids of one response a prompt; each ends on an ending token or has the full response length."""


@dataclass(frozen=True)
class TransformersEngine:
    """`generate` of transformers on the policy that trains, in place: no copy, no weights to carry over.

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

    def generate(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
        """See RolloutEngine."""
        with self.roles.policy.active() as model, self.roles.precision(), _diverged_is_said():
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
def _diverged_is_said() -> Iterator[None]:
    """torch knows only that it cannot draw from what the policy gave."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor contains either" not in str(error):
            raise
        raise TrainingError(
            "the policy gives probabilities that are not finite: training diverged",
            hint="lower ppo.learning_rate or ppo.max_grad_norm; the last checkpoint is from before",
        ) from error
