"""LoRA adapters: shape, reading, copying, several on one base, and switching between them.

One base carries any number of adapters by name. `adapter` chooses the one that a forward uses; unlike peft's own
`set_adapter` it never changes `requires_grad`.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipelines.config.model_section import ModelSection
from pipelines.errors import ArtifactError, UsageError
from pipelines.models.base_model import HEAD
from pipelines.models.own_head import OTHER_REWARD, classifier_on_meta, trunk_of
from pipelines.run.signals import time_limit

DEFAULT = "default"
WEIGHTS_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class AdapterState:
    """An adapter outside any model: its shape, and LoRA weights by their names on disk, without an adapter name.

    `head`: weight [1, hidden] of the score head; None: it has none.
    """

    config: LoraConfig
    tensors: dict[str, Tensor]
    head: Tensor | None = None


def lora_config(model: ModelSection, task_type: str) -> LoraConfig:
    """LoRA shape of the run; `task_type` is CAUSAL_LM, or SEQ_CLS, whose score head is trained whole."""
    return LoraConfig(
        r=model.lora_r,
        lora_alpha=model.lora_alpha,
        lora_dropout=model.lora_dropout,
        target_modules=model.lora_target_modules,
        task_type=task_type,
        modules_to_save=_saved_modules(task_type),
    )


def read_adapter(directory: Path) -> AdapterState:
    """Read the adapter published in `directory`, onto the CPU.

    Raises:
        ArtifactError: files are missing or damaged.
    """
    try:
        config = LoraConfig.from_pretrained(str(directory))
        if not isinstance(config, LoraConfig):
            raise ValueError(f"it is of kind {config.peft_type}, not LoRA")
        tensors = load_file(directory / WEIGHTS_FILE)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"the adapter cannot be read: {error}", where=str(directory)) from error
    head = None
    for name in [name for name in tensors if name.endswith(f".{HEAD}") and ".lora_" not in name]:
        head = tensors.pop(name).float()
    if not tensors:
        raise ArtifactError("the adapter holds no LoRA weights", where=str(directory / WEIGHTS_FILE))
    return AdapterState(config, tensors, head)


def read_reward_adapter(directory: Path) -> AdapterState:
    """Read the reward adapter published in `directory`, with its score head.

    Raises:
        ArtifactError: files are missing or damaged, or the score head is missing.
    """
    state = read_adapter(directory)
    if state.head is None:
        raise ArtifactError(
            "the reward adapter has no score.weight: its head was lost",
            where=str(directory),
            hint="run `rlhf reward` again",
        )
    return state


def adapter_state(model: PeftModel, name: str) -> AdapterState:
    """Copy the adapter `name` of `model`."""
    pattern = re.compile(rf"(\.lora_\w+)\.{re.escape(name)}(\.|$)")
    saved = re.compile(rf"\.modules_to_save\.{re.escape(name)}\.")
    tensors, head = {}, None
    for key, value in model.named_parameters():
        if pattern.search(key):
            tensors[pattern.sub(r"\1\2", key)] = value.detach().clone()
        elif saved.search(key) and saved.sub(".", key).endswith(f".{HEAD}"):
            head = value.detach().clone()
    config = model.peft_config[name]
    assert isinstance(config, LoraConfig)
    return AdapterState(config, tensors, head)


def add_adapter(
    model: PreTrainedModel | PeftModel, name: str, source: Path | AdapterState | LoraConfig, *, trainable: bool
) -> PeftModel:
    """Add an adapter to a causal base; only the first adapter becomes active by this.

    Args:
        model: a causal model, which its first adapter wraps, or the PeftModel of an earlier call.
        source: a published adapter (without the head of a reward adapter, see `AdapterState.head`), a copy of one, or
            a shape for a fresh adapter, which changes no output yet.
        trainable: whether its weights get gradients; they are then fp32.

    Raises:
        ArtifactError: the published adapter cannot be read or does not fit this base.
        UsageError: the base does not have the target modules.
    """
    state = read_adapter(source) if isinstance(source, Path) else source
    fresh = isinstance(state, LoraConfig)
    config = _as_task(state, "CAUSAL_LM") if isinstance(state, LoraConfig) else _as_task(state.config, "CAUSAL_LM")
    if fresh:
        config = _fitted(config, model)
    try:
        with warnings.catch_warnings(), patterns_in_time(_named(source)):
            warnings.simplefilter("ignore")  # fan_in_fan_out of GPT-2, set right by peft itself
            if isinstance(model, PeftModel):
                flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
                model.add_adapter(name, config)
                for parameter, flag in flags:
                    parameter.requires_grad_(flag)
            else:
                model = get_peft_model(model, config, adapter_name=name)
    except ValueError as error:
        if not fresh:
            raise ArtifactError(f"the adapter does not fit the base: {error}", where=_named(source)) from error
        raise UsageError(f"no adapter can be put on this model: {error}", where="model.lora_target_modules") from error
    if isinstance(state, AdapterState):
        _set_weights(model, name, state.tensors, _named(source))
    set_trainable(model, name, trainable)
    return model


def add_reward_adapter(
    classifier: PreTrainedModel, model: ModelSection, source: Path | AdapterState | None, *, trainable: bool = True
) -> PeftModel:
    """Add a SEQ_CLS adapter to a sequence classifier.

    Args:
        model: the shape of the adapter where `source` gives none.
        source: a causal adapter to start from (the head stays as the classifier has it), a reward adapter with its
            head, or None for a fresh one.
        trainable: False freezes adapter and head.
    """
    state = read_adapter(source) if isinstance(source, Path) else source
    config = _fitted(lora_config(model, "SEQ_CLS"), classifier) if state is None else _as_task(state.config, "SEQ_CLS")
    with warnings.catch_warnings(), patterns_in_time(_named(source)):
        warnings.simplefilter("ignore")
        try:
            wrapped = get_peft_model(classifier, config)
        except ValueError as error:
            raise UsageError(f"no adapter can be put on this model: {error}", where=_named(source)) from error
    # before any weight is copied in: peft leaves the head in the base's bf16, which would round it
    cast_trainable_to_fp32(wrapped)
    if state is not None:
        weights = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        head_key = next(key for key in weights if key.endswith(f".{HEAD}"))
        head = weights[head_key] if state.head is None else state.head  # without this key peft raises a KeyError
        _set_weights(wrapped, DEFAULT, {**state.tensors, head_key: head}, _named(source))
    if not trainable:
        wrapped.requires_grad_(False)
    return wrapped


def patterns_in_time(where: str) -> AbstractContextManager[None]:
    """Refuse an adapter whose patterns of module names, which come with it, take longer than `MOST_SECONDS`."""
    hint = "name the modules in its adapter_config.json one by one"
    error = ArtifactError("the patterns of the adapter take too long", where=where, hint=hint)
    return time_limit(MOST_SECONDS, error)


MOST_SECONDS = 300
"""Seconds in which an adapter must be put on a model; the largest take some."""


def check_reward_model_of(model: PreTrainedModel | PeftModel, section: ModelSection, path: str) -> None:
    """Refuse a base, named by its path, of which no reward model can be made, before anything is trained on it.

    A PeftModel comes with its first adapter, which the reward adapter starts from.

    Raises:
        UsageError: weights of the model or its adapter do not fit its classifier.
    """
    if not isinstance(model, PeftModel):
        classifier_on_meta(model, path)
        return
    classifier = classifier_on_meta(model.get_base_model(), path)  # type: ignore[arg-type]
    try:
        add_reward_adapter(classifier, section, adapter_state(model, DEFAULT))
    except ArtifactError as error:
        raise UsageError(
            f"no reward model can be made of this base under LoRA: {error.message}",
            where=path,
            hint=f"train it whole (model.use_peft: false), {OTHER_REWARD}",
        ) from error


def is_of_adapter(parameter: str, name: str) -> bool:
    """Whether the parameter of this full name is a LoRA weight of the adapter `name`."""
    return re.search(rf"\.lora_\w+\.{re.escape(name)}(\.|$)", parameter) is not None


def set_trainable(model: PeftModel, name: str, trainable: bool) -> None:
    """Switch gradients of one adapter's LoRA weights on (which makes them fp32) or off; all others stay as they are."""
    for key, parameter in model.named_parameters():
        if is_of_adapter(key, name):
            parameter.requires_grad_(trainable)
            if trainable:
                parameter.data = parameter.data.float()


