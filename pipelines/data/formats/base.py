"""What a format is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from pipelines.data.faults import type_name
from pipelines.data.formats.tools import ToolCalls, Tools
from pipelines.data.rows import CanonicalRow, Demonstration, Message, Role

_WORDS = {str: "text", list: "list", dict: "object", bool: "true/false", int: "number", float: "number"}
TEXT, LIST, FLAG, NUMBER = (str,), (list,), (bool,), (int, float)


class Lenient(BaseModel):
    """Known keys are strict and never coerced; other keys of real files (id, timestamps) are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Format(Lenient):
    """One accepted layout of a row; an instance is a row that fits it.

    Attributes:
        name: what `format:` in a source calls it.
        shape: the columns that tell it from other formats, and the types of their values.
        unless: columns whose presence means that it is another format.
        holds: the canonical kinds its rows can become, the richest that a row holds.
        tools: what the dialogue may call; any row may have it.
    """

    name: ClassVar[str]
    shape: ClassVar[Mapping[str, tuple[type, ...]]]
    unless: ClassVar[tuple[str, ...]] = ()
    holds: ClassVar[tuple[type[CanonicalRow], ...]]
    tools: Tools = None

    def canonical(self) -> CanonicalRow:
        """The row as the richest canonical kind, without the column `tools`.

        Raises:
            ValueError: the turns do not make such a row (pydantic's ValidationError is one).
        """
        raise NotImplementedError

    def rows(self) -> tuple[CanonicalRow, ...]:
        """All canonical rows that the row gives: one, except where it holds a list of answers.

        Raises:
            ValueError: as for `canonical`; or there are tools and no turn, or two sets of tools.
        """
        return (self.with_tools(self.canonical()),)

    def with_tools(self, row: CanonicalRow) -> CanonicalRow:
        """The same row with the column `tools` on its first turn.

        Raises:
            ValueError: the row has no turn, or its first turn has tools already.
        """
        if not self.tools:
            return row
        column = "messages" if isinstance(row, Demonstration) else "prompt"
        first, *others = getattr(row, column) or (None,)
        if first is None:
            raise ValueError("a text as it is can have no tools")
        if first.tools:
            raise ValueError("tools stand in their column and on the first turn")
        return row.model_copy(
            update={column: (first.model_copy(update={"tools": tuple(self.tools)}), *others)},
        )

    @classmethod
    def likeness(cls, row: Mapping[str, Any]) -> int:
        """How many columns of the shape have the right type; -1 where one is missing or speaks against it."""
        if any(row.get(column) is not None for column in cls.unless):
            return -1
        if is_judged(row) and Demonstration in cls.holds and "text" not in cls.shape:
            return -1  # a text as it is answers nothing, so its label says something else
        if any(column not in row for column in cls.shape):
            return -1
        return sum(type(row[column]) in types for column, types in cls.shape.items())

    @classmethod
    def described(cls) -> str:
        """Name and shape, for messages."""
        columns = [f"{name} ({_in_words(kinds)})" for name, kinds in cls.shape.items()]
        return f"{cls.name}: {', '.join(columns)}"


def columns(**types: tuple[type, ...]) -> Mapping[str, tuple[type, ...]]:
    """The shape of a format: column names and the types their values may have."""
    return types


def _in_words(kinds: tuple[type, ...]) -> str:
    return " or ".join(dict.fromkeys(_WORDS[kind] for kind in kinds))


def is_judged(row: Mapping[str, Any]) -> bool:
    """Whether a `label` (true, "false", 1, 0.5) judges the answer: it must never be taken for one to imitate."""
    label = row.get("label")
    return isinstance(label, bool | int | float) or str(label).strip().lower() in ("true", "false", "0", "1")


class ChatMessage(Lenient):
    """A turn as OpenAI and TRL write it; one that calls tools may have no text."""

    role: Role
    content: str
    tools: Tools = None
    tool_calls: ToolCalls = None

    @model_validator(mode="before")
    @classmethod
    def _a_call_needs_no_text(cls, turn: Any) -> Any:
        if isinstance(turn, dict) and turn.get("tool_calls") and turn.get("content") is None:
            return {**turn, "content": ""}
        return turn

    def message(self) -> Message:
        """The canonical turn."""
        return Message(
            role=self.role, content=self.content, tools=_fixed(self.tools), tool_calls=_fixed(self.tool_calls)
        )


def _fixed(objects: list[dict[str, Any]] | None) -> tuple[dict[str, Any], ...] | None:
    return None if objects is None else tuple(objects)


def _text_by(role: Role) -> BeforeValidator:
    def as_turns(value: Any) -> Any:
        if isinstance(value, str):
            return [{"role": role, "content": value}]
        if not isinstance(value, list):
            raise ValueError(f"must be text or a list of turns, not {type_name(value)}")
        return value

    return BeforeValidator(as_turns)


Turns = list[ChatMessage]
Question = Annotated[Turns, _text_by("user")]
"""Turns, or a text that is one user turn."""
Answer = Annotated[Turns, _text_by("assistant")]
"""Turns, or a text that is one assistant turn."""


def messages_of(turns: Turns) -> tuple[Message, ...]:
    """Turns as canonical ones."""
    return tuple(turn.message() for turn in turns)


def answer_text(column: str, turns: Turns) -> str:
    """The text of an answer that is compared or judged.

    Raises:
        ValueError: it is not one assistant turn, or it calls tools, which nothing here could judge.
    """
    if len(turns) != 1 or turns[0].role != "assistant":
        raise ValueError(f"{column} must be one assistant turn")
    return plain_answer(column, turns[0].message())


def plain_answer(column: str, turn: Message) -> str:
    """The text of an assistant turn.

    Raises:
        ValueError: it calls tools.
    """
    if turn.tool_calls:
        raise ValueError(f"{column} calls tools: only answers in text can be compared or judged")
    return turn.content


def user(text: str) -> Message:
    """A user turn."""
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    """An assistant turn."""
    return Message(role="assistant", content=text)


def system_turn(text: str | None) -> tuple[Message, ...]:
    """A system turn, or nothing where the text is blank."""
    return (Message(role="system", content=text),) if text and text.strip() else ()
