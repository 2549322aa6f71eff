"""Views of the store's records for the templates. Answers are numbered by their place on the page, from 1."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from pipelines.data.rows import Message
from pipelines.labels.label_types import Kind, Label, Question, Task, Value
from pipelines.labels.store.records import Assignment, HistoryEntry
from pipelines.report.safe_text import visible


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs, which UTF-8 cannot hold, replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


@cache
def guidelines_html(markdown: str) -> str:
    """Guidelines as HTML: no raw HTML, no images; links only by http and https, and they open a page of their own."""
    return str(_MARKDOWN.render(visible(markdown)))


def rendered_html(markdown: str) -> str:
    """A text of a model or a user as HTML: Markdown and code, but no raw HTML, no images, and no links.

    Every heading has the same level, below those of the page. A line break stays one.
    """
    return str(_UNTRUSTED.render(visible(markdown)))


def _link_open(renderer: RendererHTML, tokens: list[Token], index: int, options: object, env: object) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    return renderer.renderToken(tokens, index, options, env)  # type: ignore[arg-type]


def _without_style(renderer: RendererHTML, tokens: list[Token], index: int, options: object, env: object) -> str:
    tokens[index].attrs.pop("style", None)  # how a column is aligned; the page allows no inline style
    return renderer.renderToken(tokens, index, options, env)  # type: ignore[arg-type]


def _heading(renderer: RendererHTML, tokens: list[Token], index: int, options: object, env: object) -> str:
    tokens[index].tag = "h4"
    return renderer.renderToken(tokens, index, options, env)  # type: ignore[arg-type]


_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_MARKDOWN.validateLink = lambda url: re.match(r"https?://", url, re.IGNORECASE) is not None  # type: ignore[method-assign]
_MARKDOWN.add_render_rule("link_open", _link_open)
_UNTRUSTED = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
_UNTRUSTED.disable(["image", "link", "autolink", "reference"])
_UNTRUSTED.add_render_rule("heading_open", _heading)
_UNTRUSTED.add_render_rule("heading_close", _heading)
for _page in (_MARKDOWN, _UNTRUSTED):
    _page.add_render_rule("th_open", _without_style)
    _page.add_render_rule("td_open", _without_style)

_START = 160
"""Characters of a prompt in a list."""
_LONG, _LINE = 800, 60
"""Characters of the turns before the last one from which they are collapsed, and what a line break counts for."""


def task_view(assignment: Assignment, questions: Sequence[Question], *, editing: bool) -> dict[str, Any]:
    """The task as `task.html` shows it; who wrote an answer, and what a control task is, is not in it."""
    answers = [assignment.task.answers[index] for index in assignment.order]
    writing = any(question.kind == "demonstration" for question in questions)
    turns = [turn_view(turn) for turn in assignment.task.prompt]
    collapsed = sum(len(turn["content"]) + _LINE * turn["content"].count("\n") for turn in turns[:-1]) > _LONG
    return {
        "id": assignment.task.id,
        "version": assignment.version,
        "number": assignment.number,
        "done": assignment.done,
        "left": assignment.left,
        "earlier_turns": turns[:-1] if collapsed else [],
        "prompt": turns[-1:] if collapsed else turns,
        "answers": [{"place": place, "text": answer.text} for place, answer in enumerate(answers, 1)],
        "questions": questions,
        "earlier": None if assignment.earlier is None else _earlier(assignment.earlier, assignment.order),
        "editing": editing,
        "draft": encodable(answers[0].text) if writing and answers else "",
    }


def turn_view(turn: Message) -> dict[str, str]:
    """A turn of the prompt: its role, its text, and below it the tools that it calls."""
    calls = json.dumps(turn.tool_calls, ensure_ascii=False, indent=1) if turn.tool_calls else ""
    return {"role": turn.role, "content": "\n".join(part for part in (turn.content, calls) if part)}


def _earlier(label: Label, order: Sequence[int]) -> dict[str, Any]:
    return {
        "values": shown_values(label.values, order),
        "comment": encodable(label.comment),
        "flagged": label.flagged,
        "skipped": label.skipped,
        "time": label.time,
    }


def shown_values(values: Mapping[str, Value], order: Sequence[int]) -> dict[str, list[int] | str]:
    """Values in the order in which the answers are shown."""
    return {
        name: value if isinstance(value, str) else [value[index] for index in order] for name, value in values.items()
    }


def own_values(values: Mapping[str, list[int] | str], order: Sequence[int]) -> dict[str, Value]:
    """Values in the task's own order, from those by shown place; one of another length stays as it is."""
    return {name: _own(value, order) for name, value in values.items()}


def _own(value: list[int] | str, order: Sequence[int]) -> Value:
    if isinstance(value, str):
        return value
    if len(value) != len(order):
        return tuple(value)  # the store says what is wrong with it
    by_index = dict(zip(order, value, strict=True))
    return tuple(by_index[index] for index in range(len(order)))


def withdrawn_view(entry: HistoryEntry) -> dict[str, Any]:
    """The answer that an undo takes back, as the page enters it again, and the version that it had."""
    label = entry.label
    return {
        "version": entry.version,
        "values": shown_values(label.values, label.order),
        "comment": label.comment,
        "flagged": label.flagged,
    }


def history_view(entry: HistoryEntry, questions: Sequence[Question]) -> dict[str, Any]:
    """One line of `history.html`; where several questions are asked their names are told, too."""
    label, kinds = entry.label, {question.name: question.kind for question in questions}
    told = {name: _summary(kinds[name], value, label.order) for name, value in label.values.items()}
    if len(questions) > 1:
        told = {name: f"{name.replace('_', ' ')}: {summary}" for name, summary in told.items()}
    return {
        "task": label.task,
        "time": label.time,
        "summary": " · ".join(told.values()),
        "comment": label.comment,
        "skipped": label.skipped,
        "flagged": label.flagged,
        "prompt_start": prompt_start(entry.task),
    }


def _summary(kind: Kind, value: Value, order: Sequence[int]) -> str:
    """Summarize values by the letters of the places: ``B > A = C``, ``A 1, B 2``, or the start of a text."""
    if isinstance(value, str):
        return value if len(value) <= 60 else value[:60] + "…"
    shown = [(value[index], chr(ord("A") + place)) for place, index in enumerate(order)]
    if kind not in ("ranking", "pairwise"):
        return ", ".join(f"{letter} {number}" for number, letter in shown)
    ranks = {number: [letter for other, letter in shown if other == number] for number, _ in sorted(shown)}
    return " > ".join(" = ".join(letters) for letters in ranks.values())


def prompt_start(task: Task) -> str:
    """The start of what is to be answered."""
    text = " ".join(task.prompt[-1].content.split())
    return text if len(text) <= _START else text[:_START] + "…"
