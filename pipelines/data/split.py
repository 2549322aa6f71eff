"""Which side of the split a prompt is on. The prompt alone decides, so that all stages and all machines agree."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence

from pipelines.data.rows import Message

SPLIT_SEED = 0
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def plain(text: str) -> str:
    """The text with Unicode forms and blank ends aside: what is equal so counts as the same."""
    return unicodedata.normalize("NFC", text).strip()


def prompt_key(messages: Sequence[Message], seed: int = SPLIT_SEED) -> int:
    """64 bits that stand for a prompt: role, content and tools of its turns, blank ends and Unicode forms aside."""
    turns = [[message.role, plain(message.content), *_tools(message)] for message in messages]
    text = _ENCODER.encode([seed, turns])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def share_of(key: int) -> float:
    """A prompt's key as a number in [0, 1): it is held out where this is below `data.eval_fraction`."""
    return (key >> 11) / 2**53


def is_held_out(messages: Sequence[Message], fraction: float, seed: int = SPLIT_SEED) -> bool:
    """Whether the prompt is kept from training; true for about `fraction` of all prompts.

    The seed is not the run's: the split stays when the training seed changes.
    """
    return share_of(prompt_key(messages, seed)) < fraction


def _tools(message: Message) -> list[object]:
    """Nothing for a turn without tools: adding tools to the format left every other prompt on its side."""
    return [message.tools, message.tool_calls] if message.tools or message.tool_calls else []
