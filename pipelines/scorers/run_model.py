"""The run's own reward model as a scorer: on token ids, exactly as PPO reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from pipelines.config.model import ModelSection
from pipelines.data.encode import ChatEncoder
from pipelines.models.artifact import open_reward
from pipelines.models.machine import autocast
from pipelines.models.score import score_ids
from pipelines.scorers.base import Completion, Dialogue, Progress, checked_scores

BATCHES_A_TIME = 8
"""Forward batches between two words of progress."""


class RunRewardScorer:
    """Scores prompt and response at the last token, so that an answer cut at the limit is scored without an EOS."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        encoder: ChatEncoder,
        section: ModelSection,
        *,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._encoder = encoder
        self._section = section
        self._batch_size = batch_size
        self._progress = progress

    @classmethod
    def load(
        cls,
        name: str,
        stage_dir: Path,
        section: ModelSection,
        device: torch.device,
        *,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> RunRewardScorer:
        """Open what the reward stage published in `stage_dir`; see `open_reward` for the errors."""
        model, tokenizer = open_reward(stage_dir, section, device)
        return cls(name, model, ChatEncoder(tokenizer), section, batch_size=batch_size, progress=progress)

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The reward model's raw scores, not normalized."""
        rows = [
            [*self._encoder.prompt(prompt), *completion.ids]
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores: list[float] = []
        device = next(self._model.parameters()).device
        for start in range(0, len(rows), BATCHES_A_TIME * self._batch_size):
            part = rows[start : start + BATCHES_A_TIME * self._batch_size]
            with autocast(self._section, device):
                scores += score_ids(self._model, part, self._batch_size)
            if self._progress is not None:
                self._progress(len(part))
        return checked_scores(f"the reward model {self.name}", scores, len(rows))
