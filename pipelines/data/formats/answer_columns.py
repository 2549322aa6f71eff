"""Columns of rows with several answers: prompt, answers, and what somebody thought of them, told by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pipelines.data.formats.unread_columns import VERDICTS, is_set, judges

MOST_ANSWERS = 26
_TOLD = ("strength", "verdict")
"""Names by which a column map names the verdict; the first that is there counts."""
_STEMS = (
    "answer|response|completion|output|candidate|reply|generation|option|text|summary|conversation|ref|continuation"
)
_MARK = "[a-h]|left|right|first|second"
_NUMBERED = re.compile(rf"(?P<stem>.*?)_?(?P<mark>\d{{1,2}}|(?<=_)(?:{_MARK}))")
_IN_FRONT = re.compile(rf"(?:(?:model|assistant|system|bot)_)?(?P<mark>{_MARK})_(?P<stem>{_STEMS})")
_ANSWER = re.compile(rf"(?:.*_)?(?:{_STEMS})")
_PLAIN_ANSWER = re.compile(_STEMS)
_MODEL = re.compile("model|generator|policy|model_name")
_SCORE = re.compile(r"(?:(?:overall|human|mean|avg|total)_)?(?:score|rating|reward|grade|points|quality|rank)")
_ONE_HOT = re.compile("winner|winner_model|is_winner|is_better|is_preferred|is_best")
_PERSON = "annotator|rater|labell?er|evaluator|worker|reviewer|judge"
_BY_PERSON = re.compile(
    rf"((?:{_PERSON}|annotation)_?(?:\d{{1,2}}|(?<=_)[a-h]))(?:_(?:label|vote|preference|choice|verdict))?"
)
_WHO = re.compile(rf"(?:{_PERSON})(?:_(?:id|index|name))?")
_BETTER = re.compile(
    r"(?:better|best|preferred|winning|winner|chosen|selected)"
    r"(?:_(?:answer|response|completion|output|candidate|model|summary))?(?:_?(?:id|idx|index|number|label))?"
)
_VERDICT_NAMES = frozenset(
    (
        *("label", "labels", "preference", "verdict", "vote", "choice", "judgement", "judgment", "annotation", "gold"),
        *("human_preference", "human_label", "human_choice", "gold_label", "decision", "result"),
        *("overall_preference", "preference_strength"),
    )
)
SIGNED = frozenset(
    (
        *("strength", "preference_strength", "overall_preference", "individual_preference", "individual_preferences"),
        *("all_preferences_unprocessed", "three_most_similar_preferences"),
    )
)
"""Names of columns that hold strengths: below 0 the first answer is better, as in HelpSteer2 and HelpSteer3."""
_BY_SEVERAL = (
    *("individual_preference", "individual_preferences", "all_preferences_unprocessed"),
    *("three_most_similar_preferences", "annotators", "annotations", "votes", "judgements", "judgments", "preferences"),
)
_LISTS = ("answers", "responses", "completions", "candidates", "outputs", "generations", "replies", "summaries")
_SCORE_LISTS = ("scores", "ratings", "rewards", "points")
_PROMPTS = (
    *("prompt", "question", "instruction", "query", "context", "dialogue", "dialog", "messages", "conversation"),
    *("conversations", "request", "problem", "post", "history", "input", "info"),
)


class AnswerColumns(NamedTuple):
    """The columns of a row, by what they hold.

    Attributes:
        prompts: those that may hold the prompt, by its usual names; `prompt` and `instruction` before others.
        answers: those with one answer each, in order; empty: they are in a list.
        listed: the list of answers; None: they have columns of their own.
        numbered_from: the number of the first answer; None: the answers have letters or places.
        rival: an answer of a further set of columns that may be the answers as well; None: there is none.
        models: the authors of the answers, in their order; empty: not known.
        scores: for each answer a number, in their order, or of a list of answers one list of numbers; empty: there are
            none.
        verdicts: those that say by one value which answer is better.
        persons: those with one annotator's verdict each.
        several: those with a list of verdicts.
        other_verdict: one that judges, but not in a way that is read; None: there is none.
        who: the name of the annotator of the one verdict; None: not known.
    """

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    listed: str | None
    numbered_from: int | None
    rival: str | None
    models: tuple[str, ...]
    scores: tuple[str, ...]
    verdicts: tuple[str, ...]
    persons: tuple[str, ...]
    several: tuple[str, ...]
    other_verdict: str | None
    who: str | None


def answer_columns(row: Mapping[str, Any]) -> AnswerColumns | None:
    """Return the columns of a row that hold several answers to one prompt; None: there are no two answers."""
    there = tuple((name, _sort(value)) for name, value in row.items() if is_set(value))
    parts = _by_name(there)
    if parts is None:
        return None
    other = next((name for name in VERDICTS if judges(name, row.get(name)) and name not in parts.verdicts), None)
    if isinstance(row.get(other or ""), str) and not parts.verdicts:  # a word that judges, such as `feedback: B`
        return parts._replace(verdicts=(str(other),))
    return parts._replace(other_verdict=other) if other is not None else parts


def plain_name(name: str) -> str:
    """`responseA`, `Response-A` and `response a` as `response_a`."""
    return re.sub(r"[ \-.]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower()


def person_of(name: str) -> str:
    """Return the annotator whose verdicts a column of `AnswerColumns.persons` holds."""
    match = _BY_PERSON.fullmatch(plain_name(name))
    return match[1] if match else name


def may_be_ignored(name: str) -> bool:
    """Whether a column of this name judges answers, so that a column map may say that it need not be read."""
    plain = plain_name(name)
    return name in VERDICTS or says_better(plain) or plain in _BY_SEVERAL or _stem_of(plain, _SCORE, _ONE_HOT)


def _stem_of(plain: str, *stems: re.Pattern[str]) -> bool:
    match = _NUMBERED.fullmatch(plain)
    return match is not None and any(stem.fullmatch(match["stem"]) for stem in stems)


def says_better(name: str) -> bool:
    """Whether a column of this name says which answer is better."""
    plain = plain_name(name)
    return plain in _VERDICT_NAMES or _BETTER.fullmatch(plain) is not None


def _sort(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "list"
    return "object" if isinstance(value, dict) else "number"


@lru_cache(maxsize=256)
def _by_name(there: tuple[tuple[str, str], ...]) -> AnswerColumns | None:
    plain = {name: plain_name(name) for name, _ in there}
    sorts = dict(there)
    families: dict[str, dict[str, str]] = {}
    for name, usual in plain.items():
        match = _NUMBERED.fullmatch(usual) or _IN_FRONT.fullmatch(usual)
        if match is not None:
            families.setdefault(match["stem"], {})[match["mark"]] = name
    sets = [
        (stem, names)
        for stem, members in families.items()
        if _ANSWER.fullmatch(stem) and (names := _in_order(members))
        if all(sorts[name] != "number" for name in names.values())
    ]
    # of several sets of columns the largest, then one without a further word before its name
    sets.sort(key=lambda one: (-len(one[1]), _PLAIN_ANSWER.fullmatch(one[0]) is None, one[0] != "answer"))
    listed = next((name for name in _LISTS if sorts.get(name) == "list"), None)
    if not sets and listed is None:
        return None
    marks: tuple[str, ...] = ()
    rival = None
    if sets:
        stem, best = sets[0]
        marks, listed = tuple(best), None
        alike = [names for other, names in sets[1:] if len(names) == len(best) and _PLAIN_ANSWER.fullmatch(other)]
        if alike and stem != "answer" and _PLAIN_ANSWER.fullmatch(stem):
            rival = next(iter(alike[0].values()))

    known = {usual: name for name, usual in plain.items()}
    answers = tuple(sets[0][1].values()) if sets else ()

    def beside(*stems: re.Pattern[str]) -> tuple[str, ...]:
        for wanted in stems:
            for end in {usual.removeprefix(f"{plain[answer]}_") for answer in answers[:1] for usual in known}:
                of_answer = [known.get(f"{plain[answer]}_{end}") for answer in answers]
                if wanted.fullmatch(end) and all(of_answer):
                    return tuple(name for name in of_answer if name is not None)
            for other, members in families.items():
                if marks and wanted.fullmatch(other) and all(mark in members for mark in marks):
                    return tuple(members[mark] for mark in marks)
        return ()

    in_lists = tuple(name for name in _SCORE_LISTS if sorts.get(name) == "list")
    told = [name for name in _TOLD if name in sorts]
    better = [name for name in plain if says_better(name)]
    persons = tuple(name for name in plain if _BY_PERSON.fullmatch(plain[name]))
    several = ("verdicts",) if "verdicts" in sorts else tuple(known[name] for name in _BY_SEVERAL if name in known)
    return AnswerColumns(
        prompts=tuple(known[name] for name in _PROMPTS if name in known and sorts[known[name]] != "number"),
        answers=answers,
        listed=listed,
        numbered_from=int(marks[0]) if marks and marks[0].isdecimal() else None,
        rival=rival,
        models=beside(_MODEL),
        scores=beside(_SCORE, _ONE_HOT) if listed is None else in_lists[:1],
        verdicts=tuple(told[:1] or better),
        persons=persons,
        several=tuple(name for name in several if sorts[name] in ("list", "object"))[:1],
        other_verdict=None,
        who=next((name for name in plain if _WHO.fullmatch(plain[name]) and sorts[name] in ("text", "number")), None),
    )


def _in_order(members: Mapping[str, str]) -> dict[str, str]:
    """Return a set of answer columns in order, by mark; empty: they are not numbered in one way, without gap."""
    order = sorted(members, key=lambda mark: (int(mark) if mark.isdecimal() else -1, mark))
    ways = (_FROM_0, _FROM_0[1:], tuple("abcdefgh"), ("left", "right"), ("first", "second"))
    whole = any(order == list(marks[: len(order)]) for marks in ways)
    return {mark: members[mark] for mark in order} if whole and 2 <= len(order) <= MOST_ANSWERS else {}


_FROM_0 = tuple(str(number) for number in range(MOST_ANSWERS + 1))


def is_one_hot(name: str) -> bool:
    """Whether a column of `AnswerColumns.scores` says by 1 or 0 that its answer wins, and not by how much."""
    return _stem_of(plain_name(name), _ONE_HOT)


def is_rank(name: str) -> bool:
    """Whether a column of `AnswerColumns.scores` holds ranks, of which the lowest is the best."""
    match = _NUMBERED.fullmatch(plain_name(name))
    return match is not None and match["stem"].endswith("rank")
