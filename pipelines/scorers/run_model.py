"""The run's own reward model as a scorer: on token ids as PPO reads it, or on text where it has a base of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.config.model import ModelSection
from pipelines.models.reward_model import RewardModel, open_reward_model
from pipelines.models.scale import Output, check_output
from pipelines.models.score import read_logit
from pipelines.scorers.base import Completion, Dialogue, Progress, checked_scores

BATCHES_A_TIME = 8
"""Forward batches between two words of progress."""


class RunRewardScorer:
    """Scores prompt and response as the reward stage's own judging does.

    Attributes:
        name: what tables call it.
    """

    def __init__(
        self,
        name: str,
        model: RewardModel,
        *,
        output: Output = "logit",
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._output = output
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
        output: Output = "logit",
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> RunRewardScorer:
        """Open what the reward stage published in `stage_dir`; see `open_reward_model` and `check_output`."""
        check_output(stage_dir, output)
        model = open_reward_model(stage_dir, section, device, batch_size=batch_size)
        return cls(name, model, output=output, batch_size=batch_size, progress=progress)

    @property
    def truncated(self) -> int:
        """Texts cut so far; a model that reads tokens cuts none."""
        return self._model.truncated

    @property
    def num_parameters(self) -> int:
        """Of the model."""
        return self._model.num_parameters

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The chosen output of the reward model, not normalized."""
        rows = [
            self._model.row(prompt, completion.text, completion.ids, ended=completion.finished)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores: list[float] = []
        for start in range(0, len(rows), BATCHES_A_TIME * self._batch_size):
            part = rows[start : start + BATCHES_A_TIME * self._batch_size]
            logits = torch.tensor(self._model.scores(part), dtype=torch.float64)
            scores += read_logit(logits, self._output).tolist()
            if self._progress is not None:
                self._progress(len(part))
        return checked_scores(f"the reward model {self.name}", scores, len(rows))
