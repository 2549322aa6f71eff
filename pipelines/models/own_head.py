"""A sequence classifier for decoders of which transformers has none: their causal trunk under a linear head.

It is registered under transformers' own automatic class, so that loading, quantization, adapters and saving are as for
every other family. The directory that is saved opens elsewhere by the recipe in its README.md.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from pipelines.models.sequence_scores import pool_last


class OwnHead:
    """The classifier's constructor and forward, mixed into the common base class of a family of models.

    Attributes:
        trunk_class: class of the family's trunk.
        base_model_prefix: the trunk's name in the family's causal models, whose files it is loaded from.
    """

    trunk_class: type[PreTrainedModel]
    base_model_prefix: str

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.num_labels = config.num_labels
        text: Any = config.get_text_config()
        setattr(self, self.base_model_prefix, self.trunk_class(text))
        self.score = nn.Linear(text.hidden_size, cast(int, config.num_labels), bias=False)
        self.post_init()  # type: ignore[attr-defined]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [B, labels] at the last token of each row of `input_ids` [B, S] that `attention_mask` counts."""
        trunk = getattr(self, self.base_model_prefix)
        inputs = {"attention_mask": attention_mask, "position_ids": position_ids, **kwargs}
        hidden = trunk(input_ids=input_ids, **{name: value for name, value in inputs.items() if value is not None})
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return SequenceClassifierOutput(logits=self.score(pool_last(hidden.last_hidden_state, mask)))


def trunk_of(causal: nn.Module) -> tuple[str, PreTrainedModel]:
    """Name and module of what a causal model has below its head."""
    name = getattr(causal, "base_model_prefix", "")
    if not isinstance(trunk := getattr(causal, name, None), PreTrainedModel):  # Llama 4 has it under another name
        name, trunk = next(
            (name, child) for name, child in causal.named_children() if isinstance(child, PreTrainedModel)
        )
    return name, trunk


def provide_classifier(config: PretrainedConfig) -> None:
    """Register a classifier for the family of `config` where transformers has a causal model and no classifier."""
    family = type(config)
    if family in AutoModelForSequenceClassification._model_mapping.keys():  # noqa: SIM118 - it is no dict
        return
    if family not in AutoModelForCausalLM._model_mapping.keys():  # noqa: SIM118
        return
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    common = next(kind for kind in type(causal).__mro__ if PreTrainedModel in kind.__bases__)
    name, trunk = trunk_of(causal)
    members = {"base_model_prefix": name, "trunk_class": type(trunk), "config_class": family}
    kind = type(f"{type(causal).__name__.partition('For')[0]}ForSequenceClassification", (OwnHead, common), members)
    AutoModelForSequenceClassification.register(family, kind, exist_ok=True)  # without it the call does nothing
