"""The four kinds of canonical row. Every accepted format becomes one of these; nothing is coerced."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Role = Literal["system", "user", "assistant", "tool"]
NonBlank = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]


class Row(BaseModel):
    """A frozen, strict row: an unknown field or a value of another type is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Message(Row):
    """One turn of a dialogue."""

    role: Role
    content: str


class _HasPrompt(Row):
    prompt: tuple[Message, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _ends_before_the_answer(self) -> _HasPrompt:
        check_dialogue(self.prompt)
        if self.prompt[-1].role == "assistant":
            raise ValueError("the prompt ends with an assistant turn; it must end with the turn to be answered")
        return self


class Demonstration(Row):
    """A dialogue to imitate: supervised fine-tuning trains on its assistant turns."""

    messages: tuple[Message, ...] = Field(min_length=2, strict=False)

    @model_validator(mode="after")
    def _ends_with_an_answer(self) -> Demonstration:
        check_dialogue(self.messages)
        if self.messages[-1].role != "assistant":
            raise ValueError("the last turn is not the assistant's")
        if not self.messages[-1].content.strip():
            raise ValueError("the assistant's answer is blank")
        return self


class Comparison(_HasPrompt):
    """Two answers to one prompt, the preferred one first."""

    chosen: NonBlank
    rejected: NonBlank
    margin: float | None = None
    annotator: str | None = None
    source: str | None = None


class Judgement(_HasPrompt):
    """One answer and what somebody thought of it, as 0/1 or on a scale."""

    completion: NonBlank
    label: bool | float
    annotator: str | None = None
    source: str | None = None


class Prompt(_HasPrompt):
    """Something to be answered."""


CanonicalRow = Demonstration | Comparison | Judgement | Prompt


def check_dialogue(messages: tuple[Message, ...]) -> None:
    """Raise ``ValueError`` unless the turns make a dialogue.

    At most one system turn, and first; at least one user turn, before any assistant turn; no blank user turn.
    """
    roles = [message.role for message in messages]
    if "system" in roles[1:]:
        raise ValueError("a system turn stands after the first turn")
    if "user" not in roles:
        raise ValueError("there is no user turn")
    if "assistant" in roles and roles.index("assistant") < roles.index("user"):
        raise ValueError("an assistant turn stands before the first user turn")
    if any(message.role == "user" and not message.content.strip() for message in messages):
        raise ValueError("a user turn is blank")
