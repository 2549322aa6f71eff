"""Checks that a base, its tokenizer and its generation config fit together and can be trained."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from pipelines.config.model_section import is_gguf
from pipelines.errors import UsageError
from pipelines.models.base_ref import refuse_adapter

_MOVED_BY_PADS = {"recurrent_gemma", "rwkv", "xlnet", "cpmant"}
"""Measured with transformers 5.23: padding on the left changes their log-probabilities (0.07 to 6 nats in tiny
models, where all others stay within 2e-5), or they refuse it."""
_DECODERS_BY_NATURE = {"gpt_neox", "gpt_neox_japanese"}
"""Kinds of models whose configuration has the switch `is_decoder` without using it."""


def refuse_unfit(model: PreTrainedModel, path: str | Path) -> None:
    """Refuse models that would silently train on wrong numbers.

    A configuration with the switch `is_decoder` is that of an encoder (BERT, RoBERTa: each token attends to those that
    follow) or of one half of an encoder-decoder (BART: it takes no positions, so padding shifts them).

    Raises:
        UsageError: the model is of such a kind.
    """
    kind = model.config.model_type
    if hasattr(model.config, "is_decoder") and kind not in _DECODERS_BY_NATURE:
        reason = "it is an encoder, or half of an encoder-decoder"
    elif kind in _MOVED_BY_PADS:
        reason = "padding changes what it computes"
    elif kind == "xlm":
        reason = "it fills masks, and samples other tokens than its logits say"
    else:
        return
    raise UsageError(
        f"a {kind} model cannot be the base: {reason}",
        where=str(path),
        hint="use a decoder, such as Llama, Qwen, Gemma, Mistral or GPT-2; an outside scorer may be an encoder",
    )


_PLACEHOLDER = re.compile(r"image|audio|video")
"""Placeholders of other media, for which text models have no row: <image_soft_token> of Gemma 3 1B."""


def check_vocabulary(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with tokens beyond the model's embedding, whose rows would crash a forward.

    The unknown token is spared: transformers adds Qwen 2's to any tokenizer beside such a model, which knows all bytes.

    Raises:
        UsageError: tokens were added to the tokenizer, and the model was not resized.
    """
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator, union-attr, index]
    spared = {tokenizer.unk_token} - {tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token}
    beyond = {
        index: token
        for token, index in tokenizer.get_vocab().items()
        if index >= rows and not _PLACEHOLDER.search(token) and token not in spared
    }
    if not beyond:
        return
    size, first = max(beyond) + 1, ", ".join(repr(beyond[index]) for index in sorted(beyond)[:3])
    raise UsageError(
        f"the tokenizer has {size} tokens, but the model's embedding has {rows} rows: there is none for {first}",
        where=tokenizer.name_or_path,
        hint="use the tokenizer that the model was trained with, or resize the model in transformers: "
        f"model.resize_token_embeddings({size}), and save both",
    )


_TRAINED_NORM = 1e-3
"""Share of the median norm of an embedding below which a token was never trained."""


def untrained_tokens(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, used: Iterable[int]
) -> list[str]:
    """Return the special tokens among `used` whose embedding looks untrained: next to zero, or that of another one.

    Reserved and newly added tokens are such. LoRA trains no embedding, so an adapter can hardly learn to write them.
    """
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    rows: torch.Tensor = model.get_input_embeddings().weight.detach()  # type: ignore[operator, union-attr, assignment]
    asked = sorted(index for index in special.intersection(used) if index < len(rows))
    others = rows[sorted(index for index in special if index < len(rows))]
    smallest = float(rows.float().norm(dim=1).median()) * _TRAINED_NORM
    return [
        str(tokenizer.convert_ids_to_tokens(index))
        for index in asked
        if float(rows[index].float().norm()) <= smallest or int((others == rows[index]).all(dim=1).sum()) > 1
    ]


def savable_generation_config(config: GenerationConfig) -> GenerationConfig:
    """A copy that `save_pretrained` accepts: it refuses values that its own way of decoding does not use.

    Llama 2 Chat ships a temperature beside `do_sample: false`: the temperature is meant, unless it is 0.
    """
    savable = copy.deepcopy(config)
    if _is_savable(savable):
        return savable
    if savable.temperature == 0:
        savable.do_sample, savable.temperature, savable.top_p, savable.top_k = False, None, None, None
    else:
        savable.do_sample = True
    if _is_savable(savable):
        return savable
    kept = {name: value for name in _DECODING if (value := getattr(savable, name, None)) is not None}
    return GenerationConfig(**kept)  # type: ignore[no-untyped-call]


_DECODING = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens"),
    *("do_sample", "temperature", "top_k", "top_p", "repetition_penalty"),
)


def _is_savable(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True


def refuse_adapter_files(path: str | Path, revision: str | None) -> None:
    """Refuse an adapter, in a directory or on the hub, where a whole model is needed.

    Raises:
        UsageError: it is one.
    """
    if is_gguf(path):
        return
    try:
        file = find_adapter_config_file(str(path), revision=revision)
    except OSError:  # no such model: loading it says why
        return
    if file is not None:
        refuse_adapter(str(path), str(path), Path(file))
