"""Pairs of whole transcripts in plain text, as Anthropic's HH-RLHF has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from pipelines.data.formats.format import TEXT, columns
from pipelines.data.formats.transcripts import transcript_turns
from pipelines.data.formats.trl import Labeled
from pipelines.data.formats.turns import assistant, user
from pipelines.data.rows import Comparison, Message

_LAST = "\n\nAssistant:"


class Transcripts(Labeled):
    """Two transcripts that differ in the last answer.

    They are cut at the last ``Assistant:``. Cutting where the two texts begin to differ would give the prompt a part
    of the answers: "Yes, I can" and "Yes I cannot" share their "Yes".
    """

    name = "hh"
    shape = columns(chosen=TEXT, rejected=TEXT)
    chosen: str
    rejected: str

    @classmethod
    @override
    def likeness(cls, row: Mapping[str, Any]) -> int:
        if any(column in row for column in ("prompt", "instruction", "conversations")):
            return -1  # the question stands by itself, even where its value is of the wrong type
        texts = [row.get(column) for column in cls.shape]
        if all(isinstance(text, str) and "Assistant:" not in text for text in texts):
            return -1  # two answers, whose question has another name
        return super().likeness(row)

    @override
    def canonical(self) -> Comparison:
        prompt, chosen = _cut("chosen", self.chosen)
        other, rejected = _cut("rejected", self.rejected)
        if prompt != other:
            raise ValueError("chosen and rejected differ before their last answer")
        return self.comparison(prompt, chosen, rejected)


def _cut(column: str, transcript: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the last answer, and that answer; blanks around a turn belong to the transcript."""
    earlier, marker, answer = transcript.rpartition(_LAST)
    if not marker:
        raise ValueError(rf"{column} has no `\n\nAssistant:`; a transcript is `\n\nHuman: ... \n\nAssistant: ...`")
    if "\n\nHuman:" in answer:
        raise ValueError(f"{column} ends with a turn of the human")
    turns = transcript_turns(earlier)
    if turns is None:
        raise ValueError(f"{column} does not begin with `Human:`")
    return tuple(user(turn["content"]) if turn["role"] == "user" else assistant(turn["content"]) for turn in turns), (
        answer.strip()
    )
