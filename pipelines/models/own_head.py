"""A sequence classifier for decoders of which transformers has none: their causal trunk under a linear head.

It is registered under transformers' own automatic class, so that loading, quantization, adapters and saving are as for
every other family. The directory that is saved opens elsewhere by the recipe in its README.md.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from pipelines.errors import UsageError
from pipelines.models.sequence_scores import pool_last

OTHER_REWARD = "name another base, or set reward.base, or an outside reward in ppo.reward"


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
    """Name and module of what a causal model or a classifier has below its head."""
    name = getattr(causal, "base_model_prefix", "")
    if not isinstance(trunk := getattr(causal, name, None), PreTrainedModel):  # Llama 4 has it under another name
        name, trunk = next(
            (name, child) for name, child in causal.named_children() if isinstance(child, PreTrainedModel)
        )
    return name, trunk


def provide_classifier(config: PretrainedConfig) -> None:
    """Register a classifier for the family of `config` where transformers has a causal model and no classifier."""
    family = type(config)
    if _knows(AutoModelForSequenceClassification, family) or not _knows(AutoModelForCausalLM, family):
        return
    AutoModelForSequenceClassification.register(family, _own_class(config), exist_ok=True)  # else it does nothing


def classifier_loader(config: PretrainedConfig) -> Any:
    """The class whose `from_pretrained` opens a classifier that is a causal model's trunk under a linear `score`.

    It is transformers' automatic class, unless the family's own classifier has another head (CTRL, ModernBERT).
    """
    provide_classifier(config)
    if not _knows(AutoModelForCausalLM, type(config)):
        return AutoModelForSequenceClassification
    with torch.device("meta"):
        known = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    heads = {name.partition(".")[0] for name, _ in known.named_parameters()} - {trunk_of(known)[0]}
    return AutoModelForSequenceClassification if heads <= {"score"} else _own_class(config)


def _knows(auto: Any, family: type[PretrainedConfig]) -> bool:
    """Whether an automatic class has a model of a family: the keys of its mapping would import those of all families.

    A family from outside may have the name of one of transformers', which does not make it known.
    """
    ours = getattr(transformers, family.__name__, None) is family or family in auto._model_mapping._extra_content
    return ours and auto._model_mapping.get(family, None) is not None


@functools.cache
def _made_class(causal: Any, name: str, trunk: Any, family: type[PretrainedConfig]) -> type[PreTrainedModel]:
    common = next(kind for kind in causal.__mro__ if PreTrainedModel in kind.__bases__)
    members = {"base_model_prefix": name, "trunk_class": trunk, "config_class": family}
    # from_pretrained takes a class of another module for code from outside, and leaves its buffers without values
    members["__module__"] = causal.__module__
    return type(f"{causal.__name__.partition('For')[0]}ForSequenceClassification", (OwnHead, common), members)


def _own_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    name, trunk = trunk_of(causal)
    return _made_class(type(causal), name, type(trunk), type(config))  # type: ignore[arg-type]


def classifier_on_meta(causal: PreTrainedModel, path: str) -> PreTrainedModel:
    """Build the classifier of a causal model without weights, to see whether a reward model can be made of it.

    Raises:
        UsageError: the trunk of the classifier has other weights than that of the causal model.
    """
    config = copy.deepcopy(causal.config)
    config.num_labels = 1
    with torch.device("meta"):
        loader = classifier_loader(config)
        auto = loader is AutoModelForSequenceClassification
        classifier: PreTrainedModel = loader.from_config(config) if auto else loader(config)
    known = {name.replace(".base_layer", "") for name in causal.state_dict()}  # under an adapter of peft
    lacking = sorted({name for name, _ in classifier.named_parameters()} - {"score.weight"} - known)
    if lacking:
        raise UsageError(
            f"no reward model can be made of a {config.model_type} model: it lacks {lacking[0]} of its classifier",
            where=path,
            hint=OTHER_REWARD,
        )
    return classifier
