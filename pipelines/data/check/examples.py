"""A few rows as a person, or as the model, sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipelines.data.check.scan import answers_of
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Message


@dataclass(frozen=True)
class Piece:
    """A part of an example; `trained` where the model learns from it: by imitation, or as an answer that is scored."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Example:
    """One row.

    Attributes:
        place: where it stands.
        parts: what it is shown as, by name: the dialogue, or the chosen and the rejected one.
    """

    place: str
    parts: dict[str, tuple[Piece, ...]]


def as_dialogue(place: str, row: CanonicalRow) -> Example:
    """The turns as they are, each with its role."""
    if isinstance(row, Demonstration):
        shown = row.text if row.text is not None else _turns(row.messages)
        return Example(place, {"text" if row.text is not None else "dialogue": (Piece(shown, False),)})
    prompt = _turns(row.prompt)
    return Example(place, {name: (Piece(f"{prompt}{end}", False),) for name, end in _endings(row)})


def as_model_input(place: str, row: CanonicalRow, encoder: Any, tokenizer: Any, train_on: Any) -> Example:
    """The tokens as text, through the chat template.

    Args:
        place: where the row stands.
        row: any row.
        encoder: a ChatEncoder.
        tokenizer: the encoder's.
        train_on: as `sft.train_on`.

    Raises:
        DataError: the row cannot be encoded.
    """
    if isinstance(row, Demonstration):
        ids, labels = encoder.demonstration(row, train_on)
        marks = [label >= 0 for label in labels]
        return Example(place, {"dialogue": _pieces(tokenizer, ids, marks)})
    prompt = encoder.prompt(row.prompt)
    names = ("chosen", "rejected") if isinstance(row, Comparison) else ("answer",)
    parts = {}
    for name, answer in zip(names, answers_of(row), strict=False):
        ids = encoder.answer(row.prompt, answer)
        parts[name] = _pieces(tokenizer, prompt + ids, [False] * len(prompt) + [True] * len(ids))
    return Example(place, parts or {"prompt": _pieces(tokenizer, prompt, [False] * len(prompt))})


def _endings(row: CanonicalRow) -> list[tuple[str, str]]:
    """What follows the prompt, by the name it is shown under."""
    names = ("chosen", "rejected") if isinstance(row, Comparison) else ("dialogue",)
    return [(name, f"\nassistant: {answer}") for name, answer in zip(names, answers_of(row), strict=False)] or [
        ("prompt", "")
    ]


def _turns(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def _pieces(tokenizer: Any, ids: Sequence[int], marks: Sequence[bool]) -> tuple[Piece, ...]:
    """Neighboring tokens that are alike in one piece."""
    return tuple(
        Piece(tokenizer.decode([token for token, _ in group], clean_up_tokenization_spaces=False), marked)
        for marked, group in groupby(zip(ids, marks, strict=True), key=lambda pair: pair[1])
    )
