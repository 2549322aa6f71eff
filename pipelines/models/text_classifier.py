"""A sequence classifier on text with its own tokenizer: encoding, padding, logits and loading."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pipelines.data.chat import rendered
from pipelines.data.rows import Message, as_dict
from pipelines.errors import ArtifactError, DataError, UsageError
from pipelines.models.base_fit import check_vocabulary, refuse_adapter_files
from pipelines.models.base_model import LOADING_ERRORS, explain, quiet
from pipelines.models.own_head import provide_classifier
from pipelines.models.sequence_scores import pad_left, pad_right, position_ids
from pipelines.models.tokenizer import set_day

Pad = Callable[[Sequence[Sequence[int]], torch.device | str], tuple[Tensor, Tensor]]
EXACT, ROUNDED = 1e-3, 0.2
"""Maximum difference between the logits of a padded row and of the row alone: in fp32, and in 16-bit floats."""
_OTHER_TASK = re.compile(r"For(?!.*(Sequence|Reward))")
"""Names of classes with a head for something else: LlamaForTokenClassification, BertForMultipleChoice."""
_PROBE = "probe"
NO_PAD = -1
"""A pad id that no token has: Hugging Face then reads a decoder's score at the last place of the row."""


class EncodedText(NamedTuple):
    """A text as a classifier reads it: ids after any cut, and the number of tokens before.

    `segments`: 0 or 1 for each id, prompt or completion, where the tokenizer knows pairs.
    """

    ids: list[int]
    segments: list[int]
    length: int


