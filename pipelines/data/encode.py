"""Encoding of rows to token ids within a length limit, with counts of what is dropped or cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NotRequired, Protocol, TypedDict, TypeVar

from pipelines.data.chat import NO_LOSS, Ids
from pipelines.data.chat import ChatEncoder as ChatEncoder
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message, Prompt
from pipelines.errors import DataError, UsageError

Overlong = Literal["drop", "cut", "fail"]
MIN_PROMPT_TOKENS = 16


class EncodedDemonstration(TypedDict):
    """Encoded demonstration, as the SFT trainer takes it."""

    input_ids: Ids
    labels: Ids


class EncodedComparison(TypedDict):
    """A pair for the reward trainer, the prompt by itself; `number` is its row's place in the file, from 0."""

    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids
    number: int
    margin: NotRequired[float]


class EncodedJudgement(TypedDict):
    """An answer for a classifier, the prompt by itself."""

    prompt_ids: Ids
    completion_ids: Ids
    label: float


class EncodedPrompt(TypedDict):
    """A prompt for PPO, with its turns for scorers that read text."""

    prompt_ids: Ids
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class LengthReport:
    """Counts of rows by the length limit: used ones, of which some were cut, dropped ones, and those that are refused.

    A refused row cannot be encoded; `longest` are the tokens of the longest row before anything was cut.
    """

    used: int
    dropped: int
    cut: int
    longest: int
    refused: int = 0


class Refusals(Protocol):
    """Decision about rows that the model's template or tokenizer refuses: they end the stage, or are left out."""

    def add(self, name: str, number: int, row: CanonicalRow, error: DataError) -> None:
        """Take note of the row of this number, counted from 1, of the rows called `name`."""

    def settle(self, total: int) -> None:
        """Raise or report what was refused among so many rows."""


Encoded = TypeVar("Encoded")
AnyRow = TypeVar("AnyRow", bound=CanonicalRow)
Fitted = tuple[int, Encoded | None]


def encode_demonstrations(
    rows: Iterable[Demonstration],
    encoder: ChatEncoder,
    max_length: int,
    overlong: Overlong,
    train_on: Literal["all", "last"],
    *,
    name: str = "row",
    refusals: Refusals | None = None,
) -> tuple[list[EncodedDemonstration], LengthReport]:
    """Encode for SFT as `within_length`; `train_on` says which assistant turns carry loss.

    `cut` keeps the first `max_length` tokens; a row with no trained token left is dropped.
    """

    def fit(row: Demonstration) -> Fitted[EncodedDemonstration]:
        ids, labels = encoder.demonstration(row, train_on)
        length = len(ids)
        ids, labels = ids[:max_length], labels[:max_length]
        if all(label == NO_LOSS for label in labels):
            return length, None
        return length, {"input_ids": ids, "labels": labels}

    return within_length(rows, fit, max_length, overlong, name, refusals)


def encode_comparisons(
    rows: Iterable[Comparison],
    encoder: ChatEncoder,
    max_length: int,
    overlong: Overlong,
    *,
    name: str = "row",
    refusals: Refusals | None = None,
) -> tuple[list[EncodedComparison], LengthReport]:
    """Encode for the reward model as `within_length`; the length of a pair is that of the prompt and the longer answer.

    `cut` shortens the prompt from the left and keeps its BOS. Answers are never cut: what was judged is the whole
    answer, and the score is read at its EOS. A pair that would keep fewer than 16 tokens of its prompt is dropped.
    """
    numbers = itertools.count()

    def fit(row: Comparison) -> Fitted[EncodedComparison]:
        number = next(numbers)
        prompt, chosen, rejected = encoder.comparison(row)
        answer = max(len(chosen), len(rejected))
        length, kept = _fit_prompt(prompt, answer, max_length, encoder.bos_id)
        if kept is None:
            return length, None
        encoded: EncodedComparison = {
            **{"prompt_ids": kept, "chosen_ids": chosen, "rejected_ids": rejected, "number": number}
        }
        if row.margin is not None:
            encoded["margin"] = row.margin
        return length, encoded

    return within_length(rows, fit, max_length, overlong, name, refusals)


def encode_judgements(
    rows: Iterable[Judgement],
    encoder: ChatEncoder,
    max_length: int,
    overlong: Overlong,
    *,
    name: str = "row",
    refusals: Refusals | None = None,
) -> tuple[list[EncodedJudgement], LengthReport]:
    """Encode for a classifier; a prompt is cut and a row dropped as by `encode_comparisons`."""

    def fit(row: Judgement) -> Fitted[EncodedJudgement]:
        prompt, answer = encoder.prompt(row.prompt), encoder.answer(row.prompt, row.completion)
        length, kept = _fit_prompt(prompt, len(answer), max_length, encoder.bos_id)
        if kept is None:
            return length, None
        return length, {"prompt_ids": kept, "completion_ids": answer, "label": float(row.label)}

    return within_length(rows, fit, max_length, overlong, name, refusals)


