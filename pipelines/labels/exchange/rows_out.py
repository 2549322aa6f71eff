"""Training rows in the layouts of other trainers, with counts of what a layout has no place for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data.canonical import to_line
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message, Prompt, as_dict
from pipelines.data.sources.registry import FILE_NAME
from pipelines.errors import DataError, UsageError
from pipelines.run.disk import write_atomic

Lost = Counter[str]
"""Parts that a format has no place for, with their counts."""
Layout = Callable[[CanonicalRow, Lost], dict[str, Any]]


@dataclass(frozen=True)
class OutFormat:
    """A format that training rows can be written in.

    Attributes:
        name: what ``--format`` of a command calls it.
        kinds: the kinds of row that it can hold.
        layout: converts a row; None: the canonical row is written.
        formatting: value of `formatting` in LLaMA-Factory's register; None: the format needs no entry there.
    """

    name: str
    about: str
    kinds: tuple[type[CanonicalRow], ...]
    layout: Layout | None = None
    formatting: str | None = None

    def write(self, path: Path, rows: Iterable[CanonicalRow]) -> dict[str, int]:
        """Write rows of one kind, whole or not at all: JSON lines, or one array where the name ends in ``.json``.

        Returns:
            Counts of what the format cannot hold: parts of rows by name, such as ``margin``, and whole rows as
            ``rows left out: <reason>``. Empty: nothing is lost.

        Raises:
            UsageError: the name of the file ends in something else, or the rows are of a kind that the format does
                not hold.
            DataError: the rows are of several kinds, or none of them can be written.
            DiskError: it cannot be written.
        """
        if path.suffix not in (".json", ".jsonl"):
            raise UsageError(
                f"rows are written as .jsonl or .json, not as `{path.suffix or path.name}`", where=str(path)
            )
        lost: Lost = Counter()
        kind: type[CanonicalRow] | None = None
        called = ""
        lines = []
        for row in rows:
            if kind is None:
                self._check_kind(type(row), path)
                kind, called = type(row), _called(row)
            elif _called(row) != called:
                raise DataError(
                    f"the rows are of several kinds: {_called(row)} and {called}",
                    where=str(path),
                    hint="write each kind to its own file",
                )
            try:
                lines.append(self._line(row, lost))
            except DoesNotFit as reason:
                lost[f"rows left out: {reason}"] += 1
        told = dict(+lost)
        if not lines or kind is None:
            reasons = "; ".join(f"{count} {name}" for name, count in told.items()) or "there are no rows"
            raise DataError(f"there is nothing to write: {reasons}", where=str(path))
        as_array = path.suffix == ".json"
        text = "[\n" + ",\n".join(lines) + "\n]\n" if as_array else "".join(line + "\n" for line in lines)
        register = self._registered(path, kind) if self.formatting else None
        write_atomic(path, text)
        if register is not None:
            write_atomic(path.with_name(FILE_NAME), register)
        return told

    def _check_kind(self, kind: type[CanonicalRow], path: Path) -> None:
        if kind not in self.kinds:
            held = " or ".join(f"{one.__name__.lower()}s" for one in self.kinds)
            others = [other.name for other in OUT_FORMATS.values() if kind in other.kinds]
            raise UsageError(
                f"format `{self.name}` holds {held}, and the rows are {kind.__name__.lower()}s",
                where=str(path),
                hint=f"these can be written as {', '.join(others)}" if others else None,
            )

    def _line(self, row: CanonicalRow, lost: Lost) -> str:
        if self.layout is None:
            return to_line(row)
        # A row that is left out does not count its parts as lost too.
        own: Lost = Counter()
        line = json.dumps(self.layout(row, own), ensure_ascii=False, allow_nan=False)
        lost.update(own)
        return line

    def _registered(self, path: Path, kind: type[CanonicalRow]) -> str:
        """Return the register beside the file with an entry for the file; other entries do not change."""
        register = path.with_name(FILE_NAME)
        entries: Any = {}
        if register.exists():
            try:
                entries = json.loads(register.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError, RecursionError) as error:
                raise DataError(f"the register of data sets cannot be read: {error}", where=str(register)) from error
            if not isinstance(entries, dict):
                raise DataError("a register of data sets must be an object", where=str(register))
        entries[path.stem] = self._entry(path.name, kind)
        return json.dumps(entries, ensure_ascii=False, indent=2) + "\n"

    def _entry(self, file_name: str, kind: type[CanonicalRow]) -> dict[str, Any]:
        if self.formatting == "alpaca":
            columns = {"prompt": "instruction", "query": "input", "system": "system", "history": "history"}
        else:
            columns = {"messages": "conversations", "system": "system", "tools": "tools"}
        if kind is Comparison:
            columns |= {"chosen": "chosen", "rejected": "rejected"}
        elif self.formatting == "alpaca":
            columns["response"] = "output"
        if kind is Judgement:
            columns["kto_tag"] = "label"
        entry: dict[str, Any] = {"file_name": file_name, "formatting": self.formatting}
        return entry | ({"ranking": True} if kind is Comparison else {}) | {"columns": columns}


def _called(row: CanonicalRow) -> str:
    """Name the kind of rows that can be in one file."""
    as_it_is = isinstance(row, Demonstration) and row.text is not None
    return "texts" if as_it_is else f"{type(row).__name__.lower()}s"


_SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}
_MARKS = ("\n\nHuman:", "\n\nAssistant:")


class DoesNotFit(ValueError):
    """The format has no place for the row; the message is the reason, the same for all such rows."""


def _trl(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """TRL's conversational rows with an explicit prompt, and tools in their own column."""
    if isinstance(row, Demonstration):
        return {"text": row.text} if row.text is not None else _with_tools(row.messages, "messages")
    if isinstance(row, Judgement):
        _note(row, lost)
        prompt = _with_tools(row.prompt, "prompt") | {"completion": [_answer(row.completion)]}
        return prompt | {"label": _flag(row)}
    compared = _comparison(row)
    _note(compared, lost)
    plain = _with_tools(compared.prompt, "prompt") | {"chosen": [_answer(compared.chosen)]}
    return plain | {"rejected": [_answer(compared.rejected)]} | _margin(compared)


