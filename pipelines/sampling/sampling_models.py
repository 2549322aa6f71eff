"""The models that are sampled from: those of a run by their names, and models from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from pipelines.config import Config
from pipelines.config.feedback_section import RUN_NAMES, SampledModel
from pipelines.config.model_section import ModelSection
from pipelines.errors import ArtifactError, UsageError
from pipelines.models.base_ref import BaseRef
from pipelines.models.policies import open_config, open_frozen_policy, open_tokenizer
from pipelines.run.directory import BASELINES, run_of
from pipelines.run.manifest import Manifest, refuse_damaged
from pipelines.run.stage import as_json


@dataclass(frozen=True)
class SamplingModel:
    """A model to sample from.

    Attributes:
        name: its name in tasks.
        stage_dir: the stage that published it; None: an outside model, or the run's base.
        tokenizer_dir: the stage with its tokenizer; None: its own.
        num_completions: completions of each prompt.
        stop_tokens: tokens that end an answer beside EOS.
        outside: whether it is no model of a run; the tokens that end its answers are then also read from its own
            generation config.
        seed: draws the weights of a base from scratch.
    """

    name: str
    section: ModelSection
    stage_dir: Path | None
    tokenizer_dir: Path | None
    num_completions: int
    temperature: float
    stop_tokens: tuple[str, ...] = ()
    outside: bool = False
    seed: int = 0

    @property
    def from_scratch(self) -> bool:
        """Whether it is the untrained model that the run started from."""
        return self.stage_dir is None and self.section.init == "scratch"

    @property
    def identity(self) -> str:
        """The name, with the commit that was loaded for a hub model."""
        if not self.outside:
            return self.name
        commit = BaseRef.outside(self.section).as_dict()["revision"]
        return f"{self.name}@{commit}" if commit else self.name

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Open its tokenizer, with its chat template."""
        return open_tokenizer(self.tokenizer_dir, self.section)

    def config(self) -> PretrainedConfig:
        """Open its configuration, without weights."""
        return open_config(self.tokenizer_dir if self.from_scratch else self.stage_dir, self.section)

    def open(self, device: torch.device) -> nn.Module:
        """Open it; see `open_frozen_policy`."""
        return open_frozen_policy(self.stage_dir, self.section, device, self.tokenizer(), self.seed)


def models_of_run(config: Config, inputs: Mapping[str, Path]) -> list[SamplingModel]:
    """The models of `feedback.sample`: the newest policy alone where none is named.

    `inputs` are directories of stages by their role: ``sft``, and ``policy`` for the newest of PPO.

    Raises:
        UsageError: a named model of the run is not there.
    """
    sample = config.feedback.sample
    entries = sample.models or [SampledModel(model="policy", num_completions=sample.num_completions)]
    return [_model_of_run(entry, config, inputs) for entry in entries]


def _model_of_run(entry: SampledModel, config: Config, inputs: Mapping[str, Path]) -> SamplingModel:
    name = entry.model
    if name not in RUN_NAMES:
        return from_outside(entry, config, stop=())  # the run's stop tokens are words of the run's tokenizer
    ppo, sft = inputs.get("policy"), inputs.get("sft")
    if name == "policy":
        name = "ppo" if ppo is not None else "sft" if sft is not None else "base"
    directory = {"ppo": ppo, "sft": sft, "base": None}[name]
    if directory is None and name != "base":
        raise UsageError(
            f"the run has no model `{name}` in this round",
            where="feedback.sample.models",
            hint="PPO's policy is there from the second round on; `policy` is always the newest model of the run"
            if name == "ppo"
            else "switch sft on, or name another model",
        )
    called = f"ppo round {run_of(directory)[1]}" if name == "ppo" and directory is not None else name
    stop = tuple(config.ppo.stop_tokens)
    return SamplingModel(called, config.model, directory, directory or sft, stop_tokens=stop, **_draws(entry, config))


