"""A turn of a dialogue as plain data: what chat templates, reward functions and reward servers get."""

from __future__ import annotations

from typing import Any

from pipelines.data.rows import Message


def as_dict(turn: Message) -> dict[str, Any]:
    """``role`` and ``content``, and lists ``tools`` and ``tool_calls`` where the turn has them."""
    plain: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.tools:
        plain["tools"] = list(turn.tools)
    if turn.tool_calls:
        plain["tool_calls"] = list(turn.tool_calls)
    return plain
