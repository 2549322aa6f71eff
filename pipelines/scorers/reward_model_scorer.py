"""The reward model of another run as a scorer: from text, read as that run itself reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.config import load_config
from pipelines.config.model_section import ModelSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.errors import UsageError
from pipelines.models.published_reward import Output, check_output
from pipelines.models.reward_model import RewardModel, open_reward_model
from pipelines.models.sequence_scores import read_logit
from pipelines.run.directory import run_of
from pipelines.scorers.classifier import scores_of
from pipelines.scorers.protocol import Completion, Dialogue, Progress, checked_scores

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
