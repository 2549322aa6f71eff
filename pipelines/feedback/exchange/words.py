"""What the texts of choices say: the better one of two answers, a tie, or 0 or 1. Only these forms are read."""

from __future__ import annotations

import re
from collections.abc import Sequence

_EQUAL = (
    "tie",
    "tied",
    "equal",
    "equally good",
    "equally bad",
    "same",
    "the same",
    "about the same",
    "similar",
    "draw",
)
TIES = frozenset((*_EQUAL, "both", "both good", "both bad", "neither", "no preference"))
FLAGS = {"0": 0, "1": 1, "no": 0, "yes": 1, "false": 0, "true": 1, "bad": 0, "good": 1}
_PLACES = {"left": 0, "right": 1, "first": 0, "second": 1, "a": 0, "b": 1, "1": 0, "2": 1}
_NOUN = "(?:answer|response|completion|candidate|option|output|reply|generation|text|model|assistant|choice)"
_NAME = re.compile(
    rf"(?:the )?(?:(?:{_NOUN}[ _\-.]?)?(?P<short>[ab12])|(?P<place>left|right|first|second)(?: one| {_NOUN})?)"
)
_MUCH = "(?:(?:much|far|clearly|significantly|slightly|somewhat|a little|a bit|a lot) )?"
_FORMS = tuple(
    re.compile(form)
    for form in (
        "(?P<better>.+)",
        rf"(?P<better>.+?)(?: is)? {_MUCH}(?:better|preferred|the better one|best|the best)(?: than (?P<worse>.+))?",
        "(?P<better>.+) (?:wins|beats (?P<worse>.+))",
        "(?:i )?(?:prefer|choose)(?: (?P<better>.+?))(?: (?:to|over) (?P<worse>.+))?",
        "(?:better|best|preferred|winner|choice): ?(?P<better>.+)",
        "(?P<better>[^<>]+?) ?>{1,3} ?(?P<worse>[^<>]+)",
        "(?P<worse>[^<>]+?) ?<{1,3} ?(?P<better>[^<>]+)",
    )
)


def plain(text: str) -> str:
    """The text of a choice in small letters, with single blanks, without a full stop."""
    return " ".join(text.casefold().split()).rstrip(".!")


def better_of_two(words: str, keys: Sequence[str]) -> int | None:
    """The place of the answer that a choice calls the better one of two.

    Read are its name alone (A, left, 1, Answer A, the first one, or a key), and that with more: A is better, A is
    slightly better than B, A wins, A beats B, prefer A, better: A, A > B, B < A. Whatever else stands there, such as
    "reject A", might mean the other one.

    Args:
        words: what was chosen, as `plain` gives it.
        keys: of the answers, by place.

    Returns:
        None: the text is of no such form.
    """
    for form in _FORMS:
        match = form.fullmatch(words)
        better = _place(match["better"], keys) if match else None
        if match is None or better is None:
            continue
        worse = match["worse"] if "worse" in form.groupindex else None
        if worse is None or _place(worse, keys) == 1 - better:
            return better
    return None


def _place(name: str, keys: Sequence[str]) -> int | None:
    """The place of an answer of which this is the key, or one of the usual names."""
    bare = [_bare(key) for key in keys]
    if _bare(name) in bare:
        return bare.index(_bare(name))
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    short = match["short"] or match["place"]
    # Where the keys are numbers in another order, or count from 0, a number is that of a key.
    numbers = [(re.findall(r"\d+$", key) or [""])[0] for key in bare]
    if short.isdecimal() and set(numbers) in ({"0", "1"}, {"1", "2"}):
        return numbers.index(short) if short in numbers else None
    return _PLACES[short]


def _bare(name: str) -> str:
    return re.sub(r"[ _\-.]", "", name.casefold())
