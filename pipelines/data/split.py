"""The split into training and held-out prompts, by a hash of the question: the same on every machine."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import unicodedata
from collections.abc import Iterable, Sequence

from pipelines.config.data_section import SplitBy
from pipelines.data.rows import Message

SPLIT_SEED = 0
FEWEST_EVALUATED = 2
"""Minimum number of held-out prompts in an evaluation: one prompt has no interval."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def plain(text: str) -> str:
    """Return the text in Unicode form NFC without blank ends, for comparisons."""
    return unicodedata.normalize("NFC", text).strip()


def prompt_key(messages: Sequence[Message], seed: int = SPLIT_SEED) -> int:
    """Hash a prompt to 64 bits: role, `plain` content and tools of its turns."""
    return _hashed(f"[{seed},[{','.join(map(_turn, messages))}]]")


def question(messages: Sequence[Message]) -> tuple[str, ...]:
    """Return the text that the split goes by: the first user turn, without case and differences between blanks.

    A dialogue without a user turn goes by all its turns but the system's, or by that if there is no other.
    """
    user = [message for message in messages if message.role == "user"][:1]
    turns = user or [message for message in messages if message.role != "system"] or messages
    return tuple(folded(message.content) for message in turns)


def folded(text: str) -> str:
    """Return the text in Unicode form NFC without case, and with one space for any run of blanks."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())


def split_key(messages: Sequence[Message], by: SplitBy = "question", seed: int = SPLIT_SEED) -> int:
    """Hash a prompt to the 64 bits that decide its side of the split.

    A longer dialogue contains shorter prompts with their answers, so dialogues that begin alike are on one side. With
    `question` that holds whatever system turn, tools or later turns one of them has; ``opening`` takes all turns up to
    the first user turn as they are written. Another seed gives an independent split.
    """
    if by == "question":
        return _hashed(f'[{seed},["question",{_ENCODER.encode(question(messages))}]]')
    end = next((index for index, message in enumerate(messages, 1) if message.role == "user"), len(messages))
    return prompt_key(messages[:end], seed)


def share_of(key: int) -> float:
    """Map a key to [0, 1); a prompt is held out if the share of its `split_key` is below `data.eval_fraction`."""
    return (key >> 11) / 2**53


def threshold(shares: Iterable[float], fraction: float) -> float:
    """Return the share below which prompts are held out: `fraction`, or a larger one where it holds out too few.

    With three prompts or more at least `FEWEST_EVALUATED` are held out, with two at least one: those that a larger
    fraction would hold out first. One prompt is left to train on. `shares` are those of the keys of all prompts.
    """
    lowest = heapq.nsmallest(FEWEST_EVALUATED + 1, set(shares))
    fewest = min(FEWEST_EVALUATED, len(lowest) - 1)
    return max(fraction, math.nextafter(lowest[fewest - 1], 1)) if fewest > 0 else fraction


def beside_fraction(shares: Iterable[float], fraction: float) -> set[float]:
    """Return the shares that are held out although they are not below `fraction`: see `threshold`."""
    distinct = set(shares)
    limit = threshold(distinct, fraction)
    return {share for share in distinct if fraction <= share < limit}


def is_held_out(messages: Sequence[Message], fraction: float, by: SplitBy = "question") -> bool:
    """Whether the prompt is kept from training; true for about `fraction` of all prompts; see also `threshold`.

    The seed is not the run's: the split stays when the training seed changes.
    """
    return share_of(split_key(messages, by)) < fraction


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _turn(message: Message) -> str:
    """Return a turn as JSON, without the fields of tools if it has none: prompts of older runs keep their side."""
    role, content = message.role, plain(message.content)
    if message.tools or message.tool_calls:
        return _ENCODER.encode([role, content, message.tools, message.tool_calls])
    return f'["{role}",{_ENCODER.encode(content)}]'  # a text by itself is encoded ten times as fast as a list
