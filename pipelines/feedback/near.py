"""When a completion counts as a repetition of another one to the same prompt, and when as blank. No torch.

`data check` looks for near duplicates among a million rows and estimates (`data/check/similar.py`); here a handful of
texts are compared, so the share of pieces is counted exactly.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

PIECE = 5
"""Letters of the pieces that are compared, as `data check` does."""
_AT_ENDS = ".,;:!?…\"'“”‘’«»()[]*_。，！？"
"""What may stand around a word without changing what it says; signs such as - + % = are part of what it says."""


def is_blank(text: str) -> bool:
    """Whether nothing of the text can be judged: blanks, line breaks, characters without width.

    Or a NUL in it, which no data file may hold: the rows made of it would be refused.
    """
    return "\0" in text or not any(character.isprintable() and not character.isspace() for character in text)


def plain_words(text: str) -> str:
    """The text without case, the kind of its blanks and the punctuation around words."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    # a word of signs alone, such as !=, says something by itself
    return " ".join(word.strip(_AT_ENDS) if any(map(str.isalnum, word)) else word for word in words)


def similarity(first: Counter[str], second: Counter[str]) -> float:
    """Share of the pieces of two texts that they have in common, from 0 to 1, each piece as often as it occurs.

    Twice the common pieces by all pieces (Dice 1945). One word changed in a text of 400 letters leaves about 0.98, in
    one of 40 letters about 0.8.
    """
    return 2 * (first & second).total() / (first.total() + second.total())


def pieces(words: str) -> Counter[str]:
    """How often each run of five letters occurs; a shorter text is one piece."""
    letters = words.replace(" ", "")
    return Counter(letters[start : start + PIECE] for start in range(max(1, len(letters) - PIECE + 1)))


class Distinct:
    """The answers to one prompt, none of which repeats another.

    Args:
        threshold: similarity from which one counts as a repetition; 1: only what has the same words.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._words: dict[str, Counter[str]] = {}

    def add(self, text: str) -> bool:
        """Take the text in; False, and it stays out, where it repeats one that is there."""
        words = plain_words(text)
        if words in self._words:
            return False
        found = pieces(words)
        if self._threshold < 1 and any(self._near(found, other) for other in self._words.values()):
            return False
        self._words[words] = found
        return True

    def _near(self, first: Counter[str], second: Counter[str]) -> bool:
        # two lengths alone bound what the texts can have in common, and most pairs need no closer look
        sizes = first.total(), second.total()
        return 2 * min(sizes) >= self._threshold * sum(sizes) and similarity(first, second) >= self._threshold