def encode_prompts(
    rows: Iterable[Prompt],
    encoder: ChatEncoder,
    max_prompt_length: int,
    overlong: Overlong = "drop",
    *,
    name: str = "row",
    refusals: Refusals | None = None,
) -> tuple[list[EncodedPrompt], LengthReport]:
    """Encode for PPO as `within_length`. `cut` keeps the first `max_prompt_length` tokens, and the text that they are.

    Raises:
        UsageError: `cut` with a chat template: a cut question is another question, and its answer would never open.
    """
    if overlong == "cut" and encoder.has_template:
        raise UsageError(
            "prompts are cut only where the model continues raw text; with a chat template a cut prompt has no end",
            where="ppo.overlong",
            hint="set ppo.overlong to drop or fail, or model.chat_template to none",
        )

    def fit(row: Prompt) -> Fitted[EncodedPrompt]:
        return _cut_prompt(row.prompt, encoder, max_prompt_length)

    return within_length(rows, fit, max_prompt_length, overlong, name, refusals)


def fit_prompt(
    messages: tuple[Message, ...], encoder: ChatEncoder, limit: int, *, cut: bool = False
) -> EncodedPrompt | None:
    """Encode one prompt; None where it has no tokens, or more than `limit` of them and is not to be cut.

    Raises:
        DataError: the prompt cannot be encoded.
    """
    length, encoded = _cut_prompt(messages, encoder, limit)
    return encoded if length <= limit or cut else None


def _cut_prompt(messages: tuple[Message, ...], encoder: ChatEncoder, limit: int) -> Fitted[EncodedPrompt]:
    """Length of a prompt in tokens, and its first `limit` tokens with the text that they are; None of no tokens."""
    ids = encoder.prompt(messages)
    if not ids:
        return 0, None
    if len(ids) > limit:
        messages = (Message(role="user", content=encoder.decode_prompt(ids[:limit])),)
    return len(ids), {"prompt_ids": ids[:limit], "messages": messages}


def within_length(
    rows: Iterable[AnyRow],
    fit: Callable[[AnyRow], Fitted[Encoded]],
    limit: int | None,
    overlong: Overlong,
    name: str,
    refusals: Refusals | None = None,
) -> tuple[list[Encoded], LengthReport]:
    """Encode rows by the one rule for overlong ones.

    Args:
        fit: a row -> its length in tokens, and what is left of it within the limit (None: nothing that is of use).
        name: what the rows are called in errors, ``name:3`` is the third.
        refusals: decides about rows that cannot be encoded; None: the first of them is an error.

    Raises:
        DataError: a row cannot be encoded, one is too long with `fail`, or none is left.
    """
    kept: list[Encoded] = []
    over: list[int] = []
    total = cut = longest = refused = 0
    for total, row in enumerate(rows, 1):
        try:
            length, encoded = fit(row)
        except DataError as error:
            if refusals is None:
                error.where = f"{name}:{total}"
                raise
            refusals.add(name, total, row, error)
            refused += 1
            continue
        longest = max(longest, length)
        if limit is not None and length > limit:
            over.append(total)
            if overlong != "cut":
                continue
            cut += encoded is not None
        if encoded is not None:
            kept.append(encoded)
    if refusals is not None:
        refusals.settle(total)
    if over and overlong == "fail":
        raise DataError(
            f"{len(over)} of {total} rows are longer than {limit} tokens; the longest has {longest}",
            where=f"{name}:{over[0]}",
            hint="raise the limit, or set overlong to drop or cut",
        )
    if total and not kept:
        raise DataError(
            f"none of the {total} rows fits {limit} tokens; the longest has {longest}"
            + (f", and {refused} cannot be encoded" if refused else ""),
            where=name,
            hint="raise the limit, or set overlong to cut",
        )
    return kept, LengthReport(len(kept), total - len(kept) - refused, cut, longest, refused)


def _fit_prompt(prompt: Ids, answer: int, limit: int, bos: int | None) -> tuple[int, Ids | None]:
    """Tokens of the prompt and an answer of so many, and the prompt within the limit; None: too little is left."""
    room = limit - answer
    fits = room >= min(len(prompt), MIN_PROMPT_TOKENS)
    return len(prompt) + answer, _last(prompt, room, bos) if fits else None


def _last(ids: Ids, room: int, bos: int | None) -> Ids:
    if len(ids) <= room:
        return ids
    if bos is not None and ids[0] == bos:
        return [bos, *ids[len(ids) - room + 1 :]]
    return ids[len(ids) - room :]