def _trl_implicit(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """TRL's preference rows whose two dialogues both begin with the prompt."""
    compared = _comparison(row)
    prompt = _with_tools(compared.prompt, "prompt")
    turns = prompt.pop("prompt")
    plain = {"chosen": [*turns, _answer(compared.chosen)], "rejected": [*turns, _answer(compared.rejected)]}
    _note(compared, lost)
    return plain | prompt | _margin(compared)


def _alpaca(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """LLaMA-Factory's alpaca layout: a question, earlier questions and answers, one answer or two."""
    prompt, answers = _prompt_and_answers(row, lost)
    system, turns = _system_apart(prompt)
    lost["tools"] += bool(_tools_of(prompt))
    roles = [turn.role for turn in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise DoesNotFit("its turns are not question and answer in alternation")
    _refuse_calls(turns)
    history = [[ask.content, reply.content] for ask, reply in zip(turns[:-1:2], turns[1::2], strict=True)]
    return {"instruction": turns[-1].content, "input": "", "system": system, "history": history, **answers}


def _sharegpt(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
    """LLaMA-Factory's sharegpt layout: turns with `from` and `value`, answers as one turn each."""
    prompt, answers = _prompt_and_answers(row, lost)
    system, turns = _system_apart(prompt)
    asks = [turn.role in ("user", "tool") for turn in turns]
    if asks != [place % 2 == 0 for place in range(len(asks))] or not asks[-1]:
        raise DoesNotFit("its turns are not question and answer in alternation")
    _refuse_calls(turns)
    said = [{"from": _SPEAKERS[turn.role], "value": turn.content} for turn in turns]
    tools = _tools_of(prompt)
    plain: dict[str, Any] = {"system": system, "tools": json.dumps(list(tools), ensure_ascii=False) if tools else ""}
    said_by_gpt = {name: {"from": "gpt", "value": text} for name, text in answers.items() if name != "label"}
    if "output" in said_by_gpt:
        said.append(said_by_gpt.pop("output"))
    rest = {name: value for name, value in answers.items() if name == "label"}
    return {"conversations": said, **plain, **said_by_gpt, **rest}


def _hh(row: CanonicalRow, lost: Lost) -> dict[str, Any]:
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
    texts = {"chosen": compared.chosen, "rejected": compared.rejected}
    return {name: prompt + _spoken(Message(role="assistant", content=text), lost) for name, text in texts.items()}


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


def _prompt_and_answers(row: CanonicalRow, lost: Lost) -> tuple[Sequence[Message], dict[str, Any]]:
    """Return the prompt, and the answers by the name of their column in LLaMA-Factory's layouts."""
    if isinstance(row, Prompt):
        raise TypeError("a prompt has no answer")
    if isinstance(row, Demonstration):
        if row.text is not None:
            raise DoesNotFit("it is a text as it is, without question and answer")
        _refuse_calls(row.messages)
        return row.messages[:-1], {"output": row.messages[-1].content}
    _note(row, lost)
    if isinstance(row, Judgement):
        return row.prompt, {"output": row.completion, "label": _flag(row)}
    _note_margin(row, lost)
    return row.prompt, {"chosen": row.chosen, "rejected": row.rejected}


def _flag(row: Judgement) -> bool:
    if row.label not in (0, 1):
        raise DoesNotFit("its label is neither 0 nor 1")
    return bool(row.label)


def _note(row: Comparison | Judgement, lost: Lost) -> None:
    """Count annotator and source as lost: no layout has a place for them."""
    lost["annotator"] += row.annotator is not None
    lost["source"] += row.source is not None


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


_ALL = (Comparison, Judgement, Demonstration)

OUT_FORMATS: dict[str, OutFormat] = {
    layout.name: layout
    for layout in (
        OutFormat("rlhf", "this program's own rows; they lose nothing", _ALL),
        OutFormat("trl", "TRL: prompt, chosen, rejected as lists of turns; margin", (Comparison, Demonstration), _trl),
        OutFormat("trl-implicit", "TRL: chosen and rejected as whole dialogues; margin", (Comparison,), _trl_implicit),
        OutFormat(
            "llama-factory-alpaca",
            "LLaMA-Factory: instruction, input, output; an entry in dataset_info.json",
            _ALL,
            _alpaca,
            "alpaca",
        ),
        OutFormat(
            "llama-factory-sharegpt",
            "LLaMA-Factory: conversations; an entry in dataset_info.json",
            _ALL,
            _sharegpt,
            "sharegpt",
        ),
        OutFormat("hh", "two transcripts with Human: and Assistant:", (Comparison,), _hh),
        OutFormat("kto", "TRL's KTO: prompt, completion, label true or false", (Judgement,), _trl),
    )
}
"""By name."""
