"""Tools and calls of tools in rows: JSON text becomes the objects that it says, in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from pipelines.data.strict_json import strict_json


def as_objects(value: Any) -> Any:
    """JSON text as what it says; nothing where it is empty."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = strict_json(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not valid JSON: {error}") from error
    return None if value == [] else value


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
        parsed = strict_json(arguments)
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
