"""Loading of base models, with the guards that the pinned versions need."""

from __future__ import annotations

import logging
import pickle
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from pipelines.config.model_section import ModelSection, is_gguf, looks_like_path
from pipelines.config.ppo_section import PpoSection
from pipelines.config.training_section import TrainerSection
from pipelines.errors import ArtifactError, EnvironmentProblem, HubError, RlhfError, UsageError, causes, first_line
from pipelines.models.base_fit import refuse_unfit, savable_generation_config
from pipelines.models.base_ref import need_gguf, refuse_4bit_on_cpu
from pipelines.models.own_head import classifier_loader, trunk_of
from pipelines.run.reporting import Reporter

_NO_SUCH_FORM = re.compile(
    r"Unrecognized configuration class <class '(?:\w+\.)*?(?P<kind>\w+)\.configuration_.* AutoModel: (?P<form>\w+)"
)


def unsupported_kind(error: Exception, where: str) -> UsageError | None:
    """The error where the files hold a model without the requested head; None: it is another error."""
    match = _NO_SUCH_FORM.search(str(error))
    if match is None:
        return None
    return UsageError(
        f"a {match['kind']} model cannot be opened as {match['form']}",
        where=where,
        hint="a base must be a decoder, such as Llama, Qwen, Gemma, Mistral or GPT-2, not an encoder-decoder",
    )


def position_bound(model: PretrainedConfig) -> int | None:
    """Maximum number of tokens of the model; None where positions are not bounded."""
    bound = getattr(model.get_text_config(), "max_position_embeddings", None)
    return int(bound) if bound else None


def length_limit(section: TrainerSection, model: PretrainedConfig, reporter: Reporter) -> int:
    """Maximum tokens of a row: `max_length`, or the model's own bound where that is lower."""
    bound = position_bound(model)
    if bound is not None and section.max_length > bound:
        reporter.warn(f"max_length {section.max_length} is more than the model can hold; {bound} is used")
        return bound
    return section.max_length


def prompt_limit(
    settings: PpoSection,
    model: PretrainedConfig,
    reporter: Reporter,
    *,
    name: str = "the model",
    key: str = "ppo.response_length",
) -> int:
    """Maximum tokens of a prompt: `ppo.max_prompt_length`, or what the model's bound leaves beside a response.

    `name` and `key` name the model and the key of the response length in messages.

    Raises:
        UsageError: a response alone fills the model.
    """
    bound = position_bound(model)
    room = settings.max_prompt_length if bound is None else bound - settings.response_length
    if room < 1:
        raise UsageError(
            f"{name} holds {bound} tokens, so a response of {settings.response_length} leaves no room for a prompt",
            where=key,
            hint=f"lower {key}",
        )
    if room < settings.max_prompt_length:
        reporter.warn(f"{name} holds {bound} tokens: prompts above {room} are left out")
    return min(room, settings.max_prompt_length)


HEAD = "score.weight"
MOST_LAYERS = 10_000
"""Layers of a model that is meant as one; the largest have hundreds."""
LOADING_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, ImportError),
    *(SafetensorError, struct.error, pickle.UnpicklingError),  # damaged weights; a damaged GGUF file; a pickle
)
"""Errors of `from_pretrained` for files that are missing, damaged or of another kind; for `explain`."""
_MODEL_FILES = ("config.json", "adapter_config.json", "tokenizer_config.json")
_LOADERS = ("modeling_utils", "utils.loading_report", "distributed.tensor_parallel")


def location(path: str | Path) -> tuple[str, dict[str, str]]:
    """Arguments of `from_pretrained` for a model, tokenizer or configuration: its name, and a GGUF file in it."""
    if not is_gguf(path):
        return str(path), {}
    directory, _, file = str(path).rpartition("/")
    return directory, {"gguf_file": file}


def load_causal(
    model: ModelSection, path: str | Path, device: torch.device, *, revision: str | None = None
) -> PreTrainedModel:
    """Load a causal model in evaluation mode, without adapters.

    Full fine-tuning gets fp32 weights; with `use_peft` the base is frozen and in `model.dtype`, or in NF4.

    Raises:
        ArtifactError: the directory lacks files or weights, or they are damaged.
        HubError: the hub cannot be reached or refuses.
        UsageError: the model cannot be loaded with these settings, or is of a kind that cannot be trained here.
        EnvironmentProblem: 4-bit without a device for it, or out of memory.
    """
    loaded, missing = _load(AutoModelForCausalLM, model, path, device, revision)
    refuse_unfit(loaded, path)
    if missing:
        raise _incomplete(path, missing)
    return loaded


def load_config(model: ModelSection, path: str | Path, *, revision: str | None = None) -> PretrainedConfig:
    """Load the configuration of a model, without weights.

    Raises:
        ArtifactError, HubError, UsageError: it cannot be loaded.
    """
    name, gguf = location(path)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=model.trust_remote_code, **gguf
        )
    except LOADING_ERRORS as error:
        raise explain(error, path, revision) from error
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise UsageError(f"the model's configuration has {layers:,} layers", where=str(path))
    return config


def load_sequence_classifier(
    model: ModelSection, path: str | Path, device: torch.device, *, revision: str | None = None, new_head: bool = False
) -> PreTrainedModel:
    """Load a sequence classifier with one label; with `new_head` a missing head is drawn at random.

    Raises: see `load_causal`.
    """
    loader = classifier_loader(load_config(model, path, revision=revision))
    loaded, missing = _load(loader, model, path, device, revision, num_labels=1)
    if not (new_head and missing <= {HEAD}) and missing:
        raise _incomplete(path, missing)
    if not hasattr(loaded, "score"):
        raise UsageError(
            f"{type(loaded).__name__} has its head under another name than `score`",
            where=str(path),
            hint="use a decoder model, such as Llama, Qwen or GPT-2",
        )
    return loaded


