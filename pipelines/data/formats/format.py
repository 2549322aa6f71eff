"""Base classes of the row formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, TypeVar, cast

from pydantic import model_validator

from pipelines.data.faults import Fault
from pipelines.data.formats.transcripts import answer_alone, open_transcript
from pipelines.data.formats.turns import Tools, system_turn
from pipelines.data.formats.unread_columns import CONTEXT, MEDIA, VERDICTS, is_judged, placed_media, unread
from pipelines.data.rows import CanonicalRow, Demonstration, Lenient, Message

Kind = TypeVar("Kind", bound=CanonicalRow)
_ANSWERS = ("chosen", "rejected", "completion", "response", "responses")
_WORDS = {str: "text", list: "list", dict: "object", bool: "true/false", int: "number", float: "number"}
TEXT, LIST, FLAG, NUMBER = (str,), (list,), (bool,), (int, float)


class Format(Lenient):
    """One accepted layout of a row; an instance is a row that fits it.

    Attributes:
        name: what `format:` in a source calls it.
        shape: the columns that tell it from other formats, and the types of their values.
        unless: columns whose presence means that it is another format.
        holds: the canonical kinds its rows can become, the richest that a row holds.
        of_texts: makes the row of the texts in the columns of the shape, none of them blank; None: they are no texts.
        tools: what the dialogue may call; any row may have it.
        system: text of the system turn; any row may have it.
    """

    name: ClassVar[str]
    shape: ClassVar[Mapping[str, tuple[type, ...]]]
    unless: ClassVar[tuple[str, ...]] = ()
    holds: ClassVar[tuple[type[CanonicalRow], ...]]
    of_texts: ClassVar[Callable[..., CanonicalRow] | None] = None
    tools: Tools = None
    system: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _answers_alone(cls, row: Any) -> Any:
        """Take off what belongs to a transcript in `prompt`: its repetition before an answer, and blanks around one."""
        prompt = row.get("prompt") if isinstance(row, dict) else None
        if not isinstance(prompt, str) or open_transcript(prompt) is None:
            return row
        return {**row, **{name: answer_alone(prompt, row[name]) for name in _ANSWERS if name in row}}

    def canonical(self) -> CanonicalRow:
        """The row as the richest canonical kind, without the columns `system` and `tools`.

        Raises:
            ValueError: the turns do not make such a row (pydantic's ValidationError is one).
        """
        raise NotImplementedError

    def rows(self) -> tuple[CanonicalRow, ...]:
        """All canonical rows that the row gives: one, except where it holds a list of answers; errors as above."""
        return (self.completed(self.canonical()),)

    @classmethod
    def quick(cls, row: Mapping[str, Any]) -> CanonicalRow | None:
        """Convert a row of plain, valid texts fast; None: the row needs `rows`, which gives the same for such rows.

        Only the long way says what is wrong with a row.
        """
        texts = None if cls.of_texts is None else _plain_texts(cls, row)
        return None if cls.of_texts is None or texts is None else cls.of_texts(*texts)

    def completed(self, row: Kind) -> Kind:
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
        return cast("Kind", row.model_copy(update={column: turns}))

    def prompts(self) -> tuple[CanonicalRow, ...]:
        """The rows where prompts alone are needed: those of `rows`, and those of a row with a prompt and no more."""
        return self.rows()

    @classmethod
    def settled(cls, rows: Sequence[Mapping[str, Any]], meanings: Mapping[str, int]) -> type[Format]:
        """The format as it reads a source, by its first rows and the numbers of the answers that its verdicts mean."""
        return cls

    @classmethod
    def unread(cls, row: Mapping[str, Any]) -> Fault | None:
        """Name a column that this format does not read and that would change the meaning of the row."""
        watched = _watched(cls)
        fault = None if watched.isdisjoint(row) else unread(row, watched)
        return fault or placed_media(row, column_names(cls))

    @classmethod
    def likeness(cls, row: Mapping[str, Any]) -> int:
        """Count the columns of the shape that have the right type; -1: one is missing or contradicts the format."""
        if any(row.get(column) is not None for column in cls.unless):
            return -1
        if _imitates(cls) and is_judged(row):
            return -1
        if any(column not in row for column in cls.shape):
            return -1
        # NaN is no value
        return sum(type(row[column]) in types and row[column] == row[column] for column, types in cls.shape.items())

    @classmethod
    def seen_in(cls, row: Mapping[str, Any]) -> str:
        """Columns that tell the format of a row, for messages."""
        return ", ".join(cls.shape)

    @classmethod
    def described(cls) -> str:
        """Name and shape, for messages."""
        columns = [f"{name} ({_in_words(kinds)})" for name, kinds in cls.shape.items()]
        return f"{cls.name}: {', '.join(columns)}"


def _plain_texts(layout: type[Format], row: Mapping[str, Any]) -> list[Any] | None:
    """The texts in the columns of the shape, none of them blank; None where the format reads more in the row.

    Python's blanks are Unicode's and four more, so what is not blank here is not blank to pydantic either.
    """
    if not beside_the_shape(layout).isdisjoint(row):
        return None
    texts = [row.get(name) for name in layout.shape]
    for text in texts:
        if type(text) is not str or not text or text.isspace():
            return None
    return None if "Assistant:" in str(texts[0]) else texts  # it may be a transcript


def column_names(layout: type[Format]) -> frozenset[str]:
    """Every column that the format reads."""
    return frozenset(field.alias or name for name, field in layout.model_fields.items())


@cache
def beside_the_shape(layout: type[Format]) -> frozenset[str]:
    """The further columns that a format reads."""
    return column_names(layout) - layout.shape.keys()


@cache
def _watched(layout: type[Format]) -> frozenset[str]:
    return frozenset(CONTEXT + MEDIA + (VERDICTS if _imitates(layout) else ())) - column_names(layout)


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
