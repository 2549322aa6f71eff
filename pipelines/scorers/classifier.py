"""Any text classifier or reward model as a scorer, through text and with its own tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.config.scorer import ScorerSection
from pipelines.errors import ArtifactError, DataError, UsageError
from pipelines.models.base import explain, quiet
from pipelines.models.generate import pad_left
from pipelines.models.score import pad_right, position_ids
from pipelines.scorers.base import Completion, Dialogue, Progress, checked_scores

NO_PAD = -1
"""A pad id that no token has: Hugging Face then reads a decoder's score at the last place of the row."""


class ClassifierScorer:
    """One logit of a sequence classifier.

    The text is the dialogue through the tokenizer's chat template where it has one; else prompt and completion as a
    text pair where the tokenizer knows pairs, else joined by a newline. A text that is too long loses its beginning.

    Attributes:
        name: what tables call it.
        truncated: texts cut so far.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        label: int | str | None = None,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self.truncated = 0
        self._model = model
        self._model.eval()  # type: ignore[no-untyped-call]
        self._tokenizer = tokenizer
        tokenizer.truncation_side = "left"  # the answer stands at the end, and a decoder is read there
        self._logit = choose_logit(model, label, name)
        self._batch_size = batch_size
        self._progress = progress
        self._limit = longest_input(model, tokenizer)
        self._takes_pairs = tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add()
        parameters = inspect.signature(model.forward).parameters
        self._takes_segments = "token_type_ids" in parameters
        self._takes_positions = "position_ids" in parameters
        # a decoder reads its score at the last token that is not the pad id; its `score` head tells it apart
        self._is_decoder = hasattr(model, "score")
        if self._is_decoder and model.config.get_text_config().pad_token_id is None:
            model.config.get_text_config().pad_token_id = NO_PAD

    @classmethod
    def load(
        cls, name: str, section: ScorerSection, device: torch.device, *, progress: Progress | None = None
    ) -> ClassifierScorer:
        """Load the classifier that ``section.path`` names; its code is never run.

        Raises:
            ArtifactError: the directory is damaged, or the model's head was never trained or got lost.
            HubError: the hub cannot be reached or refuses.
            UsageError: no such directory, an adapter, or a choice among several classes is missing.
        """
        path = str(section.path)
        _refuse_other_things(path)
        kwargs: dict[str, Any] = {"revision": section.revision, "trust_remote_code": False}
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(path, **kwargs)
                model, info = AutoModelForSequenceClassification.from_pretrained(
                    path,
                    # halves are slow or missing on a CPU; a GPU takes what the files hold
                    dtype="auto" if device.type == "cuda" else torch.float32,
                    output_loading_info=True,
                    **kwargs,
                )
                model = model.to(device)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise explain(error, path, section.revision) from error
        if info["missing_keys"]:
            lost = ", ".join(sorted(info["missing_keys"])[:3])
            raise ArtifactError(
                f"the classifier {name} was never trained, or its head got lost: its files lack {lost}",
                where=path,
                hint="name a model that was saved as a sequence classifier",
            )
        return cls(name, model, tokenizer, label=section.label, batch_size=section.batch_size, progress=progress)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The chosen logit for each pair, as the model gives it.

        Raises:
            DataError: the chat template refuses a dialogue, or a score is not finite.
        """
        rows = [self._encode(prompt, answer.text) for prompt, answer in zip(prompts, completions, strict=True)]
        scores = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            logits = self._logits([rows[index] for index in chosen])
            for index, score in zip(chosen, logits[:, self._logit].float().tolist(), strict=True):
                scores[index] = score
            if self._progress is not None:
                self._progress(len(chosen))
        return checked_scores(f"the classifier {self.name}", scores, len(rows))

    def _encode(self, prompt: Dialogue, completion: str) -> tuple[list[int], list[int]]:
        """Token ids and segment ids of one text."""
        tokenizer, text, pair, special = self._tokenizer, "", None, True
        if tokenizer.chat_template is not None:
            messages = [{"role": turn.role, "content": turn.content} for turn in prompt]
            messages.append({"role": "assistant", "content": completion})
            try:
                text = str(tokenizer.apply_chat_template(messages, tokenize=False))
            except (TemplateError, ValueError) as error:
                raise DataError(
                    f"the chat template of the classifier {self.name} refuses a dialogue: {error}",
                    where=", ".join(message["role"] for message in messages),
                ) from error
            special = False  # the template has written them
        else:
            text = "\n".join(turn.content for turn in prompt)
            if self._takes_pairs:
                pair = completion
            else:
                text = f"{text}\n{completion}"
        encode: dict[str, Any] = {"add_special_tokens": special, "return_token_type_ids": True}
        encoded = tokenizer(text, pair, **encode)
        if self._limit is not None and len(encoded["input_ids"]) > self._limit:
            self.truncated += 1
            encoded = tokenizer(text, pair, truncation="longest_first", max_length=self._limit, **encode)
        if not encoded["input_ids"]:
            raise DataError(f"the classifier {self.name} got an empty text to score")
        return encoded["input_ids"], encoded["token_type_ids"]

    def _logits(self, rows: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        """[B, classes]. A row gets what it gets alone: masks come from lengths, positions from the row's own tokens."""
        device = next(self._model.parameters()).device
        ids, mask = (pad_left if self._is_decoder else pad_right)([row[0] for row in rows], device)
        inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask}
        if self._is_decoder and self._takes_positions:
            inputs["position_ids"] = position_ids(mask)
        if not self._is_decoder and self._takes_segments:
            inputs["token_type_ids"] = pad_right([row[1] for row in rows], device)[0]
        return self._model(**inputs).logits  # type: ignore[no-any-return]


def choose_logit(model: PreTrainedModel, label: int | str | None, name: str) -> int:
    """Index of the logit that is the score: the only one, or the one that `label` names by index or by class name.

    Raises:
        UsageError: there are several and `label` names none of them.
    """
    classes = {int(index): str(text) for index, text in (model.config.id2label or {}).items()}
    if label is None and len(classes) == 1:
        return 0
    if isinstance(label, int) and label in classes:
        return label
    found = [index for index, text in classes.items() if text == label]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{index}: {text}" for index, text in sorted(classes.items()))
    said = f"has no class {label!r}" if label is not None else f"has {len(classes)} classes, and none was chosen"
    raise UsageError(f"the classifier {name} {said}", hint=f"set `label` to one of these: {shown}")


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that tokenizer and position embeddings allow; None: no limit is known."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 10**9 else []
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its kin count positions from their pad id on, and lose as many places
        tables = [table for part, table in model.named_modules() if part.endswith("position_embeddings")]
        padding = [getattr(table, "padding_idx", None) for table in tables]
        limits.append(positions - max((index + 1 for index in padding if index is not None), default=0))
    return min(limits, default=None)


def _refuse_other_things(path: str) -> None:
    directory = Path(path)
    if (directory / "adapter_config.json").is_file():
        raise UsageError(
            "this is an adapter, not a whole classifier", where=path, hint="merge it into its base and save that"
        )
    if not directory.is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise UsageError(f"there is no directory {path}", hint="a hub id has the form owner/name")
