"""The prompt and the answers of a row with several answers, from the columns that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from pipelines.data.faults import fault_of, type_name
from pipelines.data.formats.alpaca import Instruction
from pipelines.data.formats.answer_columns import AnswerColumns, plain_name
from pipelines.data.formats.sharegpt import any_turns
from pipelines.data.formats.transcripts import open_transcript
from pipelines.data.formats.turns import plain_answer
from pipelines.data.formats.unread_columns import naming
from pipelines.data.formats.verdict_values import ITEM_SCORES, number_of
from pipelines.data.rows import Message

_BODIES = ("text", "answer", "response", "completion", "output", "content", "body", "summary", "answer_text", "value")
_QUESTIONS = ("full_text", "text", "content", "question", "prompt", "body", "post")


class AnswerText(NamedTuple):
    """One of the answers, its author and score where one object tells them, and the turns before it in a dialogue."""

    text: str
    model: str | None
    before: tuple[Message, ...]
    score: float | None


def question_columns(row: Mapping[str, Any], parts: AnswerColumns) -> tuple[str, ...]:
    """The columns that the prompt is made of."""
    names = {plain_name(name): name for name in parts.prompts if not _holds_nothing(name, row[name])}
    if "prompt" in names:
        return (names["prompt"],)
    if "instruction" in names:
        history = ("history",) if isinstance(row.get(names.get("history", "")), list) else ()
        return tuple(names[name] for name in ("instruction", "input", "context", *history) if name in names)
    return tuple(names.values())


def _holds_nothing(name: str, value: Any) -> bool:
    """Whether a column by the name of a prompt is something else: `info` of an object without a post."""
    return plain_name(name) == "info" and not (isinstance(value, dict) and "post" in value)


def question(row: Mapping[str, Any], parts: AnswerColumns) -> tuple[Message, ...]:
    """The prompt from its columns; empty: there is none.

    Raises:
        ValueError: several columns may hold it, or its columns hold no prompt.
    """
    names = question_columns(row, parts)
    if names and plain_name(names[0]) == "instruction":
        fields = {plain_name(name): row[name] for name in names}
        try:
            return Instruction.model_validate(fields).prompt()
        except ValidationError as error:
            raise ValueError(str(fault_of(error))) from error
    if len(names) > 1:
        several = " or ".join(f"`{name}`" for name in names)
        raise ValueError(f"the prompt may be {several}; name it: {naming(f'prompt={names[0]}')}")
    if not names:
        return ()
    value = row[names[0]]
    if isinstance(value, dict):
        value = next((value[key] for key in _QUESTIONS if isinstance(value.get(key), str)), value)
    return _turns(names[0], value)


def open_prompt(row: Mapping[str, Any], parts: AnswerColumns) -> str | None:
    """The prompt, where it is a transcript to be answered."""
    names = question_columns(row, parts)
    text = row[names[0]] if len(names) == 1 and plain_name(names[0]) != "instruction" else None
    return text if isinstance(text, str) and open_transcript(text) is not None else None


def _turns(name: str, value: Any) -> tuple[Message, ...]:
    try:
        return any_turns(value)
    except ValidationError as error:
        fault = fault_of(error)
        raise ValueError(f"{name}{fault}" if fault.field.startswith("[") else f"{name}: {fault}") from error


def read_answer(place: str, value: Any) -> AnswerText:
    """One of the answers: a text, turns, or an object that holds either.

    Raises:
        ValueError: it is blank, or neither text nor turns that end with the assistant's.
    """
    model, score = None, None
    if isinstance(value, dict):
        if "role" in value or "from" in value:
            value = [value]
        else:
            model = value.get("model") if isinstance(value.get("model"), str) else None
            score = next((n for key in ITEM_SCORES if (n := number_of(value.get(key))) is not None), None)
            value = next((value[key] for key in _BODIES if isinstance(value.get(key), str | list)), None)
    if isinstance(value, list):
        turns = _turns(place, value)
        if not turns or turns[-1].role != "assistant":
            raise ValueError(f"{place}: does not end with an assistant turn")
        return AnswerText(plain_answer(place, turns[-1]), model, turns[:-1], score)
    if not isinstance(value, str):
        raise ValueError(f"{place}: must be text or turns, not {type_name(value)}")
    if not value.strip():
        raise ValueError(f"{place}: blank")
    return AnswerText(value, model, (), score)