def check_4bit(model: ModelSection, device: torch.device) -> None:
    """Refuse NF4 on the CPU unless `model.allow_cpu_4bit`.

    Raises:
        EnvironmentProblem: there is no CUDA device.
    """
    if device.type == "cpu":
        refuse_4bit_on_cpu(model)


def weights_dtype(model: ModelSection) -> torch.dtype:
    """Precision of the weights: fp32 where they are trained, `model.dtype` for a frozen base."""
    return torch.bfloat16 if model.use_peft and model.dtype == "bfloat16" else torch.float32


def disable_dropout(model: nn.Module) -> None:
    """Switch off dropout of both kinds: modules, and probabilities stored as numbers (`attention_dropout`)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or name.endswith(("pdrop", "layerdrop"))):
                setattr(module, name, 0.0)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress progress bars and load reports; missing weights are checked here instead."""
    loggers = [logging.getLogger(f"transformers.{name}") for name in _LOADERS]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def explain(error: Exception, path: str | Path, revision: str | None = None) -> RlhfError:
    """Turn an error of `from_pretrained` into one of ours."""
    chain, what = causes(error), first_line(error)
    if what.rstrip().endswith(":"):  # a list follows
        what = " ".join(str(error).split())
    where = f"{path}@{revision}" if revision else str(path)
    if isinstance(error, torch.OutOfMemoryError):
        return EnvironmentProblem(
            "the model does not fit into memory",
            where=where,
            hint="use a smaller model, model.dtype: bfloat16 or model.load_in_4bit: true",
        )
    if "weights_only" in str(error) or "Unpickling" in type(error).__name__:
        return ArtifactError(
            "the weights are a pickle that holds more than tensors, and no code of it is run",
            where=where,
            hint="save them as safetensors where you trust them: model.save_pretrained(DIRECTORY)",
        )
    if "trust_remote_code" in str(error):
        return UsageError(
            "the model brings its own code, which is not run by default",
            where=where,
            hint="read that code, then set model.trust_remote_code: true and model.revision to its commit",
        )
    if unfit := unsupported_kind(error, where):
        return unfit
    if Path(path).is_dir() and not any((Path(path) / name).is_file() for name in _MODEL_FILES):
        inside = Path(path) / "model"
        hint = f"the model of this stage is {inside}" if inside.is_dir() else f"one has {' or '.join(_MODEL_FILES)}"
        return ArtifactError("the directory holds no model", where=where, hint=hint)
    if Path(path).exists():
        return ArtifactError(f"the model cannot be loaded: {what}", where=where)
    if looks_like_path(str(path)):
        return ArtifactError("there is no such model directory", where=where)
    if any(isinstance(link, GatedRepoError) for link in chain):
        return HubError(
            "the model is gated", where=where, hint="ask for access on its page, then log in with `hf auth login`"
        )
    if any(isinstance(link, RevisionNotFoundError) for link in chain):
        return HubError("the hub has the model, but not this revision", where=where)
    if any(isinstance(link, RepositoryNotFoundError) for link in chain):
        return HubError(
            "the hub has no such model, or it is private", where=where, hint="check the name; `hf auth login`"
        )
    if isinstance(error, OSError):
        return HubError(
            f"the model cannot be downloaded: {what}",
            where=where,
            hint="check the name and the network; a local model is named by its directory",
        )
    return UsageError(f"the model cannot be loaded: {what}", where=where)


def _load(
    auto: Any, model: ModelSection, path: str | Path, device: torch.device, revision: str | None, **kwargs: Any
) -> tuple[PreTrainedModel, set[str]]:
    """Load the model in evaluation mode, and give the names of weights that its files lack."""
    check_4bit(model, device)
    config = load_config(model, path, revision=revision)
    if model.load_in_4bit:
        mamba = config.model_type == "mamba"
        kwargs["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            # Mamba multiplies with the weight of this layer itself, which in NF4 has no rows and columns
            llm_int8_skip_modules=["dt_proj", "lm_head", "score"] if mamba else None,
        )
        kwargs["device_map"] = {"": str(device)}
    name, gguf = location(path)
    if gguf:
        need_gguf(str(path))
        kwargs |= gguf | {"quantization_config": GgufConfig(dequantize=True)}  # a quantized one could not be saved
    if model.attn_implementation is not None:
        kwargs["attn_implementation"] = model.attn_implementation
    try:
        with quiet():
            loaded, info = auto.from_pretrained(
                name,
                revision=revision,
                dtype=weights_dtype(model),
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
                **kwargs,
            )
        if not model.load_in_4bit:
            loaded = loaded.to(device)
    except LOADING_ERRORS as error:
        raise explain(error, path, revision) from error
    text = loaded.config.get_text_config()
    if getattr(text, "output_router_logits", False):  # the loss of a router fails while sampling
        text.output_router_logits = False
    if not hasattr(loaded, loaded.base_model_prefix):  # Llama 4: TRL and peft look for its trunk by this name
        loaded.base_model_prefix = trunk_of(loaded)[0]
    if loaded.can_generate():
        loaded.generation_config = savable_generation_config(loaded.generation_config)
    for module in loaded.modules():
        # bitsandbytes 0.50 repacks the weights in the first evaluation forward on these processors; afterwards the
        # layer silently gives no gradient to earlier layers
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return loaded.eval(), set(info["missing_keys"])


def _incomplete(path: str | Path, missing: set[str]) -> ArtifactError:
    names = ", ".join(sorted(missing)[:3])
    return ArtifactError(
        f"the model's files lack {len(missing)} of its weights: {names}",
        where=str(path),
        hint="a published reward model must hold score.weight; a causal model its lm_head" if HEAD in missing else None,
    )
