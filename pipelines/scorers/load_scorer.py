"""Loading a scorer from its configuration section, for PPO as for the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from pipelines.config import Config
from pipelines.config.scorer_section import ScorerPart, ScorerSection
from pipelines.errors import ArtifactError, UsageError
from pipelines.models.published_reward import PublishedReward
from pipelines.run.directory import run_of
from pipelines.run.manifest import refuse_damaged_model
from pipelines.scorers.protocol import Progress, Scorer

if TYPE_CHECKING:
    import torch

    from pipelines.scorers.combined import Part

_Section = TypeVar("_Section", bound=ScorerSection)


class ScorerContext(Protocol):
    """The run around a scorer; every StageContext is one."""

    @property
    def config(self) -> Config:
        """The whole configuration; the run's reward model needs `model`, the gold scorer `data.task`."""

    @property
    def inputs(self) -> Mapping[str, Path]:
        """Directories of stages by name; ``reward`` holds the run's reward model."""


ScorerOfRun = Callable[[str, ScorerSection], Scorer]
"""Makes a scorer of the run's reward model, from its name and section."""


def load_scorer(
    section: ScorerSection,
    context: ScorerContext,
    device: torch.device,
    *,
    progress: Progress | None = None,
    of_run: ScorerOfRun | None = None,
) -> Scorer:
    """Load the scorer that `section` describes.

    Args:
        of_run: gives the run's reward model where it is in memory already; None: it is loaded.

    Raises:
        UsageError: the section names something that does not exist, or lacks a necessary choice.
        ArtifactError: the reward model is missing or damaged.
        HubError: a hub model cannot be loaded.
    """
    name, config, inputs = scorer_name(section), context.config, context.inputs
    match section.kind:
        case "run" if of_run is not None:
            return of_run(name, section)
        case "run" | "judge":
            from pipelines.scorers.reward_model_scorer import RewardModelScorer

            stage, what = ("reward", "reward model") if section.kind == "run" else ("judge", "independent judge")
            if stage not in inputs:
                raise ArtifactError(f"the run has no {what}", hint=f"run `rlhf {stage}` first, or `rlhf all`")
            return RewardModelScorer.of_run(name, section, inputs[stage], config.model, device, progress=progress)
        case "function":
            from pipelines.scorers.function import FunctionScorer

            assert section.function is not None  # the schema holds it
            return FunctionScorer.load(name, section.function, progress=progress, read_thoughts=section.read_thoughts)
        case "classifier":
            refuse_damaged_model(str(section.path))
            if is_published_reward(Path(str(section.path))):
                from pipelines.scorers.reward_model_scorer import RewardModelScorer

                return RewardModelScorer.of_other_run(name, section, device, date=config.run.date, progress=progress)
            from pipelines.scorers.classifier import ClassifierScorer

            return ClassifierScorer.load(name, section, device, date=config.run.date, progress=progress)
        case "http":
            from pipelines.scorers.http_scorer import HttpScorer

            return HttpScorer(name, section, progress=progress)
        case "constraints":
            from pipelines.scorers.constraints import ConstraintScorer

            return ConstraintScorer(name, Path(str(section.file)), progress=progress)
        case "length" | "repetition":
            from pipelines.scorers.rules import RuleScorer, length, repetition

            rule = length(section.target) if section.target is not None else repetition(section.ngram)
            return RuleScorer(name, rule, progress=progress)
        case "sum" | "ensemble":
            from pipelines.scorers.combined import CombinedScorer, careful_mean, shared, weighted_sum

            progress_of_part = shared(progress, len(section.parts))
            parts = [_load_part(part, context, device, progress_of_part, of_run) for part in named_apart(section.parts)]
            summed = section.kind == "sum"
            combine = (
                weighted_sum([part.weight for part in section.parts]) if summed else careful_mean(section.deviations)
            )
            return CombinedScorer(name, parts, combine)
        case "gold":
            from pipelines.scorers.rules import GoldScorer
            from pipelines.tasks import load_task

            if config.data.task is None:
                raise UsageError(
                    "only a self-made task has a gold scorer",
                    where="data.task",
                    hint="set data.task, or choose another kind of scorer",
                )
            return GoldScorer(name, load_task(config.data.task.name), progress=progress)


def _load_part(
    section: ScorerPart,
    context: ScorerContext,
    device: torch.device,
    progress: Progress | None,
    of_run: ScorerOfRun | None,
) -> Part:
    """Load a part, with its mean and deviation on SFT responses where it is the run's reward model."""
    from pipelines.scorers.combined import Part

    scorer = load_scorer(section, context, device, progress=progress, of_run=of_run)
    if section.kind != "run" or not section.normalize:
        return Part(scorer)
    scale = PublishedReward.read(context.inputs["reward"]).scale(section.output)
    return Part(scorer, scale.mean, scale.std)


def is_published_reward(path: Path) -> bool:
    """Whether `path` is the `model/` of a reward stage, which is then read as its own run reads it."""
    stage_dir = path.absolute().parent
    return (
        (path / "normalization.json").is_file()
        and (stage_dir / "manifest.json").is_file()
        and (run_of(stage_dir)[0] / "config.yaml").is_file()
    )


def named_apart(sections: Sequence[_Section]) -> list[_Section]:
    """Copies of the sections with distinct names: the second of two equal names gets the next free number."""
    names = [scorer_name(section) for section in sections]
    used: set[str] = set()
    for index, name in enumerate(names):
        number = 1
        while names[index] in used or (number > 1 and names[index] in names[index + 1 :]):
            number += 1
            names[index] = f"{name}-{number}"
        used.add(names[index])
    return [section.model_copy(update={"name": name}) for section, name in zip(sections, names, strict=True)]


def scorer_name(section: ScorerSection) -> str:
    """Name of the scorer in tables: the one that is set, or one made from its kind."""
    if section.name:
        return section.name
    match section.kind:
        case "run":
            return "reward_model"
        case "function":
            return (section.function or "").partition(":")[2] or "function"
        case "classifier":
            return Path(section.path or "classifier").name or "classifier"
        case "http":
            return urlsplit(section.url or "").hostname or "http"
        case kind:
            return kind
