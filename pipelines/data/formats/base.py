"""What a format is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from pipelines.data.rows import CanonicalRow, Demonstration, Message, Role

_WORDS = {str: "text", list: "list", dict: "object", bool: "true/false"}


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
    """

    name: ClassVar[str]
    shape: ClassVar[Mapping[str, tuple[type, ...]]]
    unless: ClassVar[tuple[str, ...]] = ()
    holds: ClassVar[tuple[type[CanonicalRow], ...]]

    def canonical(self) -> CanonicalRow:
        """The row as the richest canonical kind.

        Raises:
            ValueError: the turns do not make such a row (pydantic's ValidationError is one).
        """
        raise NotImplementedError

    @classmethod
    def score(cls, row: Mapping[str, Any]) -> int:
        """How many columns of the shape have the right type; -1 where one is missing or speaks against it."""
        if any(row.get(column) is not None for column in cls.unless):
            return -1
        if is_judged(row) and Demonstration in cls.holds:
            return -1
        if any(column not in row for column in cls.shape):
            return -1
        return sum(type(row[column]) in types for column, types in cls.shape.items())

    @classmethod
    def described(cls) -> str:
        """Name and shape, for messages."""
        columns = [f"{name} ({' or '.join(_WORDS[kind] for kind in kinds)})" for name, kinds in cls.shape.items()]
        return f"{cls.name}: {', '.join(columns)}"


def columns(**types: tuple[type, ...]) -> Mapping[str, tuple[type, ...]]:
    """The shape of a format: column names and the types their values may have."""
    return types


def is_judged(row: Mapping[str, Any]) -> bool:
    """Whether a true/false `label` judges the answer: such an answer must never be taken for one to imitate."""
    return type(row.get("label")) is bool


class ChatMessage(Lenient):
    """A turn as OpenAI and TRL write it. Tool calls are refused, because leaving them out would change the turn."""

    role: Role
    content: str
    tool_calls: None = None

    def message(self) -> Message:
        """The canonical turn."""
        return Message(role=self.role, content=self.content)


def user(text: str) -> Message:
    """A user turn."""
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    """An assistant turn."""
    return Message(role="assistant", content=text)


def system_turn(text: str | None) -> tuple[Message, ...]:
    """A system turn, or nothing where the text is blank."""
    return (Message(role="system", content=text),) if text and text.strip() else ()
