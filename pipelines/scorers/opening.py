"""Opening an outside classifier or reward model: saved whole, or as a LoRA adapter whose base can be found."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from peft.utils.save_and_load import load_peft_weights
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from pipelines.config.scorer import ScorerSection
from pipelines.errors import UsageError
from pipelines.models.base import LOADING_ERRORS, explain, quiet
from pipelines.models.text_classifier import load_text_classifier, open_weights, refuse_lost


def open_classifier(section: ScorerSection, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The sequence classifier that ``section.path`` names, and its tokenizer; code of a model is never run.

    Raises:
        ArtifactError: the directory is damaged, the head was never trained or got lost, or is one for another task.
        HubError: the hub cannot be reached or refuses.
        UsageError: no such directory, or an adapter of another kind.
    """
    path = str(section.path)
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise UsageError(f"there is no directory {path}", hint="a hub id has the form owner/name")
    try:
        with quiet():
            if find_adapter_config_file(path, revision=section.revision) is not None:
                return _open_adapter(path, section.revision, device)
    except LOADING_ERRORS as error:
        raise explain(error, path, section.revision) from error
    return load_text_classifier(path, device, revision=section.revision, labels=None, dtype=_dtype(device))


def _dtype(device: torch.device) -> torch.dtype | str:
    """Halves are slow or missing on a CPU; a GPU takes what the files hold."""
    return "auto" if device.type == "cuda" else torch.float32


def _open_adapter(
    path: str, revision: str | None, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A LoRA adapter with a score head of one label on its base; the LoRA layers stay unmerged in the model."""
    config = PeftConfig.from_pretrained(path, revision=revision)
    if config.task_type != "SEQ_CLS":
        raise UsageError(
            f"this is an adapter of kind {config.task_type}, not a reward model (SEQ_CLS)",
            where=path,
            hint="name the adapter of a reward model, or merge it into its base and save that as a classifier",
        )
    base = _base_of(path, config.base_model_name_or_path)
    model, lost = open_weights(base, device, revision=config.revision, labels=1, dtype=_dtype(device), new_head=True)
    weights = load_peft_weights(path, device="cpu", revision=revision)
    refuse_lost(path, [key for key in lost if not any(own.endswith(f".{key}") for own in weights)])
    source = path if not Path(path).is_dir() or (Path(path) / "tokenizer_config.json").is_file() else base
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    wrapped = PeftModel.from_pretrained(model, path, revision=revision)
    return wrapped.get_base_model().to(device), tokenizer  # type: ignore[return-value]


def _base_of(path: str, named: str | None) -> str:
    """What an adapter stands on: a hub id, or a directory, a relative one as seen from the adapter.

    Raises:
        UsageError: it cannot be found.
    """
    beside = Path(path) / (named or ".")
    if named and beside.is_dir():
        return str(beside.resolve())
    if not named or (not Path(named).is_dir() and (named.startswith((".", "/", "~")) or named.count("/") > 1)):
        raise UsageError(
            f"the base of this adapter cannot be found: {named or 'it names none'}",
            where=f"{path}/adapter_config.json",
            hint="set base_model_name_or_path there; a relative path counts from the adapter's directory",
        )
    return named
