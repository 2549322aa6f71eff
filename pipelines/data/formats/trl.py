"""The formats of TRL, standard and conversational; the canonical rows themselves are among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from typing_extensions import override

from pipelines.data.formats.format import LIST, TEXT, Format, beside_the_shape, columns
from pipelines.data.formats.turns import TextQuestion, Turns, answer_text, assistant, messages_of
from pipelines.data.rows import (
    ROLES,
    CanonicalRow,
    Comparison,
    Demonstration,
    Message,
    Prompt,
    answered,
    unchecked_comparison,
    unchecked_demonstration,
    unchecked_message,
    unchecked_prompt,
)


def dialogue(messages: tuple[Message, ...], *, last_only: bool = False) -> Demonstration | Prompt:
    """A demonstration where the assistant has the last word, else a prompt."""
    if messages and messages[-1].role == "assistant":
        return Demonstration(messages=messages, last_only=last_only)
    return Prompt(prompt=messages)


class Labeled(Format):
    """Optional fields of a comparison beside its texts."""

    holds = (Comparison,)

    margin: float | None = None
    annotator: str | None = None
    source: str | None = None

    def comparison(self, prompt: tuple[Message, ...], chosen: str, rejected: str) -> Comparison:
        """The canonical comparison."""
        return Comparison(
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            margin=self.margin,
            annotator=self.annotator,
            source=self.source,
        )


class ComparisonRow(Labeled):
    """The canonical comparison: a dialogue and two texts."""

    name = "comparison"
    shape = columns(prompt=LIST, chosen=TEXT, rejected=TEXT)
    prompt: Turns
    chosen: str
    rejected: str

    @override
    def canonical(self) -> Comparison:
        return self.comparison(messages_of(self.prompt), self.chosen, self.rejected)


class Preference(ComparisonRow):
    """Three texts."""

    name = "preference"
    shape = columns(prompt=TEXT, chosen=TEXT, rejected=TEXT)
    of_texts = unchecked_comparison
    prompt: TextQuestion


class PreferenceChat(Labeled):
    """A dialogue and two answers, each a list of one assistant turn."""

    name = "preference_chat"
    shape = columns(prompt=LIST, chosen=LIST, rejected=LIST)
    prompt: Turns
    chosen: Turns
    rejected: Turns

    @override
    def canonical(self) -> Comparison:
        return self.comparison(
            messages_of(self.prompt), answer_text("chosen", self.chosen), answer_text("rejected", self.rejected)
        )


class PreferenceImplicit(Labeled):
    """Two whole dialogues: the turns they share are the prompt. A `prompt` beside them repeats one of its turns."""

    name = "preference_implicit"
    shape = columns(chosen=LIST, rejected=LIST)
    prompt: str | None = None
    chosen: Turns = Field(min_length=1)
    rejected: Turns = Field(min_length=1)

    @override
    def canonical(self) -> Comparison:
        prompt = self.chosen[:-1]
        if prompt != self.rejected[:-1]:
            raise ValueError("chosen and rejected differ before their last turn")
        if self.prompt and self.prompt.strip() not in ("", *(turn.content.strip() for turn in prompt)):
            raise ValueError("prompt is none of the turns that chosen and rejected share")
        return self.comparison(
            messages_of(prompt), answer_text("chosen", self.chosen[-1:]), answer_text("rejected", self.rejected[-1:])
        )


class PromptCompletion(Format):
    """Two texts."""

    name = "prompt_completion"
    shape = columns(prompt=TEXT, completion=TEXT)
    unless = ("chosen", "rejected")
    holds = (Demonstration,)
    of_texts = unchecked_demonstration
    prompt: TextQuestion
    completion: str

    @override
    def canonical(self) -> Demonstration:
        return answered(messages_of(self.prompt), assistant(self.completion))

    @override
    def prompts(self) -> tuple[CanonicalRow, ...]:
        return (self.completed(Prompt(prompt=messages_of(self.prompt))),)  # the answer may be blank


class PromptCompletionChat(Format):
    """A dialogue and the turns that answer it."""

    name = "prompt_completion_chat"
    shape = columns(prompt=LIST, completion=LIST)
    unless = ("chosen", "rejected")
    holds = (Demonstration,)
    prompt: Turns
    completion: Turns

    @override
    def canonical(self) -> Demonstration:
        prompt, completion = messages_of(self.prompt), messages_of(self.completion)
        if len(completion) == 1:
            return answered(prompt, *completion)
        return Demonstration(messages=prompt + completion)


class Messages(Format):
    """One dialogue; the canonical demonstration is one of these."""

    name = "messages"
    shape = columns(messages=LIST)
    holds = (Demonstration, Prompt)
    messages: Turns
    last_only: bool = False

    @override
    def canonical(self) -> Demonstration | Prompt:
        return dialogue(messages_of(self.messages), last_only=self.last_only)

    @classmethod
    @override
    def quick(cls, row: Mapping[str, Any]) -> Demonstration | Prompt | None:
        turns = row.get("messages")
        if type(turns) is not list or not beside_the_shape(cls).isdisjoint(row):
            return None
        messages = []
        for turn in turns:
            if type(turn) is not dict or len(turn) != 2:
                return None
            role, content = turn.get("role"), turn.get("content")
            if type(content) is not str or not content.strip() or type(role) is not str or role not in ROLES:
                return None
            messages.append(unchecked_message(role, content))
        return dialogue(tuple(messages))


class PromptText(Format):
    """A text to be answered; also what a line of a .txt file is."""

    name = "prompt"
    shape = columns(prompt=TEXT)
    unless = ("chosen", "rejected", "completion")
    holds = (Prompt,)
    of_texts = unchecked_prompt
    prompt: TextQuestion

    @override
    def canonical(self) -> Prompt:
        return Prompt(prompt=messages_of(self.prompt))


class PromptChat(PromptText):
    """A dialogue to be answered: the canonical prompt."""

    name = "prompt_chat"
    shape = columns(prompt=LIST)
    prompt: Turns


class Text(Format):
    """A text that is trained on as it is: no template, no question, no answer."""

    name = "text"
    shape = columns(text=TEXT)
    unless = (
        *("prompt", "completion", "chosen", "rejected", "messages", "conversations", "instruction"),
        *("role", "parent_id", "rank"),
    )
    holds = (Demonstration,)
    text: str

    @override
    def canonical(self) -> Demonstration:
        return Demonstration(text=self.text)
