"""Several answers to one prompt and a verdict on them: by index, letter, name, strength or scores, of one or of many.

The layouts of PandaLM, LLMBar, alpaca_eval, HelpSteer 2 and 3, SHP, WebGPT, Chatbot Arena and PKU-SafeRLHF are of this
kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import override

from pipelines.data.faults import fault_of, shorten
from pipelines.data.formats.format import VERDICTS, Format, Question, columns, messages_of
from pipelines.data.rows import CanonicalRow, Comparison, Message

_STEMS = "response|answer|output|completion|conversation|human_ref|candidate|generation|reply|summary|option|text"
_ANSWER = re.compile(rf"({_STEMS})(?:[ _-]?(\d)|[ _-]([a-h]|left|right|first|second))", re.IGNORECASE)
_LISTS = ("answers", "responses", "completions", "candidates", "outputs")
_PROMPTS = ("prompt", "instruction", "question", "query", "context", "history", "input", "post")
_PLACES = {"left": 0, "first": 0, "right": 1, "second": 1}
_PEOPLE = re.compile(r"(annotator|rater|judge|worker)[ _-]?(\d+|[a-h])", re.IGNORECASE)
_OPINIONS = ("individual_preference", "individual_preferences")
_NAMES = (
    "verdict",
    "better_response_id",
    "winner",
    *VERDICTS,
    "labels",
    "choice",
    "best",
    "human_preference",
    "result",
)
_STRENGTHS = ("preference_strength", "overall_preference", "strength")
"""Columns that say how much better the second answer is; below 0 the first one is better (HelpSteer 2 and 3)."""
_TIES = {"tie", "tie (bothbad)", "bothbad", "both", "neither", "equal", "same", "draw", "none", "both_bad", "both bad"}
_SCORES = ("score", "rating", "reward", "points")
_TURNS = TypeAdapter(Question)


class Opinion(NamedTuple):
    """A verdict of one annotator.

    Attributes:
        annotator: a name; None: not known.
        scores: one of each answer, the higher the better; all equal: a tie.
        graded: whether the differences of the scores mean something beside their sign.
    """

    annotator: str | None
    scores: tuple[float, ...]
    graded: bool


class JudgedRow(NamedTuple):
    """A prompt, its answers, and what was thought of them."""

    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    opinions: tuple[Opinion, ...]


class _Answers(NamedTuple):
    """Columns of the answers in their order.

    Attributes:
        names: of the columns; of a list, its one column.
        keys: what a verdict calls each answer: ``1``, ``a``; empty: the answers stand in a list.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def first_number(self) -> int | None:
        """Number of the first answer, where the columns are numbered."""
        return int(self.keys[0]) if self.keys and self.keys[0].isdigit() else None


