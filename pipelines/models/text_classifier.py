"""A sequence classifier with its own tokenizer, fed with text: what it gets and what it gives, in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.data.rows import Message
from pipelines.errors import ArtifactError, DataError, UsageError
from pipelines.models.adapters import CONFIG_FILE
from pipelines.models.base import LOADING_ERRORS, explain, quiet
from pipelines.models.generate import pad_left
from pipelines.models.score import pad_right, position_ids

NO_PAD = -1
"""A pad id that no token has: Hugging Face then reads a decoder's score at the last place of the row."""


class EncodedText(NamedTuple):
    """A text as a classifier reads it.

    Attributes:
        ids: token ids, what was cut off left out.
        segments: 0 or 1 for each of them: prompt or completion, where the tokenizer knows pairs.
        length: tokens before anything was cut.
    """

    ids: list[int]
    segments: list[int]
    length: int


class TextClassifier:
    """Dialogues in, logits out.

    The text is the dialogue through the tokenizer's chat template where it has one; else prompt and completion as a
    text pair where the tokenizer knows pairs, else joined by a newline. A text that is too long loses its beginning.

    Attributes:
        name: what errors call it.
        model: as given, in evaluation mode.
        limit: the most tokens a text may have; None: no limit is known.
        takes_segments: whether the model is told which tokens are the prompt's and which the completion's.
        truncated: texts cut so far.
    """

    def __init__(
        self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, limit: int | None = None
    ) -> None:
        """Wrap a model; `limit` lowers what model and tokenizer allow."""
        self.name = name
        self.model = model
        self.truncated = 0
        self.model.eval()  # type: ignore[no-untyped-call]
        self._tokenizer = tokenizer
        tokenizer.truncation_side = "left"  # the answer stands at the end, and a decoder is read there
        self.limit = min((n for n in (limit, longest_input(model, tokenizer)) if n is not None), default=None)
        self._takes_pairs = tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add()
        parameters = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in parameters
        # a decoder reads its score at the last token that is not the pad id; its `score` head tells it apart
        self._is_decoder = hasattr(model, "score")
        self.takes_segments = not self._is_decoder and "token_type_ids" in parameters
        if self._is_decoder and model.config.get_text_config().pad_token_id is None:
            model.config.get_text_config().pad_token_id = NO_PAD

    def encode(self, prompt: Sequence[Message], completion: str) -> EncodedText:
        """One dialogue with its answer, cut to `limit`; counts the cut ones in `truncated`.

        Raises:
            DataError: the chat template refuses the dialogue, or nothing is left of the text.
        """
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
        encode: dict[str, Any] = {"add_special_tokens": special, "return_token_type_ids": True, "verbose": False}
        encoded = tokenizer(text, pair, **encode)
        length = len(encoded["input_ids"])
        if self.limit is not None and length > self.limit:
            self.truncated += 1
            encoded = tokenizer(text, pair, truncation="longest_first", max_length=self.limit, **encode)
        if not encoded["input_ids"]:
            raise DataError(f"the classifier {self.name} got an empty text to score")
        return EncodedText(encoded["input_ids"], encoded["token_type_ids"], length)

    def inputs(self, rows: Sequence[EncodedText], device: torch.device | str) -> dict[str, Tensor]:
        """What the model's forward takes, each [B, longest], in training as in scoring.

        A row gets what it gets alone: masks come from lengths, positions from the row's own tokens.
        """
        ids, mask = (pad_left if self._is_decoder else pad_right)([row.ids for row in rows], device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._is_decoder and self._takes_positions:
            inputs["position_ids"] = position_ids(mask)
        if self.takes_segments:
            inputs["token_type_ids"] = pad_right([row.segments for row in rows], device)[0]
        return inputs

    def logits(self, rows: Sequence[EncodedText]) -> Tensor:
        """[B, classes]."""
        device = next(self.model.parameters()).device
        return self.model(**self.inputs(rows, device)).logits  # type: ignore[no-any-return]

    @torch.no_grad()
    def all_logits(
        self, rows: Sequence[EncodedText], batch_size: int, progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """[rows, classes] in fp32 on the CPU, in the order of `rows`; texts of similar length go together.

        Args:
            rows: as `encode` gives them, at least one.
            batch_size: rows in one forward.
            progress: called with the number of rows of each forward.
        """
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
        parts = []
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            parts.append(self.logits([rows[index] for index in chosen]).float().cpu())
            if progress is not None:
                progress(len(chosen))
        found = torch.cat(parts)
        return found[torch.tensor(order).argsort()]


def load_text_classifier(
    path: str, device: torch.device, *, revision: str | None = None, new_head: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with one label in fp32, and its tokenizer; code of its repository is never run.

    Args:
        path: hub id or directory.
        device: where to put it.
        revision: commit of the hub repository.
        new_head: head and pooler may be missing or of another size, and are then drawn at random.

    Raises:
        ArtifactError: the files are damaged or lack weights.
        HubError: the hub cannot be reached or refuses.
        UsageError: an adapter, or not a model that can be a sequence classifier.
    """
    if (Path(path) / CONFIG_FILE).is_file():
        raise UsageError("this is an adapter, not a whole model", where=path, hint="merge it into its base first")
    kwargs: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(path, **kwargs)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                path,
                num_labels=1,
                dtype=torch.float32,
                ignore_mismatched_sizes=new_head,
                output_loading_info=True,
                **kwargs,
            )
            model = model.to(device)
    except LOADING_ERRORS as error:
        raise explain(error, path, revision) from error
    # a mismatched key comes with its two shapes
    lost = {*info["missing_keys"], *(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])}
    trunk = f"{model.base_model_prefix}."
    if new_head:  # pretraining leaves head and pooler out; a trunk without weights would train from nothing
        lost = {key for key in lost if key.startswith(trunk) and not key.startswith(f"{trunk}pooler.")}
    if lost:
        raise ArtifactError(
            f"the model's files lack {len(lost)} of its weights: {', '.join(sorted(lost)[:3])}", where=path
        )
    return model.eval(), tokenizer


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