class TextClassifier:
    """Computes logits of dialogues.

    The text is the dialogue through the tokenizer's chat template where it has one; else prompt and completion as a
    text pair where the tokenizer knows pairs, else joined by a newline. A text that is too long loses its beginning.

    Attributes:
        limit: maximum tokens of a text; None: no limit is known.
        takes_segments: whether the model gets segments, which tell the tokens of the prompt from the completion's.
        truncated: number of texts cut so far.
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
        # a model that could take them may have been trained without: the tokenizer knows
        known = "token_type_ids" in tokenizer.model_input_names
        self.takes_segments = known and not self._is_decoder and "token_type_ids" in parameters
        if self._is_decoder and model.config.get_text_config().pad_token_id is None:
            model.config.get_text_config().pad_token_id = NO_PAD
        self._pad = self._padding_that_changes_nothing()

    @property
    def one_by_one(self) -> bool:
        """Whether padding on either side changes its scores (FNet takes no mask), so that it gets no batches."""
        return self._pad is None

    def encode(self, prompt: Sequence[Message], completion: str, *, finished: bool = True) -> EncodedText:
        """Encode one dialogue with its answer, cut to `limit`; cut texts are counted in `truncated`.

        An answer that is not finished has no end: nothing of the template stands after it, and a decoder reads no EOS.
        Without a prompt the answer is read alone.

        Raises:
            DataError: the chat template refuses the dialogue, or nothing is left of the text.
        """
        tokenizer, text, pair, special = self._tokenizer, "", None, True
        if tokenizer.chat_template is not None:
            text, special = self._written(prompt, completion), False  # the template contains the special tokens
            text = text if finished else self._unclosed(prompt, completion, text)
        else:
            text = "\n".join(_as_text(turn) for turn in prompt)
            if not prompt:
                text = completion
            elif self._takes_pairs:
                pair = completion
            else:
                text = f"{text}\n{completion}"
        encoded = self._encoded(text, pair, special=special)
        self.truncated += encoded.length > len(encoded.ids)
        if not finished and self._is_decoder and encoded.ids[-1:] == [tokenizer.eos_token_id]:
            encoded = EncodedText(encoded.ids[:-1], encoded.segments[:-1], encoded.length - 1)
        if not encoded.ids:
            raise DataError(f"the classifier {self.name} got an empty text to score")
        return encoded

    def _unclosed(self, prompt: Sequence[Message], completion: str, written: str) -> str:
        """Take off what the template writes after the last turn."""
        before = self._written(prompt, _PROBE).rpartition(_PROBE)[0]
        said = written.removeprefix(before)
        # a template may trim what a turn says
        forms = (completion, completion.rstrip(), completion.strip())
        return before + next((form for form in forms if said.startswith(form)), completion)

    def _written(self, prompt: Sequence[Message], completion: str) -> str:
        """Render the dialogue by the chat template."""
        messages = (*prompt, Message(role="assistant", content=completion))
        turns = [{key: value for key, value in as_dict(turn).items() if key != "tools"} for turn in messages]
        try:
            return rendered(self._tokenizer, messages, turns)
        except DataError as error:
            raise DataError(
                f"the classifier {self.name}: {error.message}",
                where=", ".join(turn.role for turn in messages),
                hint="score it with a model whose chat template can write it, or leave such dialogues out",
            ) from error

    def _encoded(self, text: str, pair: str | None, *, special: bool) -> EncodedText:
        encode: dict[str, Any] = {"add_special_tokens": special, "return_token_type_ids": True, "verbose": False}
        encoded = self._tokenizer(text, pair, **encode)
        length = len(encoded["input_ids"])
        if self.limit is not None and length > self.limit:
            encoded = self._tokenizer(text, pair, truncation="longest_first", max_length=self.limit, **encode)
        return EncodedText(encoded["input_ids"], encoded["token_type_ids"], length)

    def inputs(self, rows: Sequence[EncodedText], device: torch.device | str) -> dict[str, Tensor]:
        """Inputs of the model's forward, each [B, longest], in training as in scoring.

        A row has the same inputs as alone: masks come from lengths, positions from the row's own tokens.
        """
        pad = self._pad
        if pad is None:
            if len({len(row.ids) for row in rows}) > 1:
                raise UsageError(
                    f"the scores of the classifier {self.name} change with padding, so it takes no batches",
                    where=type(self.model).__name__,
                    hint="it can score one text at a time, but cannot be trained: choose another base",
                )
            pad = pad_right
        return self._padded(rows, pad, device)

    def _padded(self, rows: Sequence[EncodedText], pad: Pad, device: torch.device | str) -> dict[str, Tensor]:
        ids, mask = pad([row.ids for row in rows], device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._is_decoder and self._takes_positions:
            inputs["position_ids"] = position_ids(mask)
        if self.takes_segments:
            inputs["token_type_ids"] = pad([row.segments for row in rows], device)[0]
        return inputs

    @torch.no_grad()
    def _padding_that_changes_nothing(self) -> Pad | None:
        """Padding, left or right, that does not change the scores of a short row beside a long one; None: both do.

        This is measured: most encoders read their first position and most decoders their last, but XLNet reads the last
        position of all, FNet takes no mask, and CTRL takes no batches at all.
        """
        device = next(self.model.parameters()).device
        short, long = (self._encoded(text, None, special=True) for text in ("one", "two three four " * 8))
        for pad in (pad_left, pad_right) if self._is_decoder else (pad_right, pad_left):
            try:
                alone, beside = (
                    self.model(**self._padded(rows, pad, device)).logits[0].float() for rows in ([short], [short, long])
                )
            except (ValueError, IndexError, RuntimeError):
                continue
            tolerance = EXACT if self.model.dtype == torch.float32 else ROUNDED
            if torch.allclose(alone, beside, rtol=tolerance, atol=tolerance, equal_nan=True):
                return pad
        return None

    def logits(self, rows: Sequence[EncodedText]) -> Tensor:
        """Logits [B, classes]."""
        device = next(self.model.parameters()).device
        return self.model(**self.inputs(rows, device)).logits  # type: ignore[no-any-return]

    @torch.no_grad()
    def all_logits(
        self, rows: Sequence[EncodedText], batch_size: int, progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """Logits [rows, classes] in fp32 on the CPU, in the order of `rows`; texts of similar length share a batch.

        The batch size is that of a forward pass; see `one_by_one`. `progress` gets the number of rows of each.
        """
        batch_size = 1 if self.one_by_one else batch_size
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
        parts = []
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            parts.append(self.logits([rows[index] for index in chosen]).float().cpu())
            if progress is not None:
                progress(len(chosen))
        return torch.cat(parts)[torch.tensor(order).argsort()]


def load_text_classifier(
    path: str,
    device: torch.device,
    *,
    revision: str | None = None,
    labels: int | None = 1,
    dtype: torch.dtype | str = torch.float32,
    new_head: bool = False,
    date: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence classifier in evaluation mode, and its tokenizer; code of its repository is never run.

    Args:
        labels: number of labels that it must have; None: that of its files.
        dtype: precision of its weights; ``auto``: that of its files.
        new_head: whether head and pooler may be missing, of another size or of another task; they are then drawn at
            random.
        date: day that its chat template writes, as `run.date`; None: that of today.

    Raises:
        ArtifactError: the files are damaged, lack weights, or hold a model of another task.
        HubError: the hub cannot be reached or refuses.
        UsageError: the files hold an adapter, or a model that cannot be a sequence classifier.
    """
    refuse_adapter_files(path, revision)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
            model, lost = open_weights(path, device, revision=revision, labels=labels, dtype=dtype, new_head=new_head)
    except LOADING_ERRORS as error:
        raise explain(error, path, revision) from error
    if new_head:  # pretraining leaves head and pooler out; a trunk without weights would train from nothing
        trunk = f"{model.base_model_prefix}."
        lost = {key for key in lost if key.startswith(trunk) and not key.startswith(f"{trunk}pooler.")}
    refuse_lost(path, lost)
    check_vocabulary(model, tokenizer)
    set_day(tokenizer, date)
    return model, tokenizer  # in evaluation mode, as from_pretrained leaves it


