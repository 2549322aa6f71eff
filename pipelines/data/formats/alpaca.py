"""Alpaca rows, and LLaMA-Factory's ranking rows in the same layout."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator
from typing_extensions import override

from pipelines.data.formats.format import TEXT, Format, columns
from pipelines.data.formats.trl import Labeled
from pipelines.data.formats.turns import assistant, user
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Message, Prompt

Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class Instruction(Format):
    """Fields of all Alpaca rows; `context` is what Dolly calls the input, and something else beside an input."""

    instruction: str
    input: str | None = None
    context: str | None = None
    history: list[Pair] | None = None

    @model_validator(mode="before")
    @classmethod
    def _input_counts_first(cls, row: Any) -> Any:
        has_input = isinstance(row, dict) and isinstance(row.get("input"), str) and row["input"].strip()
        return {name: value for name, value in row.items() if name != "context"} if has_input else row

    def prompt(self) -> tuple[Message, ...]:
        """Earlier questions and answers, then instruction and input as one user turn."""
        more = next((text for text in (self.input, self.context) if text and text.strip()), None)
        earlier = [turn for question, answer in self.history or () for turn in (user(question), assistant(answer))]
        return (*earlier, user("\n".join(part for part in (self.instruction, more) if part)))


class AlpacaPreference(Instruction, Labeled):
    """An instruction and two answers."""

    name = "alpaca_preference"
    shape = columns(instruction=TEXT, chosen=TEXT, rejected=TEXT)
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

    @override
    def prompts(self) -> tuple[CanonicalRow, ...]:
        return (self.completed(Prompt(prompt=self.prompt())),)  # the answer may be blank
