"""A reward model that a run trained as a scorer: that of the same run, or that of another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.config import load_config
from pipelines.config.model_section import ModelSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.errors import UsageError
from pipelines.models.published_reward import PublishedReward
from pipelines.models.reward_model import RewardModel, open_reward_model
from pipelines.models.text_classifier import EncodedText
from pipelines.run.directory import run_of
from pipelines.scorers.classifier import scores_of
from pipelines.scorers.protocol import Completion, Dialogue, Progress, checked_scores

BATCHES_A_TIME = 8
"""Forward batches between two reports of progress."""


class RewardModelScorer:
    """Scores prompt and answer as the reward stage's own judging does.

    The reward model of the same run gets the answer's tokens as the policy sampled them. That of another run has a
    tokenizer of its own: it gets the text in its own tokens, ending on its EOS where the answer is finished. A plain
    classifier would write the whole dialogue by the chat template, whose last token is often another one.
    """

    def __init__(
        self,
        name: str,
        model: RewardModel,
        section: ScorerSection,
        *,
        same_run: bool,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._section = section
        self._same_run = same_run
        self._progress = progress

    @classmethod
    def of_run(
        cls,
        name: str,
        section: ScorerSection,
        stage_dir: Path,
        model: ModelSection,
        device: torch.device,
        *,
        progress: Progress | None = None,
    ) -> RewardModelScorer:
        """Open what the reward stage of the same run published in `stage_dir`.

        Raises:
            RlhfError: see `open_reward_model` and `PublishedReward.check_output`.
        """
        published = PublishedReward.read(stage_dir)
        published.check_output(section.output)
        opened = open_reward_model(published, model, device, batch_size=section.batch_size)
        return cls(name, opened, section, same_run=True, progress=progress)

    @classmethod
    def of_other_run(
        cls,
        name: str,
        section: ScorerSection,
        device: torch.device,
        *,
        date: str | None = None,
        progress: Progress | None = None,
    ) -> RewardModelScorer:
        """Open the `model/` of a reward stage, full or adapter, that ``section.path`` names.

        Raises:
            RlhfError: see `open_reward_model`; the run's configuration cannot be read; or a class is chosen.
        """
        if section.label not in (None, 0):
            raise UsageError(f"the reward model {name} has one score and no class {section.label!r}", where="label")
        stage_dir = Path(str(section.path)).absolute().parent
        recorded = load_config(run_of(stage_dir)[0] / "config.yaml").model
        model = recorded.model_copy(update={"trust_remote_code": False})  # trust is that of the other run
        model = model if model.date is not None else model.on(date)
        opened = open_reward_model(PublishedReward.read(stage_dir), model, device, batch_size=section.batch_size)
        return cls(name, opened, section, same_run=False, progress=progress)

    @property
    def truncated(self) -> int:
        """Number of texts cut so far; a model that reads tokens cuts none."""
        return self._model.truncated

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the reward model."""
        return self._model.num_parameters

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The chosen output of the reward model, not normalized.

        Raises:
            DataError: an answer holds the EOS token as text, or a score is not finite.
        """
        thoughts = self._section.read_thoughts
        rows = [
            row_of(self._model, prompt, completion, same_run=self._same_run, thoughts=thoughts)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores: list[float] = []
        size = BATCHES_A_TIME * self._section.batch_size
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            logits = torch.tensor(self._model.scores(part), dtype=torch.float64)
            scores += scores_of(logits[:, None], 0, self._section)
            if self._progress is not None:
                self._progress(len(part))
        return checked_scores(f"the reward model {self.name}", scores, len(rows))


def row_of(
    model: RewardModel, prompt: Dialogue, completion: Completion, *, same_run: bool, thoughts: bool
) -> EncodedText:
    """An answer as a reward model reads it: as sampled in the same run, or the text in the model's own tokens.

    Where thoughts are not read, an answer after one is encoded anew, as in training.
    """
    text = completion.read(thoughts=thoughts)
    as_sampled = same_run and (thoughts or not completion.thought)
    ids = completion.ids if as_sampled and completion.ids else None
    return model.row(prompt, text, ids, finished=completion.finished)