def cast_trainable_to_fp32(model: nn.Module) -> None:
    """Cast every trainable parameter to fp32: in bf16 an update smaller than 1/256 of a weight is lost.

    TRL casts the trainable parameters of a quantized model to bf16. Call this right after its constructor, before an
    optimizer exists.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


def trainable_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@contextmanager
def adapter(model: PeftModel, name: str | None) -> Iterator[None]:
    """Use the adapter `name` alone in all forwards inside, or the bare base for None; then restore the previous state.

    Gradient flags are never changed, so one backward can run through the graphs of several adapters. With gradient
    checkpointing the backward repeats the forward, so it must happen inside as well.

    Raises:
        KeyError: there is no adapter of that name.
    """
    if name is not None and name not in model.peft_config:
        raise KeyError(f"no adapter {name!r}; there are {', '.join(model.peft_config)}")
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    before = [(layer, layer._active_adapter, layer._disable_adapters) for layer in layers]
    active = model.active_adapter
    try:
        for layer in layers:
            layer._disable_adapters = name is None
            if name is not None:
                layer._active_adapter = [name]
        if name is not None:
            model.active_adapter = name
        yield
    finally:
        for layer, layer_active, disabled in before:
            layer._active_adapter, layer._disable_adapters = layer_active, disabled
        model.active_adapter = active


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Add the active adapter to the weights below it, for passes without gradients; they come back bit for bit.

    Left as they are: weights that are not fp32, where the sum would be rounded to another model, and weights that other
    modules use too. The base's copy costs the memory of the adapted weights.
    """
    uses = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    originals: list[tuple[Any, Tensor]] = []
    try:
        for layer in (layer for layer in layers if not layer.disable_adapters):
            weight = getattr(layer.get_base_layer(), "weight", None)
            if isinstance(weight, nn.Parameter) and weight.dtype == torch.float32 and uses[id(weight)] == 1:
                originals.append((layer, weight.data))
                layer.merge(safe_merge=True)
        yield
    finally:
        for layer, original in originals:
            layer.get_base_layer().weight.data = original
            layer.merged_adapters.clear()


