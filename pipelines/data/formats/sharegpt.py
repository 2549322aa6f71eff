"""ShareGPT dialogues, by other keys and speakers too, and LLaMA-Factory's ranking rows in the same layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter
from typing_extensions import override

from pipelines.config.data_section import TagName, Tags
from pipelines.data.faults import Fault, shorten
from pipelines.data.formats.format import LIST, Format, columns
from pipelines.data.formats.trl import Labeled, dialogue
from pipelines.data.formats.turns import Question, TextTurn, as_objects, messages_of, plain_answer, with_arguments
from pipelines.data.formats.unread_columns import MEDIA
from pipelines.data.rows import Comparison, Demonstration, Lenient, Message, NonBlank, Prompt, Role

_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "observation": "tool", "system": "system"}


class Turn(TextTurn):
    """A turn as ShareGPT writes it."""

    speaker: Literal["human", "gpt", "system", "function_call", "observation"] = Field(alias="from")
    value: str

    def message(self) -> Message:
        """The canonical turn.

        Raises:
            ValueError: a function call is not the JSON of one call or of several.
        """
        if self.speaker == "function_call":
            return Message(role="assistant", content="", tool_calls=_calls(self.value))
        return Message(role=_ROLES[self.speaker], content=self.value)


class Call(Lenient):
    """A call of a tool as ShareGPT writes it."""

    name: NonBlank
    arguments: dict[str, Any]


_CALLS = TypeAdapter(Annotated[list[Call], Field(min_length=1)])


def _calls(text: str) -> tuple[dict[str, Any], ...]:
    """The calls of a turn in OpenAI's form, for which chat templates are written."""
    try:
        value = as_objects(text)
        calls = _CALLS.validate_python(with_arguments(value if isinstance(value, list) else [value]))
    except ValueError as error:
        raise ValueError(
            "a function_call must be JSON, such as "
            '{"name": "weather", "arguments": {"city": "Rome"}}, or a list of such calls'
        ) from error
    return tuple({"type": "function", "function": call.model_dump()} for call in calls)


_TURNS, _QUESTION = TypeAdapter(list[Turn]), TypeAdapter(Question)


def any_turns(value: Any) -> tuple[Message, ...]:
    """Turns as ShareGPT or as OpenAI writes them, or a text that is a question.

    Raises:
        ValueError: it is none of these (pydantic's ValidationError is one).
    """
    if isinstance(value, list) and all(isinstance(turn, dict) and "from" in turn for turn in value):
        return tuple(turn.message() for turn in _TURNS.validate_python(value))
    return messages_of(_QUESTION.validate_python(value))


def _as_question(value: Any) -> Any:
    return [{"from": "human", "value": value}] if isinstance(value, str) else value


def _as_answer(value: Any) -> Any:
    return {"from": "gpt", "value": value} if isinstance(value, str) else value


class Conversations(Format):
    """Fields of all ShareGPT rows."""

    conversations: list[Turn]

    def messages(self) -> tuple[Message, ...]:
        """The turns."""
        return tuple(turn.message() for turn in self.conversations)


class ShareGPTPreference(Conversations, Labeled):
    """A dialogue, or one question as text, and two answers, each one turn or text."""

    name = "sharegpt_preference"
    shape = columns(conversations=(list, str), chosen=(dict, str), rejected=(dict, str))
    conversations: Annotated[list[Turn], BeforeValidator(_as_question)]
    chosen: Annotated[Turn, BeforeValidator(_as_answer)]
    rejected: Annotated[Turn, BeforeValidator(_as_answer)]

    @override
    def canonical(self) -> Comparison:
        chosen, rejected = self.chosen.message(), self.rejected.message()
        for column, answer in (("chosen", chosen), ("rejected", rejected)):
            if answer.role != "assistant":
                raise ValueError(f"{column} must be the assistant's turn")
        return self.comparison(self.messages(), plain_answer("chosen", chosen), plain_answer("rejected", rejected))


class ShareGPT(Conversations):
    """One dialogue."""

    name = "sharegpt"
    shape = columns(conversations=LIST)
    unless = ("chosen", "rejected")
    holds = (Demonstration, Prompt)

    @override
    def canonical(self) -> Demonstration | Prompt:
        return dialogue(self.messages())


_SPEAKERS: dict[TagName, str] = {
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_DIALOGUES = ("conversations", "chosen", "rejected")


class TurnRewriter:
    """Turns as ShareGPT writes them; what `tags`, LLaMA-Factory's names, do not name is ShareGPT's own."""

    def __init__(self, tags: Tags) -> None:
        self._role = tags.get("role_tag", "from")
        self._content = tags.get("content_tag", "value")
        self._speakers = {tags.get(tag, own): own for tag, own in _SPEAKERS.items()}

    def rewrite(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], Fault | None]:
        """The row with rewritten turns, or what is wrong with one of them; anything that is no turn stays."""
        result = dict(row)
        for column in _DIALOGUES:
            value = row.get(column)
            if isinstance(value, dict):
                result[column], fault = self._turn(value, column)
                if fault is not None:
                    return {}, fault
            elif isinstance(value, list):
                turns = []
                for index, turn in enumerate(value):
                    rewritten, fault = self._turn(turn, f"{column}[{index}]")
                    if fault is not None:
                        return {}, fault
                    turns.append(rewritten)
                result[column] = turns
        return result, None

    def named(self, fault: Fault) -> Fault:
        """A fault that the format found, with the key of a turn as the file calls it."""
        for own, theirs in (("from", self._role), ("value", self._content)):
            if fault.field.startswith(_DIALOGUES) and fault.field.endswith(f".{own}"):
                return replace(fault, field=f"{fault.field.removesuffix(own)}{theirs}")
        return fault

    def _turn(self, turn: Any, field: str) -> tuple[Any, Fault | None]:
        if not isinstance(turn, dict):
            return turn, None
        if turn.get("tool_calls"):
            return turn, Fault(f"{field}.tool_calls", "cannot be read together with tags", "use the format `messages`")
        rewritten = {name: turn[name] for name in MEDIA if name in turn}  # which the format refuses
        if self._content in turn:
            rewritten["value"] = turn[self._content]
        speaker = turn.get(self._role)
        if isinstance(speaker, str):
            if speaker not in self._speakers:
                known = ", ".join(repr(name) for name in self._speakers)
                return turn, Fault(f"{field}.{self._role}", f"must be one of {known}", f"found {shorten(speaker)}")
            rewritten["from"] = self._speakers[speaker]
        elif self._role in turn:
            rewritten["from"] = speaker
        return rewritten, None
