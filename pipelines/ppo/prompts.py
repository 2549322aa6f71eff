"""Which prompts a rollout answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipelines.data.encode import EncodedPrompt


class PromptStream:
    """Prompts without end: every pass over them in a new order, given by the seed and the number of the pass.

    Args:
        prompts: those of all processes.
        seed: of the orders.
        rank: which process this is.
        world: how many there are; together they draw the same prompts as one would.
    """

    def __init__(self, prompts: Sequence[EncodedPrompt], seed: int, rank: int = 0, world: int = 1) -> None:
        self.prompts, self.seed, self.rank, self.world = prompts, seed, rank, world
        self.position = 0
        self._pass, self._order = -1, torch.empty(0)

    def take(self, count: int) -> list[EncodedPrompt]:
        """The next `count` prompts of this process."""
        start = self.position + self.rank * count
        self.position += self.world * count
        return [self.prompts[self._index(position)] for position in range(start, start + count)]

    def _index(self, position: int) -> int:
        number, index = divmod(position, len(self.prompts))
        if number != self._pass:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            self._pass, self._order = number, torch.randperm(len(self.prompts), generator=generator)
        return int(self._order[index])

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        self.position = state["position"]
