"""What a format is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from pipelines.data.faults import Fault, type_name
from pipelines.data.formats.tools import ToolCalls, Tools
from pipelines.data.formats.unread import CONTEXT, VERDICTS, is_judged, unread
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
        system: text of the system turn; any row may have it.
    """

    name: ClassVar[str]
    shape: ClassVar[Mapping[str, tuple[type, ...]]]
    unless: ClassVar[tuple[str, ...]] = ()
    holds: ClassVar[tuple[type[CanonicalRow], ...]]
    tools: Tools = None
    system: str | None = None

    def canonical(self) -> CanonicalRow:
        """The row as the richest canonical kind, without the columns `system` and `tools`.

        Raises:
            ValueError: the turns do not make such a row (pydantic's ValidationError is one).
        """
        raise NotImplementedError

    def rows(self) -> tuple[CanonicalRow, ...]:
        """All canonical rows that the row gives: one, except where it holds a list of answers.

        Raises:
            ValueError: as for `canonical` and `completed`.
        """
        return (self.completed(self.canonical()),)

    @classmethod
    def quick(cls, row: Mapping[str, Any]) -> CanonicalRow | None:
        """What `rows` gives for a row of plain, good texts, which most rows are; None: it takes the long way.

        Only the long way says what is wrong with a row.
        """
        return None

    def completed(self, row: CanonicalRow) -> CanonicalRow:
        """The same row with the column `system` as its first turn, and the column `tools` on its first turn.

        Raises:
            ValueError: the row has no turn, or its first turn has other tools or another system text.
        """
        system = system_turn(self.system)
        if not system and not self.tools:
            return row
        column = "messages" if isinstance(row, Demonstration) else "prompt"
        turns: tuple[Message, ...] = getattr(row, column)
        if not turns:
            raise ValueError(f"a text as it is can have no {'system turn' if system else 'tools'}")
        if system:
            turns = _with_system(turns, *system)
        if self.tools:
            if turns[0].tools:
                raise ValueError("tools stand in their column and on the first turn")
            turns = _with_tools(turns, tuple(self.tools))
        return row.model_copy(update={column: turns})

    @classmethod
    def unread(cls, row: Mapping[str, Any]) -> Fault | None:
        """What the row says and this format does not read, where that would change what the row means."""
        watched = _watched(cls)
        return None if watched.isdisjoint(row) else unread(row, watched)

    @classmethod
    def likeness(cls, row: Mapping[str, Any]) -> int:
        """How many columns of the shape have the right type; -1 where one is missing or speaks against it."""
        if any(row.get(column) is not None for column in cls.unless):
            return -1
        if _imitates(cls) and is_judged(row):
            return -1
        if any(column not in row for column in cls.shape):
            return -1
        return sum(type(row[column]) in types for column, types in cls.shape.items())

    @classmethod
    def described(cls) -> str:
        """Name and shape, for messages."""
        columns = [f"{name} ({_in_words(kinds)})" for name, kinds in cls.shape.items()]
        return f"{cls.name}: {', '.join(columns)}"


def plain_texts(layout: type[Format], row: Mapping[str, Any]) -> list[Any] | None:
    """The texts in the columns of the shape, none of them blank; None where the format reads more in the row.

    Python's blanks are Unicode's and four more, so what is not blank here is not blank to pydantic either.
    """
    if not beside_the_shape(layout).isdisjoint(row):
        return None
    texts = [row.get(name) for name in layout.shape]
    for text in texts:
        if type(text) is not str or not text or text.isspace():
            return None
    return texts


def column_names(layout: type[Format]) -> frozenset[str]:
    """Every column that the format reads."""
    return frozenset(field.alias or name for name, field in layout.model_fields.items())


@cache
def beside_the_shape(layout: type[Format]) -> frozenset[str]:
    """The further columns that a format reads."""
    return column_names(layout) - layout.shape.keys()


@cache
def _watched(layout: type[Format]) -> frozenset[str]:
    return frozenset(CONTEXT + (VERDICTS if _imitates(layout) else ())) - column_names(layout)


def _imitates(layout: type[Format]) -> bool:
    """Whether its answers are imitated. A text as it is answers nothing, so its label says something else."""
    return Demonstration in layout.holds and "text" not in layout.shape


def _with_system(turns: tuple[Message, ...], system: Message) -> tuple[Message, ...]:
    first = turns[0]
    if first.role == "system":
        if first.content.strip() != system.content.strip():
            raise ValueError("the column `system` and the first turn hold different system texts")
        return turns
    if first.tools is None:
        return (system, *turns)
    # Tools of a dialogue stand on its first turn, which is another one now.
    return _with_tools((system, first.model_copy(update={"tools": None}), *turns[1:]), first.tools)


def _with_tools(turns: tuple[Message, ...], tools: tuple[dict[str, Any], ...]) -> tuple[Message, ...]:
    return (turns[0].model_copy(update={"tools": tools}), *turns[1:])


def columns(**types: tuple[type, ...]) -> Mapping[str, tuple[type, ...]]:
    """The shape of a format: column names and the types their values may have."""
    return types


def _in_words(kinds: tuple[type, ...]) -> str:
    return " or ".join(dict.fromkeys(_WORDS[kind] for kind in kinds))


# What other programs write beside the content of a turn, and where it stands here.
_NOT_READ = {
    "reasoning_content": "write it into `content`, as the model is to write it",
    "thinking": "write it into `content`, as the model is to write it",
    "function_call": "write it as `tool_calls`",
}


class ChatMessage(Lenient):
    """A turn as OpenAI and TRL write it; one that calls tools may have no text."""

    role: Role
    content: str
    tools: Tools = None
    tool_calls: ToolCalls = None

    @model_validator(mode="before")
    @classmethod
    def _a_call_needs_no_text(cls, turn: Any) -> Any:
        if not isinstance(turn, dict):
            return turn
        for key, instead in _NOT_READ.items():
            if turn.get(key):
                raise ValueError(f"`{key}` is not read; {instead}")
        if turn.get("weight") not in (None, 1):
            raise ValueError("the weight of a turn is not read; leave out what is not to be imitated")
        if turn.get("tool_calls") and turn.get("content") is None:
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
