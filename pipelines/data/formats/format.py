"""Base classes of the row formats."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from pipelines.data.faults import Fault, type_name
from pipelines.data.rows import CanonicalRow, Demonstration, Message, Role

Kind = TypeVar("Kind", bound=CanonicalRow)
CONTEXT = ("history", "input", "context")
"""Parts of the question."""
VERDICTS = (
    *("label", "score", "kto_tag", "tag", "rating", "reward", "rank", "preference", "feedback", "winner", "better"),
    *("verdict", "vote", "thumbs", "liked", "upvoted", "quality", "grade"),
)
"""Names of columns in which an annotator judges the answer. `label` and `score` are those that formats read."""
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
"""Names of columns that hold what is not text."""
_VERDICT_WORDS = frozenset(
    (
        *("good", "bad", "true", "false", "yes", "no", "like", "dislike", "liked", "disliked", "up", "down", "upvote"),
        *("downvote", "positive", "negative", "chosen", "rejected", "accepted", "better", "worse", "tie", "a", "b"),
    )
)


def is_judged(row: Mapping[str, Any]) -> bool:
    """Whether a column judges the answer: it must never be taken for one to imitate."""
    return any(judges(name, row.get(name)) for name in VERDICTS)


def judges(name: str, value: Any) -> bool:
    """Whether a value in a column of `VERDICTS` is a verdict; under most names a longer text may be something else."""
    if name == "label":
        return _is_set(value)
    if name == "score" or not isinstance(value, str):
        return _is_number(value)
    return value.strip().lower() in _VERDICT_WORDS or _is_number(value)


def unread(row: Mapping[str, Any], watched: Collection[str]) -> Fault | None:
    """The first of these columns that says something.

    Args:
        row: under canonical names.
        watched: those of `CONTEXT`, `VERDICTS` and `MEDIA` that the format of the row does not read.
    """
    for name in MEDIA:
        if name in watched and _holds_media(row.get(name)):
            return Fault(name, _NO_TEXT, way_out(name))
    for name in VERDICTS:
        if name in watched and judges(name, row.get(name)):
            return Fault(name, "judges the answer, which would be imitated all the same", way_out(name))
    for name in CONTEXT:
        if name in watched and _is_set(row.get(name)):
            return Fault(name, "is no column of the format, so it would be left out of the question", way_out(name))
    return None


_NO_TEXT = "is not text, and nothing else is read"
_MEDIUM = re.compile("image|audio|video", re.IGNORECASE)


def names_a_medium(name: str) -> bool:
    """Whether a column of this name may hold images, audio or video, or say where they are."""
    return _MEDIUM.search(name) is not None


@lru_cache(maxsize=256)
def _names_of_media(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if names_a_medium(name))


def _placed_media(row: Mapping[str, Any], read: Collection[str]) -> Fault | None:
    """A column with the name of a medium that a placeholder in another column, such as ``<image>``, stands for."""
    for name in _names_of_media(tuple(row)):
        placeholder = f"<{_MEDIUM.findall(name)[0].lower()}>"
        if name in read or not _holds_media(row[name]):
            continue
        if any(placeholder in str(value) for other, value in row.items() if other != name):
            return Fault(name, f"stands for {placeholder} in the text, and only text is read", way_out(name))
    return None


def _holds_media(value: Any) -> bool:
    """Whether there are any; a table writes an empty list as text, and a missing image as an object of nulls."""
    if isinstance(value, dict | list):
        return any(map(_holds_media, value.values() if isinstance(value, dict) else value))
    return bool(value) and value != "[]" and _is_set(value)


def way_out(name: str) -> str:
    """Return the hint how to declare that a column means something else."""
    read = f"to read it: `--columns label={name}`; " if name in VERDICTS[2:] else ""
    return f"{read}where it need not be read: `--columns {name}=` (in a configuration columns: {{{name}: ''}})"


def _is_set(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    # NaN, which other programs write where they have no value, is not even equal to itself.
    return value is not None and value != [] and value != {} and value == value


def _is_number(value: Any) -> bool:
    try:
        return not math.isnan(float(value))
    except OverflowError:  # of a whole number with hundreds of digits
        return True
    except (TypeError, ValueError):
        return False


MAX_DEPTH = 50


def as_objects(value: Any) -> Any:
    """JSON text as what it says; nothing where it is empty."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = _parsed(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not valid JSON: {error}") from error
    return None if value == [] else value


