"""`model`: the base model, its precision and the shape of its adapters."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config.section import Section

PACKAGE = "package:"
"""Begins the name of a model that an installed Python package carries: ``package:<module>/<path inside it>``."""


class ScratchModel(Section):
    """Shape of the small Llama that `init: scratch` builds."""

    vocab_size: int = Field(1024, ge=300, description="Upper bound of the byte-level BPE trained on the SFT text.")
    hidden_size: int = Field(128, ge=8)
    num_hidden_layers: int = Field(2, ge=1)
    num_attention_heads: int = Field(8, ge=1)
    intermediate_size: int = Field(384, ge=8)
    max_position_embeddings: int = Field(256, ge=16)
    rope_theta: float = Field(10000.0, gt=0)
    tie_word_embeddings: bool = True

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
        None, description="Hub id, directory or .gguf file of the base model, or package:<module>/<path inside it>."
    )
    revision: str | None = Field(None, description="Commit of the hub repository.")
    trust_remote_code: bool = Field(False, description="Runs code of the model's repository; needs a pinned revision.")
    init: Literal["pretrained", "scratch"] = "pretrained"
    scratch: ScratchModel = ScratchModel()
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: frozen bases in bf16, training under bf16 autocast."
    )
    attn_implementation: str | None = None
    chat_template: str = Field(
        "auto", description="auto: the tokenizer's own, else a plain one is added; none: raw text; or a .jinja file."
    )
    load_in_4bit: bool = Field(False, description="NF4 with double quantization; trains adapters (QLoRA).")
    allow_cpu_4bit: bool = Field(False, description="Let bitsandbytes run on the CPU: for tests, slow.")
    use_peft: bool = Field(False, description="Train LoRA adapters instead of all weights.")
    lora_r: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_target_modules: str | list[str] = "all-linear"

    @field_validator("name_or_path")
    @classmethod
    def _directory_from_anywhere(cls, value: str | None) -> str | None:
        """A directory or file by its full path: adapters and a moved run still find it."""
        if not value:
            return value
        path = _in_package(value) or Path(value).expanduser()
        return str(path.absolute()) if path.is_dir() or (is_gguf(path) and path.is_file()) else value

    @model_validator(mode="after")
    def _belongs_together(self) -> ModelSection:
        if self.load_in_4bit and not self.use_peft:
            raise ValueError("load_in_4bit trains adapters only: set use_peft: true as well")
        if self.load_in_4bit and is_gguf(self.name_or_path):
            raise ValueError("load_in_4bit cannot quantize a .gguf file, which is quantized already")
        if self.load_in_4bit and self.init == "scratch":
            raise ValueError("load_in_4bit needs pretrained weights: set init: pretrained")
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError("trust_remote_code needs revision: a commit of 40 hex digits")
        return self


def is_gguf(name: str | Path | None) -> bool:
    """Whether a model is named by a GGUF file."""
    return str(name).endswith(".gguf")


def _in_package(name: str) -> Path | None:
    """Where the file lies that ``package:<module>/<path>`` names; None: another kind of name, or no such package."""
    module, _, inside = name.removeprefix(PACKAGE).partition("/")
    if not name.startswith(PACKAGE) or not module.isidentifier():
        return None
    spec = importlib.util.find_spec(module)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) / inside if places else None
