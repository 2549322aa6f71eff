"""A base model by reference: an outside model, or what a stage of the run published. No torch here."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.config.model_section import ModelSection
from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.models.base_record import present_name

ADAPTER_CONFIG = "adapter_config.json"


def is_installed(package: str) -> bool:
    """Whether a package can be imported; a mere directory of that name, such as that of .gguf files, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def need_gguf(where: str) -> None:
    """Refuse a .gguf file where the package that reads it is missing.

    Raises:
        EnvironmentProblem: it is.
    """
    if not is_installed("gguf"):
        raise EnvironmentProblem("a .gguf model needs the package gguf", where=where, hint="pip install gguf")


def refuse_4bit_on_cpu(model: ModelSection) -> None:
    """Refuse NF4 without a CUDA device, unless `model.allow_cpu_4bit`.

    Raises:
        EnvironmentProblem: `model.load_in_4bit` is set.
    """
    if model.load_in_4bit and not model.allow_cpu_4bit:
        raise EnvironmentProblem(
            "model.load_in_4bit needs a CUDA device, and none is in use",
            where="model.load_in_4bit",
            hint="set model.load_in_4bit: false; model.allow_cpu_4bit: true runs it slowly on the CPU, for tests",
        )


def refuse_adapter(name: str, where: str, file: Path | None = None) -> None:
    """Refuse an adapter where a whole model is needed: it cannot be a base, under adapters of the run.

    `file` is its ``adapter_config.json``; None: look for one in the directory `name`.

    Raises:
        UsageError: the model is an adapter.
    """
    file = Path(name) / ADAPTER_CONFIG if file is None else file
    if not file.is_file():
        return
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    raise UsageError(
        f"{name} is an adapter of {base or 'a base that it does not name'}, not a whole model",
        where=where,
        hint="name its base, or merge the adapter into it (peft: merge_and_unload) and save that with the tokenizer",
    )


@dataclass(frozen=True)
class BaseRef:
    """A reference to a base: exactly one of an outside model and a stage of the run.

    Attributes:
        name_or_path: hub id or directory from the configuration.
        revision: commit of the hub repository.
        stage: name of the stage whose `model/` it is, e.g. "sft".
    """

    name_or_path: str | None = None
    revision: str | None = None
    stage: str | None = None

    def __post_init__(self) -> None:
        if (self.name_or_path is None) == (self.stage is None):
            raise ValueError("a base is either an outside model or a stage of the run")

    @classmethod
    def of(cls, config: Config) -> BaseRef:
        """The frozen base under every adapter of a run; for full fine-tuning the start of SFT."""
        if config.model.init == "scratch":
            return cls(stage="sft")
        return cls.outside(config.model)

    @classmethod
    def outside(cls, model: ModelSection) -> BaseRef:
        """The model that `model.name_or_path` names.

        Raises:
            UsageError: it names none.
        """
        if model.name_or_path is None:
            raise UsageError("no base model is named", where="model.name_or_path", hint="set it, or give --model")
        return cls(name_or_path=model.name_or_path, revision=model.revision)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BaseRef:
        """Read what `as_dict` wrote."""
        return cls(**data)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a manifest's notes, with the commit that was loaded of a hub model."""
        return asdict(self) | {"revision": self._commit()}

    def _commit(self) -> str | None:
        """Commit of the last load by the hub's cache; `revision` where the cache has none."""
        if self.name_or_path is None or Path(self.name_or_path).exists():
            return self.revision
        from huggingface_hub import resolve_revision
        from huggingface_hub.errors import HFValidationError, RevisionResolutionError

        try:
            return resolve_revision(self.name_or_path, revision=self.revision, local_files_only=True).resolved
        except (RevisionResolutionError, HFValidationError):
            return self.revision

    def path(self, run_dir: Path) -> str:
        """Path or hub id to load, given the present run directory, which knows where a moved base is."""
        if self.stage is not None:
            return str(run_dir / self.stage / "model")
        return present_name(str(self.name_or_path), run_dir)

    def seen_from(self, directory: Path, run_dir: Path) -> str:
        """Name of the base in an adapter in `directory`: an outside name unchanged, a stage by a relative path."""
        return os.path.relpath(self.path(run_dir), directory) if self.stage is not None else str(self.name_or_path)
