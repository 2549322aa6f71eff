"""Reference of the configuration: type, default and meaning of every key, and their names in other programs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.config.by_kind import DECIDING, default_in_words, defaults_by_kind, plain, trains_adapters
from pipelines.config.schema import Config
from pipelines.config.section import Section
from pipelines.errors import UsageError

_NAMES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        key: dotted, such as ``ppo.kl_coef``; a key of list entries has the list's, such as ``data.comparisons.path``.
        values: type of its values, in words.
        default: as YAML on one line; None: a value must be given, or each key of a section has its own default.
        description: its meaning.
        affects_results: whether another value makes the artifacts of a run stale.
        section: the section it holds, itself or in a list; None: a plain value.
    """

    key: str
    values: str
    default: str | None
    description: str
    affects_results: bool
    section: type[Section] | None


def keys_of(section: type[Section], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a section in their order, without those inside its sections."""
    schema = section.model_json_schema()
    properties = schema["$defs"][section.__name__]["properties"] if "$ref" in schema else schema["properties"]
    for name, field in section.model_fields.items():
        extra = field.json_schema_extra
        yield Key(
            key=f"{prefix}.{name}" if prefix else name,
            values=_type_text(properties[name]),
            default=None if field.is_required() or _is_section(field) else _default_text(field),
            description=field.description or "",
            affects_results=not (isinstance(extra, dict) and extra.get("affects_results") is False),
            section=section_in(field.annotation),
        )


def find_key(dotted: str) -> Key:
    """Return a key by its dotted name.

    Raises:
        UsageError: there is no such key; the hint has the nearest ones.
    """
    section: type[Section] | None = Config
    parent, _, name = dotted.replace("-", "_").rpartition(".")
    if parent:
        section = find_key(parent).section
    for key in keys_of(section, parent) if section else ():
        if key.key.rpartition(".")[2] == name:
            return key
    raise UsageError(f"unknown key `{dotted}`", hint=_near(dotted))


def values_at(config: Config, dotted: str) -> Any:
    """Return the value of a key as JSON data; of a key of list entries, one value for each entry."""
    value: Any = config.model_dump(mode="json")
    for name in dotted.split("."):
        if isinstance(value, list):
            value = [entry[name] for entry in value]
        else:
            value = None if value is None else value[name]
    return value


def training_in_words(config: Config, section: str) -> str:
    """Say how a stage (sft, reward or ppo) trains, and which of its settings are defaults by kind."""
    settings = {key: values_at(config, key) for key in DECIDING}
    others = {key: value for key, value in settings.items() if not key.startswith(f"{section}.")}
    if section == "reward":
        others["reward.base"] = settings["reward.base"]
    defaults = [
        f"{key.rpartition('.')[2]} {plain(value)}"
        for key, value in defaults_by_kind(others)
        if key.startswith(f"{section}.") and value == settings[key]
        if key != "ppo.value_learning_rate" or config.ppo.has_value_model
    ]
    lora = trains_adapters(settings, f"{section}.")
    kind = f"{'LoRA' if lora else 'full fine-tuning'} in {config.model.dtype}"
    return f"{section}: {kind}" + (f"; by default {', '.join(defaults)}" if defaults else "")


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section class inside ``X``, ``X | None`` or ``list[X]``."""
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
    return next((section for section in map(section_in, get_args(annotation)) if section is not None), None)


def all_keys(section: type[Section] = Config, prefix: str = "") -> Iterator[Key]:
    """Yield every key; the parts of a scorer, which are scorers with parts, one level deep."""
    for key in keys_of(section, prefix):
        yield key
        if key.section is not None and ".parts." not in key.key:
            yield from all_keys(key.section, key.key)


def keys_called(name: str) -> tuple[str, ...]:
    """Return the dotted keys that mean this in another program, then those of this name nearest to the top."""
    last = name.replace("-", "_").rpartition(".")[2]
    same = [key.key for key in all_keys() if key.key.endswith(f".{last}") and ".parts." not in key.key]
    depth = min((key.count(".") for key in same), default=0)
    return OTHER_NAMES.get(last, ()) + tuple(key for key in same if key.count(".") == depth)


def did_you_mean(keys: Sequence[str]) -> str:
    """Return the question for one of these keys."""
    return f"did you mean {', '.join(f'`{key}`' for key in keys[:5])}?"


def _near(dotted: str) -> str:
    names = [key.key for key in all_keys()]
    near = keys_called(dotted) or difflib.get_close_matches(dotted, names, n=3, cutoff=0.6)
    return did_you_mean(near) if near else f"the sections are {', '.join(Config.model_fields)}"


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.default, BaseModel)


