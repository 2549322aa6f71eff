"""The run's reward model as something that scores: on the policy's token ids, or on text with its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel

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
    """A reward model of either kind.

    Attributes:
        reads: what it reads.
    """

    reads: Reads

    @property
    def truncated(self) -> int:
        """Texts cut so far."""

    @property
    def num_parameters(self) -> int:
        """Of the model."""

    def row(
        self, prompt: Sequence[Message], text: str, ids: Sequence[int] | None = None, *, ended: bool = False
    ) -> EncodedText:
        """An answer as the model reads it.

        Args:
            prompt: what is answered.
            text: the answer.
            ids: the answer as the policy sampled it, the EOS included where it came; None: an answer that ended.
            ended: `ids` ended by themselves: a model of tokens reads an EOS after another stop token.
        """

    def scores(self, rows: Sequence[EncodedText], *, exact: bool = False) -> list[float]:
        """One logit a row; `exact`: without autocast, so that a reload can be compared."""


class TokenRewardModel:
    """On the policy's tokens, read at the last one: an answer cut at the limit is scored without an EOS."""

    reads: Reads = "tokens"
    truncated = 0

    def __init__(
        self, model: PreTrainedModel | PeftModel, encoder: ChatEncoder, section: ModelSection, batch_size: int
    ) -> None:
        self._model, self._encoder, self._section, self._batch_size = model, encoder, section, batch_size

    @property
    def num_parameters(self) -> int:
        """See RewardModel."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def row(
        self, prompt: Sequence[Message], text: str, ids: Sequence[int] | None = None, *, ended: bool = False
    ) -> EncodedText:
        """See RewardModel."""
        answer = self._encoder.answer(prompt, text) if ids is None else ids
        if ids and ended:
            answer = closed(ids, (self._encoder.eos_token_id, ids[-1]))
        whole = [*self._encoder.prompt(prompt), *answer]
        return EncodedText(whole, [], len(whole))

    def scores(self, rows: Sequence[EncodedText], *, exact: bool = False) -> list[float]:
        """See RewardModel."""
        device = next(self._model.parameters()).device
        with nullcontext() if exact else autocast(self._section, device):
            return score_ids(self._model, [row.ids for row in rows], self._batch_size)


class TextRewardModel:
    """On text, with its own tokenizer; always in fp32.

    Of two classes, bad and good, the logit is the difference: its sigmoid is their softmax.
    """

    reads: Reads = "text"

    def __init__(self, classifier: TextClassifier, batch_size: int) -> None:
        self._classifier, self._batch_size = classifier, batch_size

    @property
    def truncated(self) -> int:
        """See RewardModel."""
        return self._classifier.truncated

    @property
    def num_parameters(self) -> int:
        """See RewardModel."""
        return self._classifier.model.num_parameters()

    def row(
        self, prompt: Sequence[Message], text: str, ids: Sequence[int] | None = None, *, ended: bool = False
    ) -> EncodedText:
        """See RewardModel; the ids of another tokenizer say nothing here."""
        return self._classifier.encode(prompt, text)

    def scores(self, rows: Sequence[EncodedText], *, exact: bool = False) -> list[float]:
        """See RewardModel."""
        logits = self._classifier.all_logits(rows, self._batch_size)
        found: list[float] = (logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]).tolist()
        return found


def open_reward_model(
    published: PublishedReward, section: ModelSection, device: torch.device, *, batch_size: int = 32
) -> RewardModel:
    """Open what a reward stage published.

    Args:
        published: its facts.
        section: the run's model section.
        device: where to put it.
        batch_size: rows in one forward.

    Raises:
        RlhfError: see `open_reward` and `load_text_classifier`.
    """
    if published.reads == "text":
        path = model_directory(published.stage_dir)
        model, tokenizer = load_text_classifier(str(path), device, labels=None)
        return TextRewardModel(TextClassifier("of the run", model, tokenizer), batch_size)
    opened, tokenizer = open_reward(published, section, device)
    return TokenRewardModel(opened, ChatEncoder(tokenizer), section, batch_size)
