"""From a configuration section to a scorer: the one door for PPO and for the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.config import Config
from pipelines.config.scorer import ScorerSection
from pipelines.errors import ArtifactError, UsageError
from pipelines.scorers.base import Progress, Scorer

if TYPE_CHECKING:
    import torch


class ScorerContext(Protocol):
    """What scorers need to know of their surroundings; every StageContext is one."""

    @property
    def config(self) -> Config:
        """The whole configuration: the run's reward model needs `model`, the gold scorer `data.task`."""

    @property
    def inputs(self) -> Mapping[str, Path]:
        """Artifacts of stages by name; the run's reward model is that of ``reward``."""


def load_scorer(
    section: ScorerSection, context: ScorerContext, device: torch.device, *, progress: Progress | None = None
) -> Scorer:
    """Make the scorer that `section` describes; a model is loaded onto `device`.

    Args:
        section: as `ppo.reward` and `eval.scorers` give it.
        context: the stage's, or anything with its `config` and `inputs`.
        device: where a model goes.
        progress: called with the number of rows that were just scored.

    Raises:
        UsageError: the section names something that is not there, or a needed choice is missing.
        ArtifactError: the reward model is missing or damaged.
        HubError: a hub model could not be had.
    """
    name, config, inputs = scorer_name(section), context.config, context.inputs
    match section.kind:
        case "run":
            from pipelines.scorers.run_model import RunRewardScorer

            if "reward" not in inputs:
                raise ArtifactError("the run has no reward model", hint="run `rlhf reward` first, or `rlhf all`")
            return RunRewardScorer.load(
                name, inputs["reward"], config.model, device, batch_size=section.batch_size, progress=progress
            )
        case "function":
            from pipelines.scorers.function import FunctionScorer

            assert section.function is not None  # the schema holds it
            return FunctionScorer.load(name, section.function, progress=progress)
        case "classifier":
            from pipelines.scorers.classifier import ClassifierScorer

            return ClassifierScorer.load(name, section, device, progress=progress)
        case "gold":
            from pipelines.scorers.gold import GoldScorer
            from pipelines.tasks import load_task

            if config.data.task is None:
                raise UsageError("only a self-made task has a gold scorer", where="data.task")
            return GoldScorer(name, load_task(config.data.task.name), progress=progress)


def scorer_name(section: ScorerSection) -> str:
    """What tables call the scorer: its given name, or one made from what it is."""
    if section.name:
        return section.name
    match section.kind:
        case "function":
            return (section.function or "").partition(":")[2] or "function"
        case "classifier":
            return Path(section.path or "classifier").name or "classifier"
        case "gold":
            return "gold"
        case _:
            return "reward_model"