def outside_section(entry: SampledModel, run_section: ModelSection) -> ModelSection:
    """Section of a model from outside the run: in the precision of `run_section`, with its own chat template."""
    return ModelSection(
        name_or_path=entry.model,
        revision=entry.revision or None,
        trust_remote_code=entry.trust_remote_code,
        dtype=run_section.dtype,
        attn_implementation=run_section.attn_implementation,
        chat_template=run_section.chat_template if run_section.chat_template == "none" else "auto",
        load_in_4bit=run_section.load_in_4bit,
        allow_cpu_4bit=run_section.allow_cpu_4bit,
        use_peft=True,  # nothing is trained: the weights are those of a frozen base, in `dtype`
    ).on(run_section.date)


def from_outside(entry: SampledModel, config: Config, stop: Sequence[str]) -> SamplingModel:
    """A model from outside the run: a hub id, a directory, or the directory of a stage of any run.

    The tokens `stop` end its answers beside EOS; none: those that the stage was trained with.

    Raises:
        UsageError: it is the directory of a run.
        ArtifactError: the manifest of the stage is damaged.
    """
    name = entry.model
    directory = stage_directory(name)
    if directory is None:
        section, draws = outside_section(entry, config.model), _draws(entry, config)
        return SamplingModel(name, section, None, None, stop_tokens=tuple(stop), outside=True, **draws)
    manifest = Manifest.read(directory)
    assert manifest is not None, "stage_directory found it"
    refuse_damaged(directory)
    recorded = ModelSection.model_validate(manifest.section["model"]).on(manifest.section.get("date", config.run.date))
    section = recorded.model_copy(
        update={
            "allow_cpu_4bit": config.model.allow_cpu_4bit or recorded.allow_cpu_4bit,
            "trust_remote_code": entry.trust_remote_code,  # that of another run is not that of this one
        }
    )
    stop = stop or manifest.section.get("ppo", {}).get("stop_tokens", [])
    return SamplingModel(name, section, directory, directory, stop_tokens=tuple(stop), **_draws(entry, config))


def stage_directory(name: str) -> Path | None:
    """Directory of the finished stage that `name` is, or whose ``model/`` it is; None: it is neither.

    Raises:
        UsageError: it is the directory of a run, or of a stage without a policy.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        return None
    path = path.absolute()
    directories: list[Path] = [path, *([path.parent] if path.name == "model" else [])]
    for directory in directories:
        manifest = Manifest.read(directory)
        if manifest is None:
            continue
        answers = manifest.stage.rpartition("/")[2] in ("sft", "ppo") or manifest.stage.startswith(f"{BASELINES}/")
        if not (directory / "model").is_dir() or not answers:
            raise UsageError(
                f"stage {manifest.stage} publishes no model that answers", where=name, hint="name sft or ppo of the run"
            )
        return directory
    if (path / "config.yaml").is_file() and not (path / "config.json").is_file():
        raise UsageError("this is the directory of a run", where=name, hint=f"name one of its stages: {name}/ppo")
    return None


def _draws(entry: SampledModel, config: Config) -> dict[str, Any]:
    """The fields of a `SamplingModel` that say how it is sampled."""
    temperature = entry.temperature or config.feedback.sample.temperature
    return {"num_completions": entry.num_completions, "temperature": temperature, "seed": config.run.seed}


def model_stamp(model: SamplingModel) -> dict[str, Any]:
    """Plain JSON data, read from files alone, that is equal for the same model with the same settings."""
    path = model.stage_dir
    plain: dict[str, Any] = {
        "model": model.name,
        "section": model.section.results_view(),
        "num_completions": model.num_completions,
        "temperature": model.temperature,
        "stop_tokens": list(model.stop_tokens),
    }
    if path is not None:
        manifest = Manifest.read(path)
        if manifest is None:
            raise ArtifactError("the stage has lost its manifest", where=str(path), hint="run the stage again")
        plain["digest"] = manifest.digest
    elif Path(str(model.section.name_or_path)).is_dir():
        files = sorted(Path(str(model.section.name_or_path)).iterdir())
        plain["files"] = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()}
    return as_json(plain)
