"""Tokenizers and their chat templates."""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipelines.config.model_section import ModelSection
from pipelines.errors import UsageError
from pipelines.models.base_model import LOADING_ERRORS, explain, location

_PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'assistant' %}{{ 'Assistant: ' + message.content + eos_token }}"
    "{% else %}{{ message.role | capitalize + ': ' + message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""Text roles without new tokens. Every turn's separator stands before it, so that a dialogue's beginning is a prefix
of the dialogue and an assistant turn ends on EOS; the space after `Assistant:` belongs to the answer, because most
vocabularies join it with the answer's first word."""


def load_tokenizer(path: str | Path, model: ModelSection, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer at `path`, with the chat template by `model.chat_template`.

    Raises:
        ArtifactError, HubError: it cannot be loaded.
        UsageError: it has no EOS token, or the template file cannot be read.
    """
    name, gguf = location(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=model.trust_remote_code, **gguf
        )
    except LOADING_ERRORS as error:
        raise explain(error, path, revision) from error
    if tokenizer.eos_token_id is None:
        raise UsageError(
            "the tokenizer has no EOS token, so no response could end",
            where=str(path),
            hint="set eos_token in the tokenizer's tokenizer_config.json",
        )
    tokenizer.padding_side = "right"
    if model.chat_template == "none":
        tokenizer.chat_template = None
    elif model.chat_template != "auto":
        tokenizer.chat_template = _read_template(model.chat_template)
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = plain_template(tokenizer)
    set_day(tokenizer, model.date)
    settings = _defaults(model.chat_template_kwargs) + _MERGE_SYSTEM_TURN * model.merge_system_turn
    if settings:
        tokenizer.chat_template = _preceded(tokenizer.chat_template, settings)
    return tokenizer


def set_day(tokenizer: PreTrainedTokenizerBase, date: str | None) -> None:
    """Write a day, as `run.date` has it, into the chat template of a tokenizer where it asks for the time.

    The same text gives the same ids on another day, also where the template is published.
    """
    if date is not None:
        tokenizer.chat_template = _dated(tokenizer.chat_template, datetime.date.fromisoformat(date))


_NOW = re.compile(r"""\bstrftime_now\s*\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*\)""")
"""A call with a literal format."""
_OTHER_NOW = re.compile(r"\bstrftime_now(?!\s+is\b)")
"""A call with a format that is only known when the template is rendered."""
_DIRECTIVES = [f"%{flag}{letter}" for letter in "aAbBcdeFHIjmMpSuUVwWxXyY" for flag in ("-", "")] + ["%%"]


def _dated(template: str | dict[str, str] | None, day: datetime.date) -> str | dict[str, str] | None:
    if not template:
        return template
    if isinstance(template, dict):
        return {name: str(_dated(text, day)) for name, text in template.items()}
    template = _NOW.sub(lambda call: day.strftime(call[1]), template)
    if not _OTHER_NOW.search(template):
        return template
    values = "".join(f".replace({code!r}, {day.strftime(code)!r})" for code in _DIRECTIVES)
    return str(_preceded(template, f"{{% macro strftime_now(format) %}}{{{{ format{values} }}}}{{% endmacro %}}"))


_MERGE_SYSTEM_TURN = (
    "{% if messages | length > 1 and messages[0].role == 'system' %}"
    "{% set merged = messages[0].content + '\n\n' + messages[1].content %}"
    "{% set messages = [dict(messages[1], content=merged)] + messages[2:] %}"
    "{% endif %}"
)
"""Begins a chat template that writes the system turn into the turn after it, the first user turn."""


def _defaults(values: Mapping[str, Any]) -> str:
    """Begin a chat template with default values of its variables."""
    literals = {name: "none" if value is None else json.dumps(value) for name, value in values.items()}
    return "".join(f"{{% set {name} = {name} if {name} is defined else {text} %}}" for name, text in literals.items())


def _preceded(template: str | dict[str, str], settings: str) -> str | dict[str, str]:
    """Put settings before a chat template, or before each of several."""
    if isinstance(template, dict):
        return {name: str(_preceded(text, settings)) for name, text in template.items()}
    return settings + "{{ '' }}" + template  # else a line feed that begins the template would be lost


def plain_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Chat template for tokenizers without one; it begins with BOS where the tokenizer itself adds it."""
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return ("{{ bos_token }}" if begins else "") + _PLAIN_TEMPLATE


def reward_pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that pads the rows of a sequence classifier.

    Hugging Face reads a classifier's score at the last id that is not the pad id: if that were the EOS, the score would
    be read before the EOS. It is the tokenizer's pad; else another special token (unknown, BOS, any); else a word that
    hardly ever ends a text.
    """
    eos = tokenizer.eos_token_id
    special = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids]
    pad = next((index for index in special if index is not None and index != eos), None)
    if pad is not None:
        return int(pad)
    vocabulary = tokenizer.get_vocab()
    # a token that begins with the vocabulary's mark for a space: as literal text it does not occur
    marked = [index for token, index in vocabulary.items() if token[0] in "Ġ▁" and len(token) > 4 and index != eos]
    return max(marked or [index for index in vocabulary.values() if index != eos])


def reward_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Copy a tokenizer, to pad on the right with `reward_pad_id`."""
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = tokenizer.convert_ids_to_tokens(reward_pad_id(tokenizer))
    padded.padding_side = "right"
    return padded


def _read_template(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the chat template cannot be read: {error}",
            where="model.chat_template",
            hint="set it to auto, none, or the path of a .jinja file",
        ) from error