class TwoAnswers(Format):
    """Two or more answers and a verdict on them.

    Attributes:
        numbering: number of the first answer in verdicts, where the names of the answers do not tell; None: not known.
        meanings: number of the answer, counted from 1, that a verdict stands for; 0: a tie.
    """

    model_config = ConfigDict(extra="allow")

    name = "two_answers"
    shape = columns()
    unless = ("chosen", "rejected")
    holds = (Comparison,)
    numbering: ClassVar[int | None] = None
    meanings: ClassVar[Mapping[str, int]] = {}
    prompt: Any = None
    instruction: Any = None
    input: Any = None
    history: Any = None
    answer_1: Any = None
    answer_2: Any = None
    verdict: Any = None
    source: str | None = None

    @classmethod
    @override
    def likeness(cls, row: Mapping[str, Any]) -> int:
        if super().likeness(row) < 0:
            return -1
        answers = _answers(row)
        return 0 if answers is not None and next(_verdicts(row, answers), None) is not None else -1

    @classmethod
    @override
    def settled(cls, rows: Sequence[Mapping[str, Any]], meanings: Mapping[str, int]) -> type[Format]:
        return _settled(cls, _numbering(rows), tuple(meanings.items()))

    @override
    def rows(self) -> tuple[CanonicalRow, ...]:
        row = {**self.model_dump(include=set(TwoAnswers.model_fields), exclude_none=True), **(self.model_extra or {})}
        judged = self.judged(row)
        pairs = []
        for one, two in combinations(range(len(judged.answers)), 2):
            differences = [opinion.scores[one] - opinion.scores[two] for opinion in judged.opinions]
            votes = sum((difference > 0) - (difference < 0) for difference in differences)
            if votes:
                better, worse = (one, two) if votes > 0 else (two, one)
                graded = all(opinion.graded for opinion in judged.opinions)
                margin = abs(fmean(differences)) if graded else None
                pairs.append((better, worse, margin))
        texts = judged.answers
        return tuple(
            self.completed(
                Comparison(
                    prompt=judged.prompt, chosen=texts[better], rejected=texts[worse], margin=margin, source=self.source
                )
            )
            for better, worse, margin in pairs
        )

    @classmethod
    def judged(cls, row: Mapping[str, Any]) -> JudgedRow:
        """The prompt, the answers and the verdicts of a row.

        Raises:
            ValueError: one of them is missing, or a verdict does not say which answer it means.
        """
        answers = _answers(row)
        if answers is None:
            raise ValueError("there are no two answers, such as `answer_1` and `answer_2`")
        prompt, texts = _prompt_and_texts(row, answers)
        opinions = []
        for annotator, column, value in _verdicts(row, answers):
            scores, graded = cls._scores(column, value, row, answers, len(texts))
            opinions.append(Opinion(annotator, scores, graded))
        if not opinions:
            raise ValueError("there is no verdict on the answers")
        return JudgedRow(prompt, texts, tuple(opinions))

    @classmethod
    def _scores(
        cls, column: str, value: Any, row: Mapping[str, Any], answers: _Answers, size: int
    ) -> tuple[tuple[float, ...], bool]:
        """Scores of the answers by one verdict, and whether they are graded."""
        if isinstance(value, tuple):
            return value, True
        number = _number(value)
        if cls.meanings:
            text = f"{number:g}" if number is not None else str(value).strip()
            if text not in cls.meanings:
                raise ValueError(f"`{column}`: no meaning is given of {shorten(str(value))}")
            return _best(cls.meanings[text] - 1, size, column, value), False
        if number is None:
            return _best(_place_of_name(str(value), row, answers), size, column, value), False
        if column in _STRENGTHS and size == 2:
            return (-number, number), True
        if column == "labels" and answers.names[0].lower().startswith("human_ref"):  # SHP: 1 says that A is better
            return _best(0 if number == 1 else 1, size, column, value), False
        first = answers.first_number if answers.first_number is not None else cls.numbering
        if first is None:
            raise ValueError(
                f"`{column}`: {value} does not say which answer it means; tell it by "
                f"`--verdicts {value}=1` (the number of the answer, counted from 1; 0 is a tie)"
            )
        if number != int(number) and size == 2 and first < number < first + 1:  # a share of votes, as in alpaca_eval
            return (first + 1 - number, number - first), False
        tied = number == -1 or (number == 0 and first == 1)
        return _best(-1 if tied else number - first, size, column, value), False


def _best(place: float, size: int, column: str, value: Any) -> tuple[float, ...]:
    """Scores by which the answer at this place is better than all others; -1: a tie."""
    if place not in range(-1, size):
        raise ValueError(f"`{column}`: {shorten(str(value))} is none of the {size} answers")
    return tuple(float(index == place) for index in range(size))


def _place_of_name(value: str, row: Mapping[str, Any], answers: _Answers) -> int:
    """Place of the answer that a verdict names; -1: a tie."""
    text = value.strip().lower()
    if text in _TIES:
        return -1
    for place, key in enumerate(answers.keys):
        model = row.get(f"model_{key}")
        named = isinstance(model, str) and model.strip().lower() == text
        if named or text in (key, answers.names[place].lower()) or re.fullmatch(rf"[a-z]+[ _-]?{key}", text):
            return place
    if text in _PLACES and len(answers.keys) == 2:
        return _PLACES[text]
    names = ", ".join(answers.names)
    raise ValueError(f"the verdict {shorten(value)} names none of the answers ({names}), and is no tie")


def _answers(row: Mapping[str, Any]) -> _Answers | None:
    """Columns of the answers; None: there are not two."""
    groups: dict[tuple[str, bool], dict[str, str]] = {}
    for name, value in row.items():
        match = _ANSWER.fullmatch(name)
        if match and isinstance(value, str | list) and value:
            key = (match[2] or match[3]).lower()
            groups.setdefault((match[1].lower(), key.isdigit()), {})[key] = name
    for group in sorted(groups.values(), key=len, reverse=True):
        keys = tuple(sorted(group, key=lambda key: (_PLACES.get(key, 0), key)))
        if len(keys) > 1 and (not keys[0].isdigit() or keys[0] in "01"):
            return _Answers(tuple(group[key] for key in keys), keys)
    for name in _LISTS:
        texts = row.get(name)
        if isinstance(texts, list) and len(texts) > 1 and all(isinstance(text, str) for text in texts):
            return _Answers((name,), ())
    return None


