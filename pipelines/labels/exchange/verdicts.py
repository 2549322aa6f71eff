"""Verdict of one annotator on one task in another program, control by control."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.data.choices import TIES, better_of_two, plain
from pipelines.data.faults import shorten, type_name
from pipelines.labels.exchange.foreign_task import ForeignTask
from pipelines.labels.label_types import Kind, Value

FLAGS = {"0": 0, "1": 1, "no": 0, "yes": 1, "false": 0, "true": 1, "bad": 0, "good": 1}
UNDISTRIBUTED = "answers left in no bucket (read as tied for the last rank)"
NO_ANSWER = "ranked things of `{}` that are no answers of the task (passed over)"
INCOMPLETE = "questions answered for some of the answers only (left out)"
NOT_READ = "answers to `{}` that are not read (of no known form, or not about an answer of the task)"
BUCKETS_UNKNOWN = (
    "ranker: the order of the buckets of `{}` from best to worst is not known: {}; `rlhf labels convert` takes it from "
    "the labeling configuration (--label-config FILE) or from an option (--buckets BEST,...,WORST)"
)
COMMENT = "comment"
"""The control for remarks in our own configurations: never a judgement, whatever it says."""
_AGAINST = re.compile("worse|worst|reject|dislike|loser|bad", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*?)(?:[ _\-.]?(\d{1,2})|[ _\-.]([a-hA-H]))")


@dataclass
class Verdict:
    """Judgments of one annotation, filled in control by control. Places of answers are those on the page.

    Every method that records one raises ValueError where it contradicts another, or what it is about.

    Attributes:
        place: place of the record, for messages.
        notes: counts of the file; everything that is not read is counted there.
        choices: numbers that the texts of choices stand for.
        seconds: time spent; None: not known.
        time: time of the last change, in UTC; None: not known.
        skipped: the annotator did not judge the task.
        known: the annotation is the known answer of a control task, and nobody's label.
        values: kind and value by question, the value in the task's own order of answers.
        bare: texts by control which may be choices or written answers; `close` decides.
        ties: controls that report a tie, but not of which question.
        texts: written texts by control.
        unread: controls with a result that is not read.
        numbered: questions whose numbers may be 0/1 or a scale; numbers that are all 0 or 1 count as binary here.
    """

    foreign: ForeignTask
    annotator: str
    place: str
    notes: Counter[str]
    choices: Mapping[str, int] = field(default_factory=dict)
    seconds: float | None = None
    time: str | None = None
    skipped: bool = False
    known: bool = False
    values: dict[str, tuple[Kind, Value]] = field(default_factory=dict)
    bare: dict[str, str] = field(default_factory=dict)
    ties: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    numbered: set[str] = field(default_factory=set)
    _numbers: dict[str, tuple[Kind | None, dict[int, int]]] = field(default_factory=dict)

    def prefer(self, question: str, place: int) -> None:
        """Record that the answer at this place is the better one of two; of a single answer it counts as not read."""
        if len(self.foreign.keys) < 2:
            self.pass_over(question)
            return
        if len(self.foreign.keys) > 2:
            raise ValueError(f"`{question}` chooses one of two answers, and the task has {len(self.foreign.keys)}")
        self._set(question, "pairwise", self.foreign.home((1, 2) if place == 0 else (2, 1)))

    def rank(self, question: str, groups: Sequence[Sequence[object]]) -> bool:
        """Record a ranking: answers from best to worst, tied ones together.

        Ranked things that are no answers of the task are counted and passed over, such as the names of optional fields
        that the record lacks. A ranking without one of the answers is counted and left out. Returns whether the ranking
        is the order in which the answers were shown.
        """
        ranks: dict[int, int] = {}
        known = [[place for key in group if (place := self.foreign.place(key)) is not None] for group in groups]
        self.notes[NO_ANSWER.format(question)] += sum(map(len, groups)) - sum(map(len, known))
        for number, places in enumerate((places for places in known if places), 1):
            for place in places:
                if place in ranks:
                    raise ValueError(f"`{question}` ranks the answer {shorten(self.foreign.keys[place])} twice")
                ranks[place] = number
        if not ranks or len(ranks) < len(self.foreign.keys):
            self.notes[INCOMPLETE] += 1
            self.unread.add(question)
            return False
        by_place = [ranks[place] for place in range(len(ranks))]
        self._set(question, "ranking", self.foreign.home(by_place))
        return len(by_place) > 1 and by_place == list(range(1, len(by_place) + 1))

    def number(self, control: str, target: str, value: int, kind: Kind | None = None) -> None:
        """Record a number for one answer: the only one, or that of the target or of the end of the control's name.

        The target is the part of the page that the control is attached to. Where the kind, binary or scale, is not
        known, all values together decide.
        """
        question, place = self._about(control, target)
        if place is None:
            self.pass_over(control)
            return
        earlier, by_place = self._numbers.get(question, (kind, {}))
        if place in by_place:
            raise ValueError(f"`{control}` judges the same answer twice")
        if {earlier, kind} == {"binary", "scale"}:
            raise ValueError(f"`{control}` judges one answer by a choice and another by a number")
        kinds: tuple[Kind | None, ...] = (earlier, kind)
        both = earlier if earlier == kind else ("scale" if "scale" in kinds else None)
        self._numbers[question] = (both, {**by_place, place: value})

    def choice(self, control: str, target: str, text: str) -> None:
        """Record a choice by its text: the better of two answers, a tie, or 0 or 1 for one answer."""
        match self._meaning(control, target, text):
            case "told", number:
                self.number(control, target, number)
            case "tie", _:
                self.ties.append(control)
            case "better", place:
                self.prefer(control, place)
            case "flag", number:
                self.number(control, target, number, "binary")
            case _:
                self.pass_over(control)

    def pass_over(self, control: str) -> None:
        """Count a result of a control as not read."""
        self.notes[NOT_READ.format(control)] += 1
        self.unread.add(control)

    def is_choice(self, control: str, text: str) -> bool:
        """Whether a bare text reads like a choice."""
        return self._meaning(control, "", text) is not None

    def _meaning(self, control: str, target: str, text: str) -> tuple[str, int] | None:
        """Interpret a choice: a declared number, a tie, the place of the better answer, 0 or 1; None: unknown."""
        word = plain(text)
        count = len(self.foreign.keys)
        about = self._about(control, target)[1] is not None
        # "1" and "2" of a control for one answer may be a mark or the name of the better one: read as a mark only.
        mark = about and (word in FLAGS or word.isdecimal())
        compares = count == 2 and not mark and not _AGAINST.search(control)
        side = better_of_two(word, self.foreign.keys) if compares else None
        if text in self.choices:
            return "told", self.choices[text]
        if count >= 2 and word in TIES:
            return "tie", 0
        if side is not None:
            return "better", side
        return ("flag", FLAGS[word]) if about and word in FLAGS else None

    def write(self, control: str, text: str) -> None:
        """Record a written text: a demonstration, or a comment in a file of judgements."""
        if text.strip():
            self.texts[control] = text

    def close(self, written: Collection[str]) -> None:
        """Decide what the bare texts are, and combine the numbers of single answers into values.

        A choice that cannot be read is counted, and kept as a text; bare texts of the controls `written` are written
        answers. A question with numbers for some of the answers only is counted and left out.
        """
        for control, text in self.bare.items():
            if control not in written:
                self.choice(control, "", text)
            if control in written or not self.is_choice(control, text):
                self.write(control, text)
        count = len(self.foreign.keys)
        for question, (kind, by_place) in self._numbers.items():
            first = 0 if 0 in by_place else 1
            numbers = [by_place[place] for place in range(first, count + first) if place in by_place]
            if len(numbers) < count:
                self.notes[INCOMPLETE] += 1
                continue
            if kind is None:
                self.numbered.add(question)
            self._set(question, kind or _kind_of(numbers), self.foreign.home(numbers))

    def _set(self, question: str, kind: Kind, value: Value) -> None:
        if question in self.values:
            raise ValueError(f"`{question}` is answered twice")
        self.values[question] = (kind, value)

    def _about(self, control: str, target: str) -> tuple[str, int | None]:
        """Return question and answer of a control; the number of the answer counts from 0 or 1, as the names do."""
        count = len(self.foreign.keys)
        stem, own = _split(control)
        own = own if own is not None and own <= count else None
        at = self.foreign.keys.index(target) + 1 if target in self.foreign.keys else _split(target)[1]
        at = at if at is not None and at <= count else None
        if at is not None:
            return (stem if own == at else control), at
        if own is not None and stem:
            return stem, own
        return control, 1 if count == 1 else None


def ranked_groups(control: str, value: Any, buckets: Sequence[str], notes: Counter[str]) -> list[list[Any]]:
    """Return the answers of a Ranker of Label Studio from best to worst, tied ones together.

    A Ranker gives a list, the same list under its own name, or buckets: a list for each bucket, and the answers that
    are in no bucket under ``_``. Answers in one bucket are tied. Those in no bucket rank last, unless `buckets`, the
    names from best to worst, has a place for ``_``; they are counted in `notes`. The order of the keys in `value` says
    nothing, because programs and databases between Label Studio and here may change it.

    Raises:
        ValueError: the result has none of these shapes, or the order of its buckets is not known.
    """
    if isinstance(value, list):
        return [[key] for key in value]
    if not isinstance(value, dict) or not value or not all(isinstance(group, list) for group in value.values()):
        raise ValueError(f"ranker: must be a list of ids, or an object of such lists, not {type_name(value)}")
    rest = value.get("_", [])
    named = [name for name in value if name != "_"]
    if named == [control] and control not in buckets:
        if not rest:
            return [[key] for key in value[control]]
        buckets = (control,)
    if len(value) == len(named) == 1 and not buckets:
        return [[key] for key in value[named[0]]]
    filled = [name for name in value if value[name]]
    unknown = [name for name in filled if name not in (*buckets, "_")]
    if len(filled) > 1 and (unknown or not buckets):
        raise ValueError(BUCKETS_UNKNOWN.format(control, ", ".join(unknown)))
    if "_" not in buckets:
        notes[UNDISTRIBUTED] += len(rest)
        buckets = (*buckets, "_")
    return [value[name] for name in (buckets if len(filled) > 1 else filled) if name in value]


def _kind_of(numbers: Sequence[int]) -> Kind:
    return "binary" if set(numbers) <= {0, 1} else "scale"


def _split(name: str) -> tuple[str, int | None]:
    """Split a name into its stem and the number at its end, or that of a letter there; None: it has neither."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return name, None
    return match[1], int(match[2]) if match[2] else ord(match[3].lower()) - ord("a") + 1