def _parsed(text: str) -> Any:
    value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    level = [value]
    for _ in range(MAX_DEPTH):
        if any(isinstance(item, str) and "\0" in item for item in level):
            raise ValueError("NUL character")
        level = [item for outer in level if isinstance(outer, dict | list) for item in _items(outer)]
    if level:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise ValueError("half a surrogate pair, or a number that is infinite") from error
    return value


def _items(outer: dict[str, Any] | list[Any]) -> list[Any]:
    return [*outer, *outer.values()] if isinstance(outer, dict) else outer


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key stands twice")
    return data


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def with_arguments(calls: list[Any] | None) -> list[Any] | None:
    """Arguments given as JSON text, as OpenAI does, become the object they say: a template would quote them twice."""
    return None if calls is None else [_with_object(call) if isinstance(call, dict) else call for call in calls]


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if isinstance(function, dict):
        return {**call, "function": _with_object(function)}
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        parsed = _parsed(arguments)
    except (ValueError, RecursionError):
        return call
    return {**call, "arguments": parsed} if isinstance(parsed, dict) else call


def _as_functions(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Bare functions, as LLaMA-Factory writes them, in OpenAI's form, for which chat templates are written."""
    if tools is None:
        return None
    return [{"type": "function", "function": tool} if tool.keys() >= {"name", "parameters"} else tool for tool in tools]


Tools = Annotated[list[dict[str, Any]] | None, BeforeValidator(as_objects), AfterValidator(_as_functions)]
ToolCalls = Annotated[list[dict[str, Any]] | None, BeforeValidator(as_objects), AfterValidator(with_arguments)]


_ANSWERS = ("chosen", "rejected", "completion", "response", "responses")
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
        """All canonical rows that the row gives: one, except where it holds a list of answers.

        Raises:
            ValueError: as for `canonical` and `completed`.
        """
        return (self.completed(self.canonical()),)

    @classmethod
    def quick(cls, row: Mapping[str, Any]) -> CanonicalRow | None:
        """Convert a row of plain, valid texts fast; None: the row needs `rows`, which gives the same for such rows.

        Only the long way says what is wrong with a row.
        """
        return None

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
        """The rows where prompts alone are needed: those of `rows`, unless a row without any has a prompt all the same.

        Raises:
            ValueError: as for `rows`.
        """
        return self.rows()

    @classmethod
    def settled(cls, rows: Sequence[Mapping[str, Any]], meanings: Mapping[str, int]) -> type[Format]:
        """The format as it reads a source.

        Args:
            rows: the first rows of the source.
            meanings: number of the answer, counted from 1, that a verdict of the source stands for; 0: a tie.
        """
        return cls

    @classmethod
    def unread(cls, row: Mapping[str, Any]) -> Fault | None:
        """Name a column that this format does not read and that would change the meaning of the row."""
        watched = _watched(cls)
        fault = None if watched.isdisjoint(row) else unread(row, watched)
        return fault or _placed_media(row, column_names(cls))

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


def answer_alone(prompt: str, answer: Any) -> Any:
    """An answer, or a list of them, without what belongs to the open transcript `prompt`; what is no text stays."""
    if isinstance(answer, list):
        return [answer_alone(prompt, text) for text in answer]
    if not isinstance(answer, str):
        return answer
    alone = answer.strip().removeprefix(prompt.strip()).lstrip()
    return alone if prompt.rstrip().endswith("Assistant:") else alone.removeprefix("Assistant:").lstrip()


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


# What other programs write beside the content of a turn, and where it stands here.
_NOT_READ = {
    "reasoning_content": "write it into `content`, as the model is to write it",
    "thinking": "write it into `content`, as the model is to write it",
    "function_call": "write it as `tool_calls`",
}


class TextTurn(Lenient):
    """A turn that says nothing but text."""

    @model_validator(mode="before")
    @classmethod
    def _no_media(cls, turn: Any) -> Any:
        for key in MEDIA if isinstance(turn, dict) else ():
            if key in turn and _holds_media(turn[key]):
                raise ValueError(f"`{key}` {_NO_TEXT}")
        return turn


class ChatMessage(TextTurn):
    """A turn as OpenAI and TRL write it; one that calls tools may have no text."""

    role: Role
    content: str
    tools: Tools = None
    tool_calls: ToolCalls = None
    name: Any = None
    tool_call_id: str | None = None

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
        content = turn.get("content")
        return {**turn, "content": _joined(content)} if isinstance(content, list) else turn

    def message(self) -> Message:
        """The canonical turn."""
        is_tool = self.role == "tool"  # a name beside another turn is that of a person
        return Message(
            role=self.role,
            content=self.content,
            tools=_fixed(self.tools),
            tool_calls=_fixed(self.tool_calls),
            name=self.name if is_tool and isinstance(self.name, str) and self.name.strip() else None,
            tool_call_id=self.tool_call_id if is_tool and self.tool_call_id else None,
        )


def _joined(parts: list[Any]) -> Any:
    """The text of a content in parts, as OpenAI writes it; what is no list of parts stays.

    Raises:
        ValueError: a part is not text.
    """
    if not parts or not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts):
        return parts
    texts = ("text", "input_text", "output_text")
    other = next(
        (part["type"] for part in parts if part["type"] not in texts or type(part.get("text")) is not str), None
    )
    if other is not None:
        raise ValueError(f"the content has a part of type `{other}`, and only text is read")
    return "".join(part["text"] for part in parts)


