"""Choices between answers in words: the better of two, or a tie."""

from __future__ import annotations

import re
from collections.abc import Sequence

TIES = frozenset(
    (
        *("tie", "tied", "equal", "equally good", "equally bad", "same", "the same", "about the same", "similar"),
        *("draw", "both", "both good", "both bad", "bothbad", "tie (bothbad)", "tie (both bad)", "a=b", "a = b"),
        *("neither", "no preference", "no winner"),
    )
)
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
    """Return the text of a choice in lowercase, with single blanks and without punctuation at the end."""
    return " ".join(text.casefold().split()).rstrip(".!")


def better_of_two(words: str, keys: Sequence[str]) -> int | None:
    """Return the place, from 0, of the answer that a choice in `plain` words calls the better one of two; None: none.

    The choice may be the name of an answer (A, left, 1, Answer A, the first one, or one of `keys`, which are by place),
    or a name in one of these forms: A is better, A is slightly better than B, A wins, A beats B, prefer A, better: A,
    A > B, B < A. No other form is read, because it might mean the opposite, such as "reject A".
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
    """Return the place of the answer with this key or usual name; None: there is no such answer."""
    bare = [_bare(key) for key in keys]
    if _bare(name) in bare:
        return bare.index(_bare(name))
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    short = match["short"] or match["place"]
    # Keys may end in numbers that count from 0 or are in another order: then a number is the end of a key.
    numbers = [(re.findall(r"\d+$", key) or [""])[0] for key in bare]
    if short.isdecimal() and set(numbers) in ({"0", "1"}, {"1", "2"}):
        return numbers.index(short) if short in numbers else None
    return _PLACES[short]


def _bare(name: str) -> str:
    return re.sub(r"[ _\-.]", "", name.casefold())
