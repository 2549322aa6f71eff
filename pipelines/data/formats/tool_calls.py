"""Tools and calls of tools in rows: JSON text becomes the objects that it says, in OpenAI's form."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

MAX_DEPTH = 50


def as_objects(value: Any) -> Any:
    """JSON text as what it says; nothing where it is empty."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = _parsed(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not valid JSON: {error}") from error
    return None if value == [] else value


def _parsed(text: str) -> Any:
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


def with_arguments(calls: list[Any] | None) -> list[Any] | None:
    """Arguments given as JSON text, as OpenAI does, become the object they say: a template would quote them twice."""
    return None if calls is None else [_with_object(call) if isinstance(call, dict) else call for call in calls]


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if isinstance(function, dict):
        return {**call, "function": _with_object(function)}
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        parsed = _parsed(arguments)
    except (ValueError, RecursionError):
        return call
    return {**call, "arguments": parsed} if isinstance(parsed, dict) else call


def _as_functions(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Bare functions, as LLaMA-Factory writes them, in OpenAI's form, for which chat templates are written."""
    if tools is None:
        return None
    return [{"type": "function", "function": tool} if tool.keys() >= {"name", "parameters"} else tool for tool in tools]


Tools = Annotated[list[dict[str, Any]] | None, BeforeValidator(as_objects), AfterValidator(_as_functions)]
ToolCalls = Annotated[list[dict[str, Any]] | None, BeforeValidator(as_objects), AfterValidator(with_arguments)]