def _fixed(objects: list[dict[str, Any]] | None) -> tuple[dict[str, Any], ...] | None:
    return None if objects is None else tuple(objects)


_SPEAKER = re.compile(r"(?:\A\s*|(?:\r?\n){2})(Human|Assistant):")
_SPEAKER_OF_A_LINE = re.compile(r"(?:\A\s*|\r?\n)(Human|Assistant):")
_SPEAKERS: Mapping[str, Role] = {"Human": "user", "Assistant": "assistant"}


def transcript_turns(text: str, speaker: re.Pattern[str] = _SPEAKER) -> list[dict[str, str]] | None:
    """Turns of a transcript, ``Human: ... Assistant: ...``, without blanks around them; None: it begins otherwise."""
    before, *parts = speaker.split(text)
    if before.strip() or not parts:
        return None
    told = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _SPEAKERS[who], "content": said.strip()} for who, said in told]


def open_transcript(text: str) -> list[dict[str, str]] | None:
    """Turns of a transcript to be answered: it begins with ``Human:``, and ends with ``Assistant:`` or a question.

    Turns are paragraphs. Where none of the assistant's is one, and the text ends with ``Assistant:``, they are lines.

    None: the text is a question by itself, even where it speaks of humans and assistants.
    """
    if "Assistant:" not in text:
        return None
    for speaker in (_SPEAKER, _SPEAKER_OF_A_LINE) if text.rstrip().endswith("Assistant:") else (_SPEAKER,):
        turns = transcript_turns(text, speaker) or []
        if turns and turns[0]["role"] == "user" and any(turn["role"] == "assistant" for turn in turns):
            if turns[-1] == {"role": "assistant", "content": ""}:
                return turns[:-1]
            return turns if turns[-1]["role"] == "user" else None
    return None


def _asked(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {type_name(value)}")
    return open_transcript(value) or [{"role": "user", "content": value}]


def _text_by(role: Role) -> BeforeValidator:
    def as_turns(value: Any) -> Any:
        if isinstance(value, str):
            return _asked(value) if role == "user" else [{"role": role, "content": value}]
        if not isinstance(value, list):
            raise ValueError(f"must be text or a list of turns, not {type_name(value)}")
        return value

    return BeforeValidator(as_turns)


Turns = list[ChatMessage]
Question = Annotated[Turns, _text_by("user")]
"""Turns, or a text: one user turn, or a transcript to be answered."""
TextQuestion = Annotated[Turns, BeforeValidator(_asked)]
"""A text that is one user turn, or a transcript to be answered."""
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
