"""The reward model of another run as a scorer: from text, read as that run itself reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.config import load_config
from pipelines.config.scorer import ScorerSection
from pipelines.errors import UsageError
from pipelines.models.reward_model import RewardModel, open_reward_model
from pipelines.rundir import run_of
from pipelines.scorers.base import Completion, Dialogue, Progress, checked_scores
from pipelines.scorers.classifier import scores_of


class PublishedRewardScorer:
    """Puts the answers into the tokens of that run, which end on its EOS, and scores them at the last one.

    A plain classifier would write the whole dialogue by the chat template, whose last token is often another one.

    Attributes:
        name: what tables call it.
    """

    def __init__(
        self, name: str, model: RewardModel, section: ScorerSection, *, progress: Progress | None = None
    ) -> None:
        self.name = name
        self._model = model
        self._section = section
        self._progress = progress

    @classmethod
    def load(
        cls, name: str, section: ScorerSection, device: torch.device, *, progress: Progress | None = None
    ) -> PublishedRewardScorer:
        """Open the `model/` of a reward stage, full or adapter, that ``section.path`` names.

        Raises:
            RlhfError: see `open_reward_model`; the run's configuration cannot be read; or a class is chosen.
        """
        if section.label not in (None, 0):
            raise UsageError(f"the reward model {name} has one score and no class {section.label!r}", where="label")
        stage_dir = Path(str(section.path)).absolute().parent
        base = load_config(run_of(stage_dir)[0] / "config.yaml").model
        model = open_reward_model(stage_dir, base, device, batch_size=section.batch_size)
        return cls(name, model, section, progress=progress)

    @property
    def truncated(self) -> int:
        """Texts cut so far; a model that reads tokens cuts none."""
        return self._model.truncated

    @property
    def num_parameters(self) -> int:
        """Of the model."""
        return self._model.num_parameters

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The reward model's scores, not normalized.

        Raises:
            DataError: an answer holds the EOS token as text, or a score is not finite.
        """
        rows = []
        for prompt, completion in zip(prompts, completions, strict=True):
            row = self._model.row(prompt, completion.text)
            if not completion.finished and self._model.reads == "tokens":
                row = row._replace(ids=row.ids[:-1])  # it was cut before its EOS, as in that run's own PPO
            rows.append(row)
        raw = torch.tensor(self._model.scores(rows), dtype=torch.float64)
        if self._progress is not None:
            self._progress(len(rows))
        return checked_scores(f"the reward model {self.name}", scores_of(raw[:, None], 0, self._section), len(rows))
