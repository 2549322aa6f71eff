"""Canonical rows in the layouts of other trainers, and the parts for which a layout has no place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message, Prompt, as_dict

Lost = Counter[str]
_SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}
_MARKS = ("\n\nHuman:", "\n\nAssistant:")


class DoesNotFit(ValueError):
    """The row as a whole has no place in the format; the message is the reason, the same for all such rows."""


def trl(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """TRL's conversational rows with an explicit prompt; tools in a column of their own."""
    if isinstance(row, Demonstration):
        return {"text": row.text} if row.text is not None else _with_tools(row.messages, "messages")
    if isinstance(row, Judgement):
        prompt = _with_tools(row.prompt, "prompt") | {"completion": [_answer(row.completion)]}
        return prompt | {"label": _flag(row)} | _note(row, lost)
    compared = _comparison(row)
    plain = _with_tools(compared.prompt, "prompt") | {"chosen": [_answer(compared.chosen)]}
    return plain | {"rejected": [_answer(compared.rejected)]} | _margin(compared) | _note(compared, lost)


def trl_implicit(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """TRL's preference rows whose prompt stands in both dialogues."""
    compared = _comparison(row)
    prompt = _with_tools(compared.prompt, "prompt")
    turns = prompt.pop("prompt")
    plain = {"chosen": [*turns, _answer(compared.chosen)], "rejected": [*turns, _answer(compared.rejected)]}
    return plain | prompt | _margin(compared) | _note(compared, lost)


def alpaca(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """LLaMA-Factory's alpaca layout: a question, earlier questions and answers, one answer or two."""
    prompt, answers = _prompt_and_answers(row, lost, "output")
    system, turns = _system_apart(prompt)
    if _tools_of(prompt):
        lost["tools"] += 1
    roles = [turn.role for turn in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise DoesNotFit("its turns are not question and answer in alternation")
    _refuse_calls(turns)
    history = [[ask.content, reply.content] for ask, reply in zip(turns[:-1:2], turns[1::2], strict=True)]
    return {"instruction": turns[-1].content, "input": "", "system": system, "history": history, **answers}


def sharegpt(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """LLaMA-Factory's sharegpt layout: turns with `from` and `value`, answers as one turn each."""
    prompt, answers = _prompt_and_answers(row, lost, "output")
    system, turns = _system_apart(prompt)
    asks = [turn.role in ("user", "tool") for turn in turns]
    if asks != [place % 2 == 0 for place in range(len(asks))] or not asks[-1]:
        raise DoesNotFit("its turns are not question and answer in alternation")
    _refuse_calls(turns)
    said = [{"from": _SPEAKERS[turn.role], "value": turn.content} for turn in turns]
    tools = _tools_of(prompt)
    plain: dict[str, Any] = {"system": system, "tools": json.dumps(list(tools), ensure_ascii=False) if tools else ""}
    if "output" in answers:
        said.append(_gpt(answers.pop("output")))
    pair: dict[str, Any] = {name: _gpt(answers.pop(name)) for name in ("chosen", "rejected") if name in answers}
    return {"conversations": said, **plain, **pair, **answers}


def hh(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """Two whole transcripts in plain text."""
    compared = _comparison(row)
    system, turns = _system_apart(compared.prompt)
    lost["system turn"] += bool(system)
    lost["tools"] += bool(_tools_of(compared.prompt))
    _note_margin(compared, lost)
    _note(compared, lost)
    if any(turn.role == "tool" for turn in turns):
        raise DoesNotFit("a tool speaks")
    _refuse_calls(turns)
    prompt = "".join(_spoken(turn, lost) for turn in turns)
    ends = {
        name: _spoken(Message(role="assistant", content=text), lost)
        for name, text in (("chosen", compared.chosen), ("rejected", compared.rejected))
    }
    return {name: prompt + end for name, end in ends.items()}


def _spoken(turn: Message, lost: Lost) -> str:
    text = turn.content.strip()
    lost["blanks around a turn"] += text != turn.content
    if any(mark in f"\n\n{turn.content}" for mark in _MARKS):
        raise DoesNotFit("a text holds the mark of a speaker")
    return f"\n\n{'Human' if turn.role == 'user' else 'Assistant'}: {text}"


def _comparison(row: CanonicalRow) -> Comparison:
    if not isinstance(row, Comparison):
        raise TypeError(f"a {type(row).__name__} has no two answers")
    return row


def _prompt_and_answers(row: CanonicalRow, lost: Lost, name: str) -> tuple[Sequence[Message], dict[str, Any]]:
    """The turns to be answered, and the answers by the name of their column; one answer stands under `name`."""
    if isinstance(row, Prompt):
        raise TypeError("a prompt has no answer")
    if isinstance(row, Demonstration):
        if row.text is not None:
            raise DoesNotFit("it is a text as it is, without question and answer")
        _refuse_calls(row.messages)
        return row.messages[:-1], {name: row.messages[-1].content}
    _note(row, lost)
    if isinstance(row, Judgement):
        return row.prompt, {name: row.completion, "label": _flag(row)}
    _note_margin(row, lost)
    return row.prompt, {"chosen": row.chosen, "rejected": row.rejected}


def _flag(row: Judgement) -> bool:
    if row.label not in (0, 1):
        raise DoesNotFit("its label is neither 0 nor 1")
    return bool(row.label)


def _note(row: Comparison | Judgement, lost: Lost) -> dict[str, Any]:
    """Count what is known of the annotator; no layout of others has a place for it."""
    lost["annotator"] += row.annotator is not None
    lost["source"] += row.source is not None
    return {}


def _note_margin(row: Comparison, lost: Lost) -> None:
    lost["margin"] += row.margin is not None


def _margin(row: Comparison) -> dict[str, Any]:
    return {} if row.margin is None else {"margin": row.margin}


def _with_tools(turns: Sequence[Message], column: str) -> dict[str, Any]:
    plain = [{key: value for key, value in as_dict(turn).items() if key != "tools"} for turn in turns]
    tools = _tools_of(turns)
    return {column: plain} | ({"tools": list(tools)} if tools else {})


def _tools_of(turns: Sequence[Message]) -> tuple[dict[str, Any], ...]:
    return turns[0].tools or ()


def _system_apart(turns: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    if turns[0].role == "system" and turns[0].content.strip():
        return turns[0].content, turns[1:]
    return "", turns[1:] if turns[0].role == "system" else turns


def _refuse_calls(turns: Sequence[Message]) -> None:
    if any(turn.tool_calls for turn in turns):
        raise DoesNotFit("a turn calls tools")


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}
