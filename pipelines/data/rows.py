"""The four kinds of canonical row. Every accepted format becomes one of these; nothing is coerced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, final, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import SchemaValidator, core_schema

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)
NonBlank = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]


class Row(BaseModel):
    """A frozen, strict row: an unknown field or a value of another type is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Lenient(BaseModel):
    """Known keys are strict and never coerced; other keys of real files (id, timestamps) are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def _is_unset(value: object) -> bool:
    return value is None or value is False or value == ()


Objects = Annotated[tuple[dict[str, Any], ...], Field(strict=False, min_length=1)]


class Message(Row):
    """One turn of a dialogue.

    Attributes:
        content: the text; empty only where an assistant turn has tool calls, or a tool answers nothing.
        tools: the tools that the dialogue may call, as the template takes them; on its first turn only.
        name: of the tool that answers, and in `tool_call_id` the call to which it does; some templates write them.
    """

    role: Role
    content: str
    tools: Objects | None = Field(None, exclude_if=_is_unset)
    tool_calls: Objects | None = Field(None, exclude_if=_is_unset)
    name: NonBlank | None = Field(None, exclude_if=_is_unset)
    tool_call_id: NonBlank | None = Field(None, exclude_if=_is_unset)

    def __hash__(self) -> int:
        # Tools are made of JSON objects, which have no hash; equal turns still have equal hashes.
        return hash((self.role, self.content))

    @model_validator(mode="after")
    def _only_the_assistant_calls(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} turn has tool calls")
        if (self.name or self.tool_call_id) and self.role != "tool":
            raise ValueError(f"a {self.role} turn names a tool")
        return self


class _HasPrompt(Row):
    prompt: tuple[Message, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _ends_before_the_answer(self) -> _HasPrompt:
        check_dialogue(self.prompt)
        if self.prompt[-1].role == "assistant":
            raise ValueError("the prompt ends with an assistant turn; it must end with the turn to be answered")
        return self


@final
class Demonstration(Row):
    """A dialogue to imitate: supervised fine-tuning trains on its assistant turns. Or a text, trained on as it is.

    Attributes:
        messages: the dialogue; empty where there is a text.
        text: the text, without any template; None where there is a dialogue.
        last_only: whether the last answer alone is to be imitated: one to a prompt, whose earlier answers nobody chose.
    """

    messages: tuple[Message, ...] = Field((), strict=False, exclude_if=_is_unset)
    text: NonBlank | None = Field(None, exclude_if=_is_unset)
    last_only: bool = Field(False, exclude_if=_is_unset)

    @model_validator(mode="after")
    def _ends_with_an_answer(self) -> Demonstration:
        if (self.text is None) is (not self.messages):
            raise ValueError("it must hold either a dialogue or a text")
        if self.text is not None:
            return self
        check_dialogue(self.messages)
        last = self.messages[-1]
        if last.role != "assistant":
            raise ValueError("the last turn is not the assistant's")
        if any(turn.role == "assistant" and not turn.content.strip() and not turn.tool_calls for turn in self.messages):
            raise ValueError("the assistant's answer is blank")
        return self

    def texts(self) -> tuple[str, ...]:
        """The text, or the text of every turn."""
        return (self.text,) if self.text is not None else tuple(message.content for message in self.messages)


@final
class Comparison(_HasPrompt):
    """Two answers to one prompt, the preferred one first."""

    chosen: NonBlank
    rejected: NonBlank
    margin: float | None = None
    annotator: str | None = None
    source: str | None = None


@final
class Judgement(_HasPrompt):
    """One answer and what somebody thought of it, as 0/1 or on a scale."""

    completion: NonBlank
    label: bool | float
    annotator: str | None = None
    source: str | None = None


@final
class Prompt(_HasPrompt):
    """Something to be answered."""


CanonicalRow = Demonstration | Comparison | Judgement | Prompt


def answered(prompt: tuple[Message, ...], answer: Message) -> Demonstration:
    """A prompt and its answer, which alone is to be imitated.

    Raises:
        ValidationError: they make no demonstration.
    """
    return Demonstration(messages=(*prompt, answer), last_only=has_answers(prompt))


def has_answers(prompt: Sequence[Message]) -> bool:
    """Whether the assistant has spoken before."""
    return any(turn.role == "assistant" for turn in prompt)


def check_dialogue(messages: Sequence[Message]) -> None:
    """Raise ``ValueError`` unless the turns make a dialogue.

    At most one system turn, and first; at least one user turn, before any assistant turn; no blank user turn; tools
    on the first turn only.
    """
    if len(messages) == 1 and messages[0].role == "user" and messages[0].content.strip():
        return  # what most prompts are
    roles = [message.role for message in messages]
    if "system" in roles[1:]:
        raise ValueError("a system turn stands after the first turn")
    if "user" not in roles:
        raise ValueError("there is no user turn")
    if "assistant" in roles and roles.index("assistant") < roles.index("user"):
        raise ValueError("an assistant turn stands before the first user turn")
    if any(message.role == "user" and not message.content.strip() for message in messages):
        raise ValueError("a user turn is blank")
    if any(message.tools for message in messages[1:]):
        raise ValueError("tools stand on a turn after the first")


_Kind = TypeVar("_Kind", bound=Row)


def _maker(kind: type[_Kind]) -> Callable[[Mapping[str, Any]], _Kind]:
    anything = core_schema.any_schema()
    fields = {
        name: core_schema.model_field(
            anything if field.is_required() else core_schema.with_default_schema(anything, default=field.get_default())
        )
        for name, field in kind.model_fields.items()
    }
    make: Callable[[Mapping[str, Any]], _Kind] = SchemaValidator(
        core_schema.model_schema(kind, core_schema.model_fields_schema(fields))
    ).validate_python
    return make


_message = _maker(Message)
_comparison = _maker(Comparison)
_demonstration = _maker(Demonstration)
_prompt = _maker(Prompt)


def unchecked_message(role: str, content: str) -> Message:
    """A turn without tools, by one of `ROLES`."""
    return _message({"role": role, "content": content})


def unchecked_comparison(prompt: str, chosen: str, rejected: str) -> Comparison:
    """Two answers to one user turn; none of the texts is blank."""
    turns = (unchecked_message("user", prompt),)
    return _comparison({"prompt": turns, "chosen": chosen, "rejected": rejected})


def unchecked_demonstration(prompt: str, answer: str) -> Demonstration:
    """A user turn and its answer; neither is blank."""
    return _demonstration({"messages": (unchecked_message("user", prompt), unchecked_message("assistant", answer))})


def unchecked_prompt(prompt: str) -> Prompt:
    """A user turn that is not blank."""
    return _prompt({"prompt": (unchecked_message("user", prompt),)})


def as_dict(turn: Message) -> dict[str, Any]:
    """``role`` and ``content``, and what else the turn has; ``tools`` and ``tool_calls`` are lists."""
    plain: dict[str, Any] = {"role": turn.role, "content": turn.content}
    plain |= {key: value for key, value in (("name", turn.name), ("tool_call_id", turn.tool_call_id)) if value}
    if turn.tools:
        plain["tools"] = list(turn.tools)
    if turn.tool_calls:
        plain["tool_calls"] = list(turn.tool_calls)
    return plain
