"""Rewriting of dialogues whose turns have other keys and speakers than ShareGPT's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.config.data_section import TagName, Tags
from pipelines.data.faults import Fault, shorten
from pipelines.data.formats.unread_columns import MEDIA

_SPEAKERS: dict[TagName, str] = {
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_DIALOGUES = ("conversations", "chosen", "rejected")


class TurnRewriter:
    """Turns as ShareGPT writes them; what `tags`, LLaMA-Factory's names, do not name is ShareGPT's own."""

    def __init__(self, tags: Tags) -> None:
        self._role = tags.get("role_tag", "from")
        self._content = tags.get("content_tag", "value")
        self._speakers = {tags.get(tag, own): own for tag, own in _SPEAKERS.items()}

    def rewrite(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], Fault | None]:
        """The row with rewritten turns, or what is wrong with one of them; anything that is no turn stays."""
        result = dict(row)
        for column in _DIALOGUES:
            value = row.get(column)
            if isinstance(value, dict):
                result[column], fault = self._turn(value, column)
                if fault is not None:
                    return {}, fault
            elif isinstance(value, list):
                turns = []
                for index, turn in enumerate(value):
                    rewritten, fault = self._turn(turn, f"{column}[{index}]")
                    if fault is not None:
                        return {}, fault
                    turns.append(rewritten)
                result[column] = turns
        return result, None

    def named(self, fault: Fault) -> Fault:
        """A fault that the format found, with the key of a turn as the file calls it."""
        for own, theirs in (("from", self._role), ("value", self._content)):
            if fault.field.startswith(_DIALOGUES) and fault.field.endswith(f".{own}"):
                return replace(fault, field=f"{fault.field.removesuffix(own)}{theirs}")
        return fault

    def _turn(self, turn: Any, field: str) -> tuple[Any, Fault | None]:
        if not isinstance(turn, dict):
            return turn, None
        if turn.get("tool_calls"):
            return turn, Fault(f"{field}.tool_calls", "cannot be read together with tags", "use the format `messages`")
        rewritten = {name: turn[name] for name in MEDIA if name in turn}  # which the format refuses
        if self._content in turn:
            rewritten["value"] = turn[self._content]
        speaker = turn.get(self._role)
        if isinstance(speaker, str):
            if speaker not in self._speakers:
                known = ", ".join(repr(name) for name in self._speakers)
                return turn, Fault(f"{field}.{self._role}", f"must be one of {known}", f"found {shorten(speaker)}")
            rewritten["from"] = self._speakers[speaker]
        elif self._role in turn:
            rewritten["from"] = speaker
        return rewritten, None
