"""Dialogues that are written as one text, ``Human: ... Assistant: ...``, and their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipelines.data.rows import Role


def answer_alone(prompt: str, answer: Any) -> Any:
    """An answer, or a list of them, without what belongs to the open transcript `prompt`; what is no text stays."""
    if isinstance(answer, list):
        return [answer_alone(prompt, text) for text in answer]
    if not isinstance(answer, str):
        return answer
    alone = answer.strip().removeprefix(prompt.strip()).lstrip()
    return alone if prompt.rstrip().endswith("Assistant:") else alone.removeprefix("Assistant:").lstrip()


_SPEAKER = re.compile(r"(?:\A\s*|(?:\r?\n){2})(Human|Assistant):")
_SPEAKER_OF_A_LINE = re.compile(r"(?:\A\s*|\r?\n)(Human|Assistant):")
_SPEAKERS: Mapping[str, Role] = {"Human": "user", "Assistant": "assistant"}


def transcript_turns(text: str, speaker: re.Pattern[str] = _SPEAKER) -> list[dict[str, str]] | None:
    """Turns of a transcript, ``Human: ... Assistant: ...``, without blanks around them; None: it begins otherwise."""
    before, *parts = speaker.split(text)
    if before.strip() or not parts:
        return None
    told = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _SPEAKERS[who], "content": said.strip()} for who, said in told]


def open_transcript(text: str) -> list[dict[str, str]] | None:
    """Turns of a transcript to be answered: it begins with ``Human:``, and ends with ``Assistant:`` or a question.

    Turns are paragraphs. Where none of the assistant's is one, and the text ends with ``Assistant:``, they are lines.

    None: the text is a question by itself, even where it speaks of humans and assistants.
    """
    if "Assistant:" not in text:
        return None
    for speaker in (_SPEAKER, _SPEAKER_OF_A_LINE) if text.rstrip().endswith("Assistant:") else (_SPEAKER,):
        turns = transcript_turns(text, speaker) or []
        if turns and turns[0]["role"] == "user" and any(turn["role"] == "assistant" for turn in turns):
            if turns[-1] == {"role": "assistant", "content": ""}:
                return turns[:-1]
            return turns if turns[-1]["role"] == "user" else None
    return None
