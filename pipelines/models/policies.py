"""Opening the models of a run, full or adapter, wherever the run directory is now."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.config.model_section import ModelSection
from pipelines.errors import ArtifactError
from pipelines.models.adapters import DEFAULT, add_adapter, add_reward_adapter, read_reward_adapter
from pipelines.models.base_fit import check_vocabulary, refuse_adapter_files
from pipelines.models.base_model import disable_dropout, load_causal, load_config, load_sequence_classifier
from pipelines.models.base_ref import ADAPTER_CONFIG, BaseRef
from pipelines.models.published_reward import PublishedReward
from pipelines.models.scratch import build_scratch
from pipelines.models.tokenizer import load_tokenizer
from pipelines.run.directory import run_of
from pipelines.run.manifest import Manifest


def open_policy(stage_dir: Path | None, model: ModelSection, device: torch.device) -> PreTrainedModel | PeftModel:
    """Open a causal model in evaluation mode: what `stage_dir` published, or the outside base where it is None.

    Args:
        stage_dir: directory of `sft` or `ppo` below the run directory.

    Raises:
        ArtifactError, HubError, UsageError, EnvironmentProblem: see `load_causal`.
    """
    path, revision = _weights(stage_dir, model)
    causal = load_causal(model, path, device, revision=revision)
    if stage_dir is None or not is_adapter(stage_dir / "model"):
        return causal
    return add_adapter(causal, DEFAULT, stage_dir / "model", trainable=False).eval()


def open_frozen_policy(
    stage_dir: Path | None,
    model: ModelSection,
    device: torch.device,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> PreTrainedModel | PeftModel:
    """Open a policy to sample from or to score with: in evaluation mode, and without dropout.

    Args:
        stage_dir: directory of the stage that published it; None: the base. A base from scratch has no files: it is
            drawn again, and the same seed gives the weights that SFT started from.
        tokenizer: the run's; the size of a base from scratch depends on it.
        seed: `run.seed`.

    Raises:
        ArtifactError, HubError, UsageError, EnvironmentProblem: see `load_causal`.
    """
    policy: PreTrainedModel | PeftModel
    if stage_dir is None and model.init == "scratch":
        policy = build_scratch(model.scratch, tokenizer, seed).to(device)  # type: ignore[arg-type]
    else:
        policy = open_policy(stage_dir, model, device)
        check_vocabulary(policy, tokenizer)
    disable_dropout(policy)
    return policy.eval()


def open_reward(
    published: PublishedReward, model: ModelSection, device: torch.device
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Open a reward model that reads tokens, a sequence classifier in evaluation mode, and its tokenizer.

    Raises:
        ArtifactError: it is incomplete, for example without its score head.
        HubError, UsageError, EnvironmentProblem: see `load_causal`.
    """
    stage_dir, base = published.stage_dir, published.base
    directory = model_directory(stage_dir)
    tokenizer = open_tokenizer(stage_dir, model)
    classifier: PreTrainedModel | PeftModel
    if is_adapter(directory):
        state = read_reward_adapter(directory)
        if base is None:
            raise _no_base(stage_dir)
        bare = load_sequence_classifier(
            model, base.path(run_of(stage_dir)[0]), device, revision=base.revision, new_head=True
        )
        bare.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        classifier = add_reward_adapter(bare, model, state, trainable=False).eval()
    else:
        classifier = load_sequence_classifier(model, directory, device)
    return classifier, tokenizer


def open_tokenizer(stage_dir: Path | None, model: ModelSection) -> PreTrainedTokenizerBase:
    """Open the tokenizer that `stage_dir` published with its chat template, or the outside base's where it is None."""
    if stage_dir is not None:
        # the published tokenizer holds the template; its file may no longer exist
        template = "none" if model.chat_template == "none" else "auto"
        as_published = {"chat_template": template, "chat_template_kwargs": {}, "merge_system_turn": False}
        return load_tokenizer(model_directory(stage_dir), model.model_copy(update=as_published))
    path, revision = _weights(None, model)
    return load_tokenizer(path, model, revision=revision)


def open_config(stage_dir: Path | None, model: ModelSection) -> PretrainedConfig:
    """Open the configuration of the model that `stage_dir` published, or of the outside base where it is None."""
    path, revision = _weights(stage_dir, model)
    return load_config(model, path, revision=revision)


def _weights(stage_dir: Path | None, model: ModelSection) -> tuple[str, str | None]:
    """Path or hub id, and revision, of the whole model that a stage published, or of the base under its adapter."""
    if stage_dir is None:
        outside = BaseRef.outside(model)
        refuse_adapter_files(outside.path(Path()), outside.revision)
        return outside.path(Path()), outside.revision
    directory = model_directory(stage_dir)
    if not is_adapter(directory):
        return str(directory), None
    base = base_of(stage_dir)
    return base.path(run_of(stage_dir)[0]), base.revision


def base_of(stage_dir: Path) -> BaseRef:
    """Base of the adapter of a published stage.

    Raises:
        ArtifactError: the manifest does not name it.
    """
    manifest = Manifest.read(stage_dir)
    if manifest is None or "base" not in manifest.notes:
        raise _no_base(stage_dir)
    return BaseRef.from_dict(manifest.notes["base"])


def _no_base(stage_dir: Path) -> ArtifactError:
    return ArtifactError("the manifest does not name the base of this adapter", where=str(stage_dir))


def model_directory(stage_dir: Path) -> Path:
    """Directory `model/` of a stage.

    Raises:
        ArtifactError: it holds no model.
    """
    directory = stage_dir / "model"
    if not is_adapter(directory) and not (directory / "config.json").is_file():
        raise ArtifactError(
            "no published model here", where=str(directory), hint=f"run the stage {stage_dir.name} again"
        )
    return directory


def is_adapter(directory: Path) -> bool:
    """Whether the directory holds an adapter rather than a full model."""
    return (directory / ADAPTER_CONFIG).is_file()
