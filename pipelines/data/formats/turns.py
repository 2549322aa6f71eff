"""Turns as OpenAI and TRL write them, the texts that stand for turns, and tools and their calls as JSON text."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, model_validator

from pipelines.data.faults import type_name
from pipelines.data.formats.transcripts import open_transcript
from pipelines.data.formats.unread_columns import MEDIA, NO_TEXT, holds_media
from pipelines.data.rows import Lenient, Message, Role
from pipelines.data.strict_json import strict_json

# What other programs write beside the content of a turn, and where it stands here.
_NOT_READ = {
    "reasoning_content": "write it into `content`, as the model is to write it",
    "thinking": "write it into `content`, as the model is to write it",
    "function_call": "write it as `tool_calls`",
}


def as_objects(value: Any) -> Any:
    """JSON text as what it says; nothing where it is empty."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = strict_json(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not valid JSON: {error}") from error
    return None if value == [] else value


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
        parsed = strict_json(arguments)
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


class TextTurn(Lenient):
    """A turn that says nothing but text."""

    @model_validator(mode="before")
    @classmethod
    def _no_media(cls, turn: Any) -> Any:
        for key in MEDIA if isinstance(turn, dict) else ():
            if key in turn and holds_media(turn[key]):
                raise ValueError(f"`{key}` {NO_TEXT}")
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
            tools=None if self.tools is None else tuple(self.tools),
            tool_calls=None if self.tool_calls is None else tuple(self.tool_calls),
            name=self.name if is_tool and isinstance(self.name, str) and self.name.strip() else None,
            tool_call_id=self.tool_call_id if is_tool and self.tool_call_id else None,
        )


def _joined(parts: list[Any]) -> Any:
    """The text of a content in parts, as OpenAI writes it; what is no list of parts stays."""
    if not parts or not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts):
        return parts
    texts = ("text", "input_text", "output_text")
    other = next(
        (part["type"] for part in parts if part["type"] not in texts or type(part.get("text")) is not str), None
    )
    if other is not None:
        raise ValueError(f"the content has a part of type `{other}`, and only text is read")
    return "".join(part["text"] for part in parts)


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
