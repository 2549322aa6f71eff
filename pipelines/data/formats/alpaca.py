"""Alpaca rows, and LLaMA-Factory's ranking rows in the same layout."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import override

from pipelines.data.formats.format import TEXT, Format, assistant, columns, user
from pipelines.data.formats.trl import Labeled
from pipelines.data.rows import Comparison, Demonstration, Message, Prompt

Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class Instruction(Format):
    """Fields of all Alpaca rows."""

    instruction: str
    input: str | None = None
    history: list[Pair] | None = None

    def prompt(self) -> tuple[Message, ...]:
        """Earlier questions and answers, then instruction and input as one user turn."""
        parts = [self.instruction, self.input] if self.input and self.input.strip() else [self.instruction]
        earlier = [turn for question, answer in self.history or () for turn in (user(question), assistant(answer))]
        return (*earlier, user("\n".join(part for part in parts if part)))


class AlpacaPreference(Instruction, Labeled):
    """An instruction and two answers."""

    name = "alpaca_preference"
    shape = columns(instruction=TEXT, chosen=TEXT, rejected=TEXT)
    holds = (Comparison,)
    chosen: str
    rejected: str

    @override
    def canonical(self) -> Comparison:
        return self.comparison(self.prompt(), self.chosen, self.rejected)


class AlpacaPrompt(Instruction):
    """An instruction to be followed."""

    name = "alpaca_prompt"
    shape = columns(instruction=TEXT)
    unless = ("chosen", "rejected", "output", "response", "responses", "completion", "completions", "prompt")
    holds = (Prompt,)

    @override
    def canonical(self) -> Prompt:
        return Prompt(prompt=self.prompt())


class Alpaca(Instruction):
    """An instruction and its answer."""

    name = "alpaca"
    shape = columns(instruction=TEXT, output=TEXT)
    unless = ("chosen", "rejected")
    holds = (Demonstration,)
    output: str

    @override
    def canonical(self) -> Demonstration:
        return Demonstration(messages=(*self.prompt(), assistant(self.output)))
