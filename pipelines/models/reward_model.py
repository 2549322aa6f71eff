"""Scoring with a reward model of a run: on the policy's token ids, or on text with a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from typing_extensions import override

from pipelines.config.model_section import ModelSection
from pipelines.data.encode import ChatEncoder
from pipelines.data.rows import Message
from pipelines.models.generate import closed
from pipelines.models.machine import autocast
from pipelines.models.policies import model_directory, open_reward
from pipelines.models.published_reward import PublishedReward, Reads
from pipelines.models.sequence_scores import score_ids
from pipelines.models.text_classifier import EncodedText, TextClassifier, load_text_classifier


class RewardModel(Protocol):
    """A reward model of either kind; `reads`: its input, tokens or text."""

    reads: Reads

    @property
    def truncated(self) -> int:
        """Number of texts cut so far."""

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the model."""

    def row(
        self, prompt: Sequence[Message], text: str, ids: Sequence[int] | None = None, *, finished: bool = True
    ) -> EncodedText:
        """Encode an answer as the model reads it: the ids as the policy sampled them, or, without ids, the text.

        Only one that has ended by itself is read with an end, an EOS or what the chat template puts after a turn.
        """

    def scores(self, rows: Sequence[EncodedText], *, exact: bool = False) -> list[float]:
        """One logit a row; `exact` switches autocast off, so that a reloaded model can be compared."""


class TokenRewardModel(RewardModel):
    """A reward model on the policy's tokens, read at the last one: an answer cut at the limit is scored without EOS."""

    reads: Reads = "tokens"
    truncated = 0

    def __init__(
        self, model: PreTrainedModel | PeftModel, encoder: ChatEncoder, section: ModelSection, batch_size: int
    ) -> None:
        self._model, self._encoder, self._section, self._batch_size = model, encoder, section, batch_size

    @property
    @override
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._model.parameters())

    @override
    def row(
        self, prompt: Sequence[Message], text: str, ids: Sequence[int] | None = None, *, finished: bool = True
    ) -> EncodedText:
        if ids is None:
            answer = self._encoder.answer(prompt, text)[: None if finished else -1]
        else:
            answer = closed(ids, (self._encoder.eos_token_id, ids[-1])) if finished else list(ids)
        whole = [*self._encoder.prompt(prompt), *answer]
        return EncodedText(whole, [], len(whole))

    @override
    def scores(self, rows: Sequence[EncodedText], *, exact: bool = False) -> list[float]:
        device = next(self._model.parameters()).device
        with nullcontext() if exact else autocast(self._section, device):
            return score_ids(self._model, [row.ids for row in rows], self._batch_size)


class TextRewardModel(RewardModel):
    """A reward model on text, with its own tokenizer; always in fp32.

    With two classes, bad and good, the score is the difference of their logits: its sigmoid is their softmax.
    """

    reads: Reads = "text"

    def __init__(self, classifier: TextClassifier, batch_size: int) -> None:
        self._classifier, self._batch_size = classifier, batch_size

    @property
    @override
    def truncated(self) -> int:
        return self._classifier.truncated

    @property
    @override
    def num_parameters(self) -> int:
        return self._classifier.model.num_parameters()

    @override
    def row(
        self, prompt: Sequence[Message], text: str, ids: Sequence[int] | None = None, *, finished: bool = True
    ) -> EncodedText:  # the ids are those of another tokenizer
        return self._classifier.encode(prompt, text, finished=finished)

    @override
    def scores(self, rows: Sequence[EncodedText], *, exact: bool = False) -> list[float]:
        logits = self._classifier.all_logits(rows, self._batch_size)
        scores: list[float] = (logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]).tolist()
        return scores


def open_reward_model(
    published: PublishedReward, section: ModelSection, device: torch.device, *, batch_size: int = 32
) -> RewardModel:
    """Open what a reward stage published; errors as of `open_reward` and `load_text_classifier`."""
    if published.reads == "text":
        path = model_directory(published.stage_dir)
        model, tokenizer = load_text_classifier(str(path), device, labels=None, date=section.date)
        return TextRewardModel(TextClassifier("of the run", model, tokenizer), batch_size)
    opened, tokenizer = open_reward(published, section, device)
    return TokenRewardModel(opened, ChatEncoder(tokenizer), section, batch_size)
