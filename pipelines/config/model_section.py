"""`model`: the base model, its precision and the shape of its adapters."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from pipelines.config.section import Section, by_kind

PACKAGE = "package:"
"""Begins the name of a model that an installed Python package carries: ``package:<module>/<path inside it>``."""


_OF_THE_DIALOGUE = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "tokenize"}


class ScratchModel(Section):
    """Shape of the small Llama that `init: scratch` builds."""

    vocab_size: int = Field(
        1024, ge=300, description="Maximum vocabulary size of the byte-level BPE tokenizer trained on the SFT text."
    )
    hidden_size: int = Field(128, ge=8, description="Width of the hidden states.")
    num_hidden_layers: int = Field(2, ge=1, description="Number of layers.")
    num_attention_heads: int = Field(8, ge=1, description="Number of attention heads.")
    intermediate_size: int = Field(384, ge=8, description="Width of the feed-forward layers.")
    max_position_embeddings: int = Field(256, ge=16, description="Maximum number of positions.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary position embeddings.")
    tie_word_embeddings: bool = Field(True, description="Whether input and output embeddings share their weights.")

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchModel:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        return self


class ModelSection(Section):
    """The base model that every stage builds on."""

    name_or_path: str | None = Field(
        None, description="Base model: hub id, directory, .gguf file, or package:<module>/<path inside it>."
    )
    revision: str | None = Field(None, description="Commit of the hub repository; null: the newest one.")
    trust_remote_code: bool = Field(
        False,
        description="Whether to run code of this model's repository, which needs `revision`, or of its directory, "
        "whose content is recorded.",
    )
    init: Literal["pretrained", "scratch"] = Field(
        "pretrained",
        description="Start of the base: pretrained weights, or scratch (a small Llama with random weights).",
    )
    scratch: ScratchModel = Field(ScratchModel(), description="Shape of the model that `init: scratch` builds.")
    dtype: Literal["float32", "bfloat16"] = by_kind(
        "model.dtype",
        description="Precision: float32, or bfloat16 (frozen bases in bf16, training under bf16 autocast).",
    )
    attn_implementation: str | None = Field(
        None, description="Attention implementation of transformers, such as sdpa; null: the library's choice."
    )
    chat_template: str = Field(
        "auto",
        description="Chat template: auto (the tokenizer's own, or a plain one if it has none), none (raw text), or a "
        ".jinja file.",
    )
    chat_template_kwargs: dict[str, bool | int | float | str | None] = Field(
        {},
        description="Values for variables of the chat template, such as {enable_thinking: false}; they become defaults "
        "of the published template, so that it is served as it was trained.",
    )
    merge_system_turn: bool = Field(
        False,
        description="Whether to write a system turn into the first user turn, for a chat template that refuses system "
        "turns; the published template does the same.",
    )
    load_in_4bit: bool = Field(
        False, description="Whether to load the base in NF4 with double quantization and train adapters on it (QLoRA)."
    )
    allow_cpu_4bit: bool = Field(False, description="Whether 4-bit models may run on the CPU: slow, meant for tests.")
    use_peft: bool = by_kind("model.use_peft", description="Whether to train LoRA adapters instead of all weights.")
    lora_r: int = Field(16, ge=1, description="Rank of the LoRA adapters.")
    lora_alpha: int = Field(
        32, ge=1, description="Scale of the LoRA adapters; their output is multiplied by lora_alpha / lora_r."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the input of the LoRA adapters.")
    lora_target_modules: str | list[str] = Field(
        "all-linear", description="Modules that get an adapter: all-linear, or a list of module names."
    )

    _date: str | None = PrivateAttr(None)

    @property
    def date(self) -> str | None:
        """Day that the chat template writes: `run.date`."""
        return self._date

    def on(self, date: str | None) -> ModelSection:
        """The same settings with the day that the chat template writes."""
        dated = self.model_copy()
        dated._date = date
        return dated

    @field_validator("name_or_path")
    @classmethod
    def _directory_from_anywhere(cls, value: str | None) -> str | None:
        """A directory or file by its full path: adapters and a moved run still find it."""
        if not value:
            return value
        path = _in_package(value) or Path(value).expanduser()
        return full_path(path) if path.is_dir() or (is_gguf(path) and path.is_file()) else value

    @field_validator("attn_implementation")
    @classmethod
    def _no_code_of_the_hub(cls, value: str | None) -> str | None:
        if value is not None and "/" in value:
            raise ValueError(
                "kernels of the hub are code, and none is loaded; name one of transformers' own, such as sdpa"
            )
        return value

    @field_validator("chat_template_kwargs")
    @classmethod
    def _variables_of_a_template(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values:
            if not name.isidentifier() or name in _OF_THE_DIALOGUE:
                raise ValueError(f"`{name}` is no variable that can be set; the dialogue itself comes from the rows")
        return values

    def results_view(self) -> dict[str, Any]:
        """Values that affect results, without what is newer than some runs and not used."""
        newer = ("chat_template_kwargs", "merge_system_turn")
        return {key: value for key, value in super().results_view().items() if value or key not in newer}

    @model_validator(mode="after")
    def _belongs_together(self) -> ModelSection:
        if self.chat_template_kwargs and self.chat_template == "none":
            raise ValueError("chat_template_kwargs needs a chat template, and chat_template is none")
        if self.merge_system_turn and self.chat_template == "none":
            raise ValueError("merge_system_turn needs a chat template, and chat_template is none")
        if self.load_in_4bit and not self.use_peft:
            raise ValueError("load_in_4bit trains adapters only: set use_peft: true as well")
        if self.load_in_4bit and is_gguf(self.name_or_path):
            raise ValueError("load_in_4bit cannot quantize a .gguf file, which is quantized already")
        if self.load_in_4bit and self.init == "scratch":
            raise ValueError("load_in_4bit needs pretrained weights: set init: pretrained")
        if self.trust_remote_code:
            check_trusted(self.name_or_path, self.revision)
        return self


def check_trusted(name: str | None, revision: str | None) -> None:
    """Refuse to run code that nothing pins.

    A repository is pinned by a commit, a directory by the hashes of its files, which the run records.

    Raises:
        ValueError: the commit is missing, or no commit can be that of a directory.
    """
    if name is not None and Path(name).expanduser().is_dir():
        if revision is not None:
            raise ValueError("trust_remote_code of a directory takes no revision: its files are recorded")
    elif not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ValueError("trust_remote_code needs revision: a commit of 40 hex digits")


def full_path(path: Path) -> str:
    """The path from the root, without `..`, so that it names the same place from everywhere."""
    return str(path.resolve() if ".." in path.parts else path.absolute())


def is_gguf(name: str | Path | None) -> bool:
    """Whether a model is named by a GGUF file."""
    return str(name).endswith(".gguf")


def looks_like_path(name: str) -> bool:
    """Whether a model's name is a path rather than a hub id, ``owner/name`` or ``owner/name/file.gguf``."""
    return name.startswith((".", "/", "~")) or name.count("/") > (2 if is_gguf(name) else 1)


def _in_package(name: str) -> Path | None:
    """Resolve ``package:<module>/<path>`` to a file; None: another kind of name, or no such package."""
    module, _, inside = name.removeprefix(PACKAGE).partition("/")
    if not name.startswith(PACKAGE) or not module.isidentifier():
        return None
    spec = importlib.util.find_spec(module)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) / inside if places else None
