"""Canonical rows made of values that were checked already: pydantic's own making of them, without its checks.

Checking is half of the time that reading a file takes. The rows are the same as those of the classes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic_core import SchemaValidator, core_schema

from pipelines.data.rows import Comparison, Demonstration, Message, Prompt, Row

_Kind = TypeVar("_Kind", bound=Row)


def _maker(kind: type[_Kind]) -> Callable[[Mapping[str, Any]], _Kind]:
    anything = core_schema.any_schema()
    fields = {
        name: core_schema.model_field(
            anything if field.is_required() else core_schema.with_default_schema(anything, default=field.get_default())
        )
        for name, field in kind.model_fields.items()
    }
    found: Callable[[Mapping[str, Any]], _Kind] = SchemaValidator(
        core_schema.model_schema(kind, core_schema.model_fields_schema(fields))
    ).validate_python
    return found


_message = _maker(Message)
_comparison = _maker(Comparison)
_demonstration = _maker(Demonstration)
_prompt = _maker(Prompt)


def trusted_message(role: str, content: str) -> Message:
    """A turn without tools, by one of `ROLES`."""
    return _message({"role": role, "content": content})


def trusted_comparison(prompt: str, chosen: str, rejected: str) -> Comparison:
    """Two answers to one user turn; none of the texts is blank."""
    turns = (trusted_message("user", prompt),)
    return _comparison({"prompt": turns, "chosen": chosen, "rejected": rejected})


def trusted_demonstration(prompt: str, answer: str) -> Demonstration:
    """A user turn and its answer; neither is blank."""
    return _demonstration({"messages": (trusted_message("user", prompt), trusted_message("assistant", answer))})


def trusted_prompt(prompt: str) -> Prompt:
    """A user turn that is not blank."""
    return _prompt({"prompt": (trusted_message("user", prompt),)})
