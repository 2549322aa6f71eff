"""Publishing: plain directories that transformers and peft open, safetensors and JSON only."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.config.model_section import is_gguf
from pipelines.errors import TrainingError
from pipelines.models.adapters import DEFAULT, WEIGHTS_FILE, AdapterState, adapter_state
from pipelines.models.base_fit import savable_generation_config
from pipelines.models.base_model import HEAD, quiet
from pipelines.models.base_ref import ADAPTER_CONFIG, BaseRef
from pipelines.models.opening_recipe import README, gguf_readme, reward_readme
from pipelines.models.own_head import OwnHead
from pipelines.models.published_reward import Reads


def publish_model(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    *,
    base: BaseRef,
    run_dir: Path,
    adapter: str = DEFAULT,
    generation: GenerationConfig | None = None,
    reads: Reads | None = None,
) -> None:
    """Write a model, or one adapter of a PeftModel, and the tokenizer; README.md opens what is not opened by its name.

    Args:
        model: a full model is written whole, of a PeftModel only the adapter of that name.
        base: base of an adapter, named in its config such that the run directory can be moved.
        generation: how the model was sampled in training; None: the model's own config stays.
        reads: what a reward model reads; None: a policy.

    Raises:
        TrainingError: a weight is not finite; nothing is written.
    """
    state = adapter_state(model, adapter) if isinstance(model, PeftModel) else None
    _refuse_not_finite(model if state is None else state)
    directory.mkdir(parents=True, exist_ok=True)
    base_name = None if state is None else base.seen_from(directory, run_dir)
    if state is None or base_name is None:
        _publish_full(model, tokenizer, directory, generation)  # type: ignore[arg-type]
    else:
        _publish_adapter(state, directory, base_name, base.revision)
        if generation is not None:
            generation.save_pretrained(directory)
    tokenizer.init_kwargs.pop("local_files_only", None)  # how it was loaded, which is another thing on every machine
    tokenizer.save_pretrained(str(directory))
    if reads == "tokens" or (reads == "text" and isinstance(model, OwnHead)):
        page = reward_readme(model, tokenizer, reads, base_name)
    elif base_name is not None and is_gguf(base_name):
        page = gguf_readme(base_name)
    else:
        return
    (directory / README).write_text(page, encoding="utf-8")


def sane_generation_config(config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """A generation config that stops on the tokenizer's EOS and never on BOS (some models list both)."""
    sane = savable_generation_config(config or GenerationConfig())  # type: ignore[no-untyped-call]
    listed = sane.eos_token_id if isinstance(sane.eos_token_id, list) else [sane.eos_token_id]
    eos, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
    ends = [eos, *(index for index in listed if index is not None and index not in (eos, bos))]
    sane.eos_token_id = ends if len(ends) > 1 else eos
    if tokenizer.pad_token_id is not None:
        sane.pad_token_id = tokenizer.pad_token_id
    return sane


def _publish_full(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    generation: GenerationConfig | None = None,
) -> None:
    if model.can_generate():
        model.generation_config = generation or sane_generation_config(model.generation_config, tokenizer)
        model.config.eos_token_id = tokenizer.eos_token_id
    model.config._name_or_path = ""  # config.json would otherwise hold the path of the base on this machine
    with quiet():
        model.save_pretrained(str(directory))


def _publish_adapter(state: AdapterState, directory: Path, base_name: str, revision: str | None) -> None:
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.tensors.items()}
    config = copy.deepcopy(state.config)
    if state.head is not None:
        tensors[f"base_model.model.{HEAD}"] = state.head.detach().cpu().float().contiguous()
        config.task_type, config.modules_to_save = "SEQ_CLS", ["score"]
    config.base_model_name_or_path, config.revision = base_name, revision
    config.inference_mode = True
    for field, value in vars(config).items():
        if isinstance(value, set):  # its order differs between processes, and so would the digest
            setattr(config, field, sorted(value))
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config.save_pretrained(str(directory))
    if not (directory / ADAPTER_CONFIG).is_file():
        raise TrainingError("peft wrote no adapter_config.json", where=str(directory))


def _refuse_not_finite(model: nn.Module | AdapterState) -> None:
    named: Any = model.tensors.items() if isinstance(model, AdapterState) else model.named_parameters()
    if isinstance(model, AdapterState) and model.head is not None:
        named = [*named, (HEAD, model.head)]
    for name, tensor in named:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(
                f"weight {name} is not finite: training diverged",
                hint="lower learning_rate or max_grad_norm, or look for broken rows",
            )