def _verdicts(row: Mapping[str, Any], answers: _Answers) -> Iterator[tuple[str | None, str, Any]]:
    """Yield annotator, column and value of every verdict; a value that is a tuple holds a score of each answer."""
    people = {name: row[name] for name in row if _PEOPLE.fullmatch(name) and _says(row[name])}
    if people:
        yield from ((name, name, value) for name, value in people.items())
        return
    for name in _OPINIONS:
        if isinstance(row.get(name), list) and row[name]:
            for opinion in row[name]:
                value = opinion.get("score") if isinstance(opinion, dict) else opinion
                if _number(value) is not None:
                    yield None, _STRENGTHS[0], value
            return
    who = next(
        (row[name] for name in ("annotator", "judge", "annotator_id", "worker_id") if _says(row.get(name))), None
    )
    annotator = None if who is None else str(who)
    marks = {key: _number(row.get(f"winner_model_{key}")) for key in answers.keys}
    if marks and None not in marks.values():  # one-hot, as on Kaggle
        winners = [key for key, mark in marks.items() if mark == 1]
        yield annotator, "winner", winners[0] if len(winners) == 1 else "tie"
        return
    for name in (*_NAMES, *_STRENGTHS):
        if _says(row.get(name)):
            yield annotator, name, row[name]
            return
    for stem in _SCORES:
        for form in (f"{stem}_{{key}}", f"{{name}}_{stem}", f"{stem}{{key}}"):
            names = [
                _named(row, form.format(key=key, name=name))
                for key, name in zip(answers.keys, answers.names, strict=True)
            ]
            if names and all(name is not None and _number(row[name]) is not None for name in names):
                yield annotator, stem, tuple(float(row[name]) for name in names if name is not None)
                return


def _named(row: Mapping[str, Any], name: str) -> str | None:
    """The column of that name, whatever its case."""
    return next((column for column in row if column.lower() == name.lower()), None)


def _says(value: Any) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or _number(value) is not None


def _number(value: Any) -> float | None:
    """The number that a value is or spells; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number == number and abs(number) < 1e6 else None


def _numbering(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Number of the first answer, as verdicts use it that stand beside answers without numbers."""
    seen: set[float] = set()
    sizes = []
    for row in rows:
        answers = _answers(row)
        if answers is None or answers.first_number is not None:
            continue
        sizes.append(len(answers.keys) or len(row[answers.names[0]]))
        seen.update(
            number
            for _, name, value in _verdicts(row, answers)
            if name not in _STRENGTHS and (number := _number(value)) is not None
        )
    if not seen or not sizes or not seen <= set(range(max(sizes) + 1)):
        return None
    # with a 0 among them, it is the first answer or a tie, or says that the first is not the better one
    return 1 if max(seen) == max(sizes) else None


def _prompt_and_texts(row: Mapping[str, Any], answers: _Answers) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    values = [row[name] for name in answers.names] if answers.keys else list(row[answers.names[0]])
    if all(isinstance(value, str) for value in values):
        return _prompt(row), _checked(values)
    dialogues = [_dialogue(name, value) for name, value in zip(answers.names, values, strict=True)]
    if any(not turns or turns[-1].role != "assistant" for turns in dialogues):
        raise ValueError("a conversation does not end with the assistant's turn")
    prompt = dialogues[0][:-1]
    if not prompt:
        prompt = _prompt(row)
    if any(turns[:-1] != dialogues[0][:-1] for turns in dialogues):
        raise ValueError("the conversations differ before their last turn, so the verdict is not about one answer")
    return prompt, _checked([turns[-1].content for turns in dialogues])


def _checked(texts: Sequence[str]) -> tuple[str, ...]:
    if any(not text.strip() for text in texts):
        raise ValueError("an answer is blank")
    return tuple(texts)


def _dialogue(name: str, value: Any) -> tuple[Message, ...]:
    try:
        return messages_of(_TURNS.validate_python(value))
    except ValidationError as error:
        raise ValueError(f"{name}: {fault_of(error)}") from error


def _prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    name = next((name for name in _PROMPTS if row.get(name) not in (None, "", [])), None)
    if name is None:
        raise ValueError(f"there is no prompt: none of {', '.join(_PROMPTS)} is there")
    value = row[name]
    if isinstance(value, dict):  # WebGPT
        value = value.get("full_text") or value.get("text")
    beside = row.get("input")
    if name == "instruction" and isinstance(beside, str) and beside.strip() and isinstance(value, str):
        value = f"{value}\n{beside}"
    return _dialogue(name, value)


@cache
def _settled(
    layout: type[TwoAnswers], numbering: int | None, meanings: tuple[tuple[str, int], ...]
) -> type[TwoAnswers]:
    if numbering is None and not meanings:
        return layout

    class Settled(layout):  # type: ignore[valid-type,misc]
        pass

    Settled.numbering, Settled.meanings = numbering, dict(meanings)
    return Settled