def _as_task(config: LoraConfig, task_type: str) -> LoraConfig:
    """Copy a shape whole for a new adapter: a SEQ_CLS one has a score head, a CAUSAL_LM one has none."""
    shape = copy.deepcopy(config)
    shape.task_type, shape.modules_to_save = task_type, _saved_modules(task_type)
    shape.inference_mode = False
    return shape


def _fitted(config: LoraConfig, model: PreTrainedModel | PeftModel) -> LoraConfig:
    """The shape without linear layers that an adapter does not fit.

    These are layers of the head, which a reward model does not have, routers of experts and the like, which give more
    than a product, and the modules of state-space layers whose weights a kernel reads past an adapter.
    """
    if config.target_modules == "all-linear":
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        linear = [(name, module) for name, module in base.named_modules() if isinstance(module, nn.Linear)]
        trunk = f"{trunk_of(base)[0]}."
        outputs: Any = base.get_output_embeddings  # type: ignore[assignment]
        heads = {id(outputs()), id(getattr(base, "score", None))}  # peft leaves these out itself
        unfit = {name for name, module in linear if not name.startswith(trunk) and id(module) not in heads}
        unfit |= {name.rpartition(".")[2] for name, module in linear if not _gives_a_product(module)}
        unfit |= {"out_proj", "conv1d"} if model.config.model_type in _STATE_SPACE else set()
        config.exclude_modules = sorted(unfit) or None
    return config


def _gives_a_product(layer: nn.Linear) -> bool:
    """Whether a layer gives a product and nothing else; a class of a family's own is asked, on one row of zeros."""
    if not type(layer).__module__.startswith("transformers.models."):
        return True
    with torch.no_grad():
        try:
            output = layer(torch.zeros(1, layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device))
        except (RuntimeError, TypeError, ValueError, IndexError):  # it wants something else than rows
            return False
    return isinstance(output, Tensor) and output.shape == (1, layer.out_features)


_STATE_SPACE = {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h", "bamba", "granitemoehybrid", "zamba2"}
"""Kinds with such layers: peft 0.21 refuses the first five, and the kernel of the others takes `outproj_weight` too."""


def _saved_modules(task_type: str) -> list[str] | None:
    return ["score"] if task_type == "SEQ_CLS" else None


def _set_weights(model: PeftModel, name: str, tensors: dict[str, Tensor], where: str) -> None:
    try:
        result: Any = set_peft_model_state_dict(model, tensors, adapter_name=name)
    except (RuntimeError, KeyError) as error:
        raise ArtifactError(f"the adapter does not fit the base: {error}", where=where) from error
    pattern = re.compile(rf"\.(lora_\w+|modules_to_save)\.{re.escape(name)}(\.|$)")
    missing = [key for key in result.missing_keys if pattern.search(key)]
    if missing or result.unexpected_keys:
        raise ArtifactError(
            f"the adapter does not fit the base: {[*missing, *result.unexpected_keys][0]}",
            where=where,
            hint="it was trained on another model",
        )


def _named(source: object) -> str:
    return str(source) if isinstance(source, Path) else "model"