def open_weights(
    path: str,
    device: torch.device,
    *,
    revision: str | None,
    labels: int | None,
    dtype: torch.dtype | str,
    new_head: bool,
) -> tuple[PreTrainedModel, set[str]]:
    """Load the model, and give the names of weights that its files lack or have in another size.

    Args: see `load_text_classifier`.

    Raises:
        ArtifactError: the files hold a model of another task, whose head would be read as if it were this one.
        Exception: one of `LOADING_ERRORS`.
    """
    provide_classifier(AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False))
    model, info = AutoModelForSequenceClassification.from_pretrained(
        path,
        revision=revision,
        trust_remote_code=False,
        dtype=dtype,
        ignore_mismatched_sizes=new_head,
        output_loading_info=True,
        **({} if labels is None else {"num_labels": labels}),
    )
    # a mismatched key comes with its two shapes
    lost = {*info["missing_keys"], *(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])}
    if not new_head and not lost:
        _refuse_other_task(path, model, info["unexpected_keys"])
    return model.to(device), lost


def _refuse_other_task(path: str, model: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Refuse files that have every weight, and still hold a tagger or a multiple-choice model."""
    heads = {name for name, _ in model.named_children()} - {model.base_model_prefix}
    left = sorted(key for key in unexpected if key.partition(".")[0] in heads)
    saved_as = [name for name in model.config.architectures or [] if _OTHER_TASK.search(name)]
    if left or saved_as:
        reason = f"they were saved as {saved_as[0]}" if saved_as else f"their head also has {', '.join(left[:3])}"
        raise ArtifactError(
            f"the files do not hold a {type(model).__name__}: {reason}",
            where=path,
            hint="name a model that was saved as a sequence classifier",
        )


def refuse_lost(path: str, lost: Collection[str]) -> None:
    """Refuse a model that lacks weights.

    Raises:
        ArtifactError: `lost` is not empty.
    """
    if lost:
        raise ArtifactError(
            f"the model's files lack {len(lost)} of its weights: {', '.join(sorted(lost)[:3])}",
            where=path,
            hint="name a model that was saved as a sequence classifier, with its trained head",
        )


def _as_text(turn: Message) -> str:
    """Text of a turn without a template: its content, and calls of tools as JSON."""
    calls = [json.dumps(call, ensure_ascii=False) for call in turn.tool_calls or ()]
    return "\n".join([*([turn.content] if turn.content or not calls else []), *calls])


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Maximum number of tokens by tokenizer and position embeddings; None: no limit is known."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 10**9 else []
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its relatives count positions from their pad id on, which leaves so many fewer
        tables = [table for part, table in model.named_modules() if part.endswith("position_embeddings")]
        padding = [getattr(table, "padding_idx", None) for table in tables]
        limits.append(positions - max((index + 1 for index in padding if index is not None), default=0))
    return min(limits, default=None)
