"""Answers that somebody judged: the canonical judgement, and the layouts of KTO data."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator
from typing_extensions import override

from pipelines.data.faults import type_name
from pipelines.data.formats.alpaca import Instruction
from pipelines.data.formats.base import (
    FLAG,
    LIST,
    NUMBER,
    TEXT,
    Answer,
    Format,
    Question,
    Turns,
    answer_text,
    columns,
    messages_of,
    plain_answer,
)
from pipelines.data.formats.sharegpt import Conversations
from pipelines.data.rows import Judgement, Message


def _flag_or_number(value: Any) -> Any:
    if not isinstance(value, bool | int | float):
        raise ValueError(f"must be true, false or a number, not {type_name(value)}")
    return value


class Judged(Format):
    """Who judged, and where it is from."""

    annotator: str | None = None
    source: str | None = None

    def judgement(self, prompt: tuple[Message, ...], completion: str, label: bool | float) -> Judgement:
        """The canonical judgement."""
        return Judgement(
            prompt=prompt, completion=completion, label=label, annotator=self.annotator, source=self.source
        )

    def of_dialogue(self, messages: tuple[Message, ...], label: bool | float) -> Judgement:
        """The judgement of a dialogue's last turn.

        Raises:
            ValueError: it is not the assistant's.
        """
        if not messages or messages[-1].role != "assistant":
            raise ValueError("the last turn, which the label judges, is not the assistant's")
        return self.judgement(messages[:-1], plain_answer("the last turn", messages[-1]), label)


class JudgementRow(Judged):
    """The canonical judgement: a dialogue, one text, and what somebody thought of it as true/false or a number."""

    name = "judgement"
    shape = columns(prompt=LIST, completion=TEXT, label=FLAG + NUMBER)
    holds = (Judgement,)
    prompt: Turns
    completion: str
    label: Annotated[bool | float, BeforeValidator(_flag_or_number)]

    @override
    def canonical(self) -> Judgement:
        return self.judgement(messages_of(self.prompt), self.completion, self.label)


class Kto(Judged):
    """A prompt, an answer, each a text or turns, and whether the answer is good."""

    name = "kto"
    shape = columns(prompt=TEXT + LIST, completion=TEXT + LIST, label=FLAG)
    unless = ("chosen", "rejected")
    holds = (Judgement,)
    prompt: Question
    completion: Answer
    label: bool

    @override
    def canonical(self) -> Judgement:
        return self.judgement(messages_of(self.prompt), answer_text("completion", self.completion), self.label)


class MessagesKto(Judged):
    """A dialogue, and whether its last turn is good."""

    name = "messages_kto"
    shape = columns(messages=LIST, label=FLAG)
    unless = ("chosen", "rejected")
    holds = (Judgement,)
    messages: Turns
    label: bool

    @override
    def canonical(self) -> Judgement:
        return self.of_dialogue(messages_of(self.messages), self.label)


class ShareGPTKto(Conversations, Judged):
    """A ShareGPT dialogue, and whether its last turn is good."""

    name = "sharegpt_kto"
    shape = columns(conversations=LIST, label=FLAG)
    unless = ("chosen", "rejected")
    holds = (Judgement,)
    label: bool

    @override
    def canonical(self) -> Judgement:
        return self.of_dialogue(self.messages(), self.label)


class AlpacaKto(Instruction, Judged):
    """An instruction, its answer, and whether the answer is good."""

    name = "alpaca_kto"
    shape = columns(instruction=TEXT, output=TEXT, label=FLAG)
    unless = ("chosen", "rejected")
    holds = (Judgement,)
    output: str
    label: bool

    @override
    def canonical(self) -> Judgement:
        return self.judgement(self.prompt(), self.output, self.label)