def _default_text(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "by_kind" in extra:
        return default_in_words(str(extra["by_kind"]))
    value = field.get_default(call_default_factory=True)
    if isinstance(value, list):
        value = [entry.model_dump(exclude_defaults=True) if isinstance(entry, BaseModel) else entry for entry in value]
    return value if isinstance(value, str) and value else json.dumps(value)


def _type_text(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type_text(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return "section"
    if schema.get("type") == "array":
        pair = schema.get("prefixItems")
        return f"list of {len(pair)} {_type_text(pair[0])}s" if pair else f"list of {_type_text(schema['items'])}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"mapping to {_type_text(inner)}" if isinstance(inner, dict) else "mapping"
    bounds = [text.format(f"{schema[name]:g}") for name, text in _BOUNDS.items() if name in schema]
    name = "path" if schema.get("format") == "path" else _NAMES[schema["type"]]
    return " ".join([name, ", ".join(bounds)]) if bounds else name


_SAME_KEY = {
    "model.name_or_path": "model_name_or_path model_name model_path model_id base_model pretrained pretrain",
    "model.revision": "model_revision",
    "model.dtype": "torch_dtype bf16 fp16 fp32 precision",
    "model.load_in_4bit": "quantization_bit quantization load_in_8bit",
    "model.use_peft": "finetuning_type use_lora peft lora",
    "model.lora_r": "lora_rank peft_lora_r",
    "model.lora_alpha": "peft_lora_alpha",
    "model.lora_target_modules": "lora_target target_modules",
    "model.attn_implementation": "flash_attn use_flash_attention_2",
    "model.chat_template": "template chat_template_path",
    "data.demonstrations data.comparisons data.prompts": "dataset datasets dataset_name dataset_path dataset_dir",
    "data.eval_fraction": "val_size test_size eval_dataset validation_split",
    "data.demonstrations.limit": "max_samples",
    "run.dir": "output_dir logging_dir run_dir save_path",
    "run.seed": "data_seed random_seed",
    "run.device": "use_cpu no_cuda cpu",
    "run.threads": "num_threads",
    "run.report_to": "log_with logger use_wandb use_tensorboard",
    "sft.train_on": "train_on_prompt mask_history assistant_only_loss completion_only_loss",
    "sft.packing": "pack_sequences",
    "sft.max_length reward.max_length": "cutoff_len max_seq_length max_seq_len model_max_length max_len",
    "sft.learning_rate reward.learning_rate ppo.learning_rate": "lr actor_learning_rate",
    "ppo.value_learning_rate": "critic_learning_rate",
    "sft.num_train_epochs reward.num_train_epochs": "epochs num_epochs max_epochs",
    "sft.per_device_train_batch_size reward.per_device_train_batch_size": "batch_size train_batch_size",
    "sft.warmup_ratio reward.warmup_ratio": "warmup_steps lr_warmup_steps",
    "ppo.num_ppo_epochs": "ppo_epochs",
    "ppo.num_mini_batches": "mini_batch_size",
    "ppo.rollout_batch_size": "ppo_buffer_size",
    "ppo.rollout_forward_batch_size": "local_rollout_forward_batch_size micro_rollout_batch_size",
    "ppo.response_length": "generate_max_len max_completion_length max_response_length",
    "ppo.max_prompt_length": "prompt_max_len",
    "ppo.num_generations": "num_return_sequences n_samples_per_prompt rloo_k completions_per_prompt",
    "ppo.advantage_estimator": "adv_estimator advantage_type",
    "ppo.kl_coef": "beta init_kl_coef init_kl_coeff kl_coeff kl_penalty",
    "ppo.kl_target": "ppo_target target_kl kl_target_value",
    "ppo.cliprange": "clip_range eps_clip clip_ratio",
    "ppo.cliprange_high": "epsilon_high clip_ratio_high eps_clip_high",
    "ppo.cliprange_value": "value_clip cliprange_vf",
    "ppo.lam": "lambda lambd gae_lambda",
    "ppo.reward_normalization": "ppo_score_norm use_score_scaling normalize_reward",
    "ppo.reward.path": "reward_model reward_model_path reward_model_name_or_path reward_pretrain",
    "ppo.whiten_advantages": "ppo_whiten_rewards whiten_rewards",
    "ppo.stop_tokens": "stop_token stop_token_id",
}
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    name: tuple(keys.split()) for keys, names in _SAME_KEY.items() for name in names.split()
}
"""A name in TRL, LLaMA-Factory, OpenRLHF or transformers: the dotted keys that mean the same here, or nearly so."""
