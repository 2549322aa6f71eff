"""Which side of the split a prompt is on. How it begins decides, so that all stages and all machines agree."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence

from pipelines.data.rows import Message

SPLIT_SEED = 0
FEWEST_EVALUATED = 2
"""Held-out prompts that the evaluation needs: an interval of one is none."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def plain(text: str) -> str:
    """The text with Unicode forms and blank ends aside: what is equal so counts as the same."""
    return unicodedata.normalize("NFC", text).strip()


def prompt_key(messages: Sequence[Message], seed: int = SPLIT_SEED) -> int:
    """64 bits that stand for a prompt: role, content and tools of its turns, blank ends and Unicode forms aside."""
    text = f"[{seed},[{','.join(map(_turn, messages))}]]"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_key(messages: Sequence[Message], seed: int = SPLIT_SEED) -> int:
    """64 bits that stand for how a prompt begins, up to its first user turn: what the split goes by.

    A longer dialogue holds the prompts of shorter ones and their answers, so all that begin alike are on one side.
    """
    end = next((index for index, message in enumerate(messages, 1) if message.role == "user"), len(messages))
    return prompt_key(messages[:end], seed)


def share_of(key: int) -> float:
    """A key as a number in [0, 1): a prompt is held out where that of its `split_key` is below `data.eval_fraction`."""
    return (key >> 11) / 2**53


def is_held_out(messages: Sequence[Message], fraction: float, seed: int = SPLIT_SEED) -> bool:
    """Whether the prompt is kept from training; true for about `fraction` of all prompts.

    The seed is not the run's: the split stays when the training seed changes.
    """
    return share_of(split_key(messages, seed)) < fraction


def _turn(message: Message) -> str:
    """A turn as JSON; one without tools as if there were none, so that every prompt of old stays on its side."""
    role, content = message.role, plain(message.content)
    if message.tools or message.tool_calls:
        return _ENCODER.encode([role, content, message.tools, message.tool_calls])
    return f'["{role}",{_ENCODER.encode(content)}]'  # a text by itself is encoded ten times as fast as a list
