"""Rollout engines: everything that samples responses of the current policy, behind one small protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class RolloutEngine(Protocol):
    """Samples responses of the current policy."""

    def generate(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
        """Sample one response to each prompt.

        Returns:
            Token ids; each response ends on an ending token or has the full response length.
        """
