"""Which causal models can be trained here: a row must get in a padded batch what it gets alone."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import PreTrainedModel

from pipelines.errors import UsageError

_MOVED_BY_PADS = {"recurrent_gemma", "rwkv", "xlnet"}
"""Measured with transformers 5.23: padding on the left changes their log-probabilities (0.07 to 0.3 nats in tiny
models, where all others stay within 2e-6), or they refuse it."""
_DECODERS_BY_NATURE = {"gpt_neox", "gpt_neox_japanese"}
"""Their configuration has the switch `is_decoder`, and no use for it."""

_NO_SUCH_FORM = re.compile(
    r"Unrecognized configuration class <class '(?:\w+\.)*?(?P<kind>\w+)\.configuration_.* AutoModel: (?P<form>\w+)"
)


def of_another_kind(error: Exception, where: str) -> UsageError | None:
    """What to say where transformers found a whole model that has no form of the wanted sort; None: another error."""
    found = _NO_SUCH_FORM.search(str(error))
    if found is None:
        return None
    return UsageError(
        f"a {found['kind']} model cannot be opened as {found['form']}",
        where=where,
        hint="a base must be a decoder, such as Llama, Qwen, Gemma, Mistral or GPT-2, not an encoder-decoder",
    )


def refuse_unfit(model: PreTrainedModel, path: str | Path) -> None:
    """Refuse models that would train on wrong numbers without a word.

    A configuration with the switch `is_decoder` is an encoder's (BERT, RoBERTa: each token sees those that follow) or
    that of one half of an encoder-decoder (BART: positions cannot be given, so padding moves them).

    Raises:
        UsageError: the model is of such a kind.
    """
    kind = model.config.model_type
    if hasattr(model.config, "is_decoder") and kind not in _DECODERS_BY_NATURE:
        reason = "it is an encoder, or half of an encoder-decoder"
    elif kind in _MOVED_BY_PADS:
        reason = "padding changes what it computes"
    else:
        return
    raise UsageError(
        f"a {kind} model cannot be the base: {reason}",
        where=str(path),
        hint="use a decoder, such as Llama, Qwen, Gemma, Mistral or GPT-2; an outside scorer may be an encoder",
    )
