"""JSON from outside, without what readers would take in different ways."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 50


def strict_json(text: str) -> Any:
    """Decode JSON that comes from outside.

    Raises:
        ValueError: it is no JSON, a key stands twice in an object, a number is NaN or infinite, a text holds a NUL or
            half a surrogate pair, or it is nested more than `MAX_DEPTH` levels deep.
        RecursionError: it is nested deeper than Python can follow.
    """
    value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    level = [value]
    for _ in range(MAX_DEPTH):
        if any(isinstance(item, str) and "\0" in item for item in level):
            raise ValueError("NUL character")
        level = [item for outer in level if isinstance(outer, dict | list) for item in _items(outer)]
    if level:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise ValueError("half a surrogate pair, or a number that is infinite") from error
    return value


def _items(outer: dict[str, Any] | list[Any]) -> list[Any]:
    return [*outer, *outer.values()] if isinstance(outer, dict) else outer


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key stands twice")
    return data


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")
