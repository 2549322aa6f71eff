"""Two or more answers to one prompt, and a verdict on which is better: by number, letter, name, score or strength."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import ConfigDict, PrivateAttr, TypeAdapter, ValidationError
from typing_extensions import override

from pipelines.data.choices import TIES, better_of_two, plain
from pipelines.data.faults import Fault, fault_of, shorten, type_name
from pipelines.data.formats.alpaca import Instruction
from pipelines.data.formats.answer_columns import (
    SIGNED,
    AnswerColumns,
    answer_columns,
    is_one_hot,
    is_rank,
    person_of,
    plain_name,
    says_better,
)
from pipelines.data.formats.format import FLAG, LIST, NUMBER, TEXT, Format, columns
from pipelines.data.formats.sharegpt import Turn
from pipelines.data.formats.transcripts import answer_alone, open_transcript
from pipelines.data.formats.turns import Question, messages_of, plain_answer
from pipelines.data.formats.unread_columns import CONTEXT, is_set, way_out
from pipelines.data.rows import CanonicalRow, Comparison, Message, Prompt
from pipelines.errors import DataError

Scale = Literal["from_0", "from_1", "from_1_or_tie", "first_better", "strength"]
"""The numbers of verdicts: the place of the better answer counted from 0 or from 1 (and 0 for a tie), 1 for the first
answer and 0 for the second, or a strength that is below 0 where the first answer is better."""
Scales: TypeAlias = Mapping[str, Scale]
"""By column."""
Worth: TypeAlias = tuple[float, ...]
"""[K] of each answer, higher is better."""

_BODIES = ("text", "answer", "response", "completion", "output", "content", "body", "summary", "answer_text", "value")
_QUESTIONS = ("full_text", "text", "content", "question", "prompt", "body", "post")
_VALUES = (
    *("score", "strength", "preference", "label", "verdict", "vote", "winner", "choice", "value", "rating"),
    *("overall_preference", "better", "best"),
)
_PEOPLE = ("annotator", "annotator_id", "worker", "worker_id", "rater", "judge", "user", "name", "id")
_ITEM_SCORES = ("score", "overall_score", "rating", "pm_score", "reward", "rank")
_TURNS, _SHAREGPT = TypeAdapter(Question), TypeAdapter(list[Turn])
_SKIPPED = -100
"""The strength in HelpSteer2 of an annotator who found neither answer valid."""


class Opinion(NamedTuple):
    """One annotator's verdict.

    Attributes:
        annotator: the name; None: not known.
        worth: [K] of each answer.
        measured: differences of worth say by how much an answer is better; otherwise they only say which is.
    """

    annotator: str | None
    worth: Worth
    measured: bool


class AnswerText(NamedTuple):
    """One of the answers.

    Attributes:
        text: what is judged.
        model: its author; None: not known.
        before: the turns before it where the column holds a whole dialogue.
        score: of the answer, where it stands in one object with it; None: it does not.
    """

    text: str
    model: str | None
    before: tuple[Message, ...]
    score: float | None


class TwoAnswers(Format):
    """A prompt, its answers in columns of their own or a list, and one verdict or several.

    Attributes:
        scales: of the columns with numbers, by the first rows of the source; None: each row speaks for itself.
        meanings: number of the answer, counted from 1, that a verdict stands for; 0: a tie.
    """

    model_config = ConfigDict(extra="allow")

    name = "two_answers"
    shape = columns(prompt=TEXT + LIST, answer_1=TEXT + LIST, answer_2=TEXT + LIST, verdict=FLAG + NUMBER + TEXT)
    unless = ("rejected",)
    holds = (Comparison,)
    scales: ClassVar[Scales | None] = None
    meanings: ClassVar[Mapping[str, int]] = {}
    prompt: Any = None
    instruction: Any = None
    input: Any = None
    context: Any = None
    history: Any = None
    answers: Any = None
    answer_0: Any = None
    answer_1: Any = None
    answer_2: Any = None
    answer_3: Any = None
    answer_4: Any = None
    answer_5: Any = None
    answer_6: Any = None
    answer_7: Any = None
    answer_8: Any = None
    verdict: Any = None
    strength: Any = None
    verdicts: Any = None
    annotator: Any = None
    source: str | None = None
    _known: tuple[dict[str, Any], AnswerColumns] | None = PrivateAttr(None)

    @classmethod
    @override
    def likeness(cls, row: Mapping[str, Any]) -> int:
        if any(row.get(column) is not None for column in cls.unless):
            return -1
        parts = answer_columns(row)
        if parts is None or not (parts.prompts or _are_dialogues(row, parts)):
            return -1
        return len(cls.shape) if _is_judged(row, parts) else -1

    @classmethod
    @override
    def unread(cls, row: Mapping[str, Any]) -> Fault | None:
        parts = answer_columns(row)
        if parts is None or (fault := super().unread(row)) is not None:
            return None if parts is None else fault
        asked = _question_columns(row, parts)
        for name in parts.prompts:
            if plain_name(name) in CONTEXT and name not in asked and asked:
                return Fault(name, "is no column of the format, so it would be left out of the question", way_out(name))
        return None

    @classmethod
    @override
    def described(cls) -> str:
        return f"{cls.name}: a prompt, two or more answers (answer_1, answer_2), and a verdict on which is better"

    @classmethod
    @override
    def seen_in(cls, row: Mapping[str, Any]) -> str:
        parts = answer_columns(row)
        if parts is None:
            return super().seen_in(row)
        answers = parts.answers or (parts.listed,)
        verdicts = parts.verdicts[:1] or parts.scores or parts.persons or parts.several
        return ", ".join(str(name) for name in (*_question_columns(row, parts), *answers, *verdicts))

    @classmethod
    @override
    def settled(cls, rows: Sequence[Mapping[str, Any]], meanings: Mapping[str, int]) -> type[Format]:
        return _settled(cls, tuple(_scales(rows).items()), tuple(meanings.items()))

    @override
    def canonical(self) -> CanonicalRow:
        """The first of `rows`.

        Raises:
            ValueError: the answers are tied; see also `rows`.
        """
        rows = self.rows()
        if not rows:
            raise ValueError("the answers are tied")
        return rows[0]

    @override
    def rows(self) -> tuple[CanonicalRow, ...]:
        """All comparisons of answers that are not tied, those of the best answer first.

        The verdict of the row counts before those of single annotators; several of these count by the mean of their
        ranks, as `rlhf pairs` counts them.
        """
        prompt, answers = self.task()
        asked = self._asked(prompt)
        annotator, worth, measured = self._overall(answers) or _common(self.opinions(answers))
        best_first = sorted(range(len(answers)), key=lambda index: -worth[index])
        return tuple(
            Comparison(
                prompt=asked.prompt,
                chosen=answers[better].text,
                rejected=answers[worse].text,
                margin=round(worth[better] - worth[worse], 6) if measured else None,
                annotator=annotator,
                source=self.source,
            )
            for better, worse in combinations(best_first, 2)
            if worth[better] - worth[worse] > 1e-9
        )

    @override
    def prompts(self) -> tuple[CanonicalRow, ...]:
        return (self._asked(self.task()[0]),)

    def _asked(self, prompt: tuple[Message, ...]) -> Prompt:
        """The prompt with the columns `system` and `tools`; of tied answers too it must be one."""
        return self.completed(Prompt(prompt=prompt))

    def task(self) -> tuple[tuple[Message, ...], tuple[AnswerText, ...]]:
        """The prompt, without the columns `system` and `tools`, and the answers.

        Raises:
            ValueError: there is no prompt, several columns may hold it or the answers, or an answer is blank or
                neither text nor an assistant turn.
        """
        row, parts = self._parts
        if parts.listed is not None:
            answers = tuple(_answer(f"{parts.listed}[{n}]", item) for n, item in enumerate(row[parts.listed]))
        else:
            answers = tuple(_answer(name, row[name]) for name in parts.answers)
        models = [row[name] for name in parts.models if isinstance(row[name], str)]
        if len(models) == len(answers):
            answers = tuple(answer._replace(model=model) for answer, model in zip(answers, models, strict=True))
        asked = _question(row, parts)
        transcript = _transcript(row, parts)
        if transcript is not None:
            answers = tuple(answer._replace(text=answer_alone(transcript, answer.text)) for answer in answers)
        before = answers[0].before
        if any(answer.before != before for answer in answers):
            raise ValueError("the dialogues differ before their last turn, so the answers are not to one prompt")
        said = {turn.content.strip() for turn in before}
        if said and not {turn.content.strip() for turn in asked} <= said:
            raise ValueError("the prompt is none of the turns that the answers share")
        if not said and not asked:
            raise ValueError(f"there is no prompt; name its column: {_naming('prompt=NAME')}")
        return before or asked, answers

    def opinions(self, answers: Sequence[AnswerText]) -> list[Opinion]:
        """The verdicts of single annotators, or else the one verdict of the row.

        Raises:
            DataError: a verdict says neither an answer nor a tie.
            ValueError: nobody has judged the answers, or several columns may hold the verdict.
        """
        row, parts = self._parts
        judged: list[tuple[str | None, str, Any]] = [(person_of(name), name, row[name]) for name in parts.persons]
        judged += [(who, name, value) for name in parts.several for who, value in _single(row[name])]
        told = [self._opinion(name, value, answers, who) for who, name, value in judged]
        opinions = [opinion for opinion in (told if any(told) else [self._overall(answers)]) if opinion is not None]
        if not opinions and parts.other_verdict is not None:
            name = parts.other_verdict
            hint = f"where it does: {_naming(f'verdict={name}')}; where it is no verdict: {_naming(f'{name}=')}"
            raise DataError("judges, and does not say which answer is better", where=name, hint=hint)
        if not opinions:
            raise ValueError("there is no verdict on the answers")
        return opinions

    def _overall(self, answers: Sequence[AnswerText]) -> Opinion | None:
        """The verdict of the row as a whole."""
        row, parts = self._parts
        who = None if parts.who is None else str(row[parts.who])
        if parts.verdicts and (opinion := self._opinion(parts.verdicts[0], row[parts.verdicts[0]], answers, who)):
            return opinion
        if parts.scores:
            numbers = row[parts.scores[0]] if parts.listed is not None else [row[name] for name in parts.scores]
            if len(numbers) != len(answers):
                reason = f"must be a number for each of the {len(answers)} answers, not {len(numbers)}"
                raise DataError(reason, where=parts.scores[0])
            return _by_scores(parts.scores[0], [_number_of(number) for number in numbers], who)
        if parts.listed is not None and (name := _item_scores(row, parts)) is not None:
            return _by_scores(name, [answer.score for answer in answers], who)
        return None

    def _opinion(self, name: str, value: Any, answers: Sequence[AnswerText], who: str | None) -> Opinion | None:
        """Read one verdict; None: it says nothing."""
        if isinstance(value, dict):
            person, value = _inside(value)
            who = who if person is None else person
        if isinstance(value, list) and value:
            hint = f"where these are the verdicts of several annotators: {_naming(f'verdicts={name}')}"
            raise DataError("must be one verdict, not a list", where=name, hint=hint)
        if not is_set(value) or isinstance(value, list):
            return None
        count = len(answers)
        told = f"{value:g}" if isinstance(value, float) else str(value).strip().lower()
        if told in self.meanings:
            meant = self.meanings[told]
            if meant > count:
                raise DataError(f"there are {count} answers only, not {meant}", where=name)
            return Opinion(who, _only(meant - 1, count), measured=False)
        number = _number_of(value)
        if number is None:
            place = self._by_words(str(value), answers)
            if place is None:
                raise DataError("names none of the answers, and is no tie", where=name, hint=f"found {shorten(value)}")
            return Opinion(who, _only(place, count), measured=False)
        scales = self.scales if self.scales is not None else _scales([self._parts[0]])
        scale = scales.get(name)
        if scale == "strength" and count > 2:
            raise DataError(f"is a strength, which compares two answers and not {count}", where=name)
        if scale == "strength":
            strengths = (max(-number, 0.0), max(number, 0.0))
            return None if number == _SKIPPED else Opinion(who, strengths, measured=True)
        told_numbers = any(_number_of(meaning) is not None for meaning in self.meanings)
        place = None if told_numbers else _by_number(number, scale, count)
        if place is None:
            raise _no_place(name, told, scale, count)
        return Opinion(who, _only(place, count), measured=False)

    def _by_words(self, text: str, answers: Sequence[AnswerText]) -> int | None:
        """The place of the answer that a text names; -1: a tie; None: it names none."""
        words = plain(text.replace("[[", "").replace("]]", "").replace("_", " "))
        columns_named = [plain_name(key) for key in self._parts[1].answers]
        if words in TIES or (words == "c" and "[[" in text and len(answers) == 2):
            return -1
        if plain_name(text.strip()) in columns_named:
            return columns_named.index(plain_name(text.strip()))
        models = [plain((answer.model or "").replace("_", " ")) for answer in answers]
        if models.count(words) == 1:
            return models.index(words)
        place = None
        if len(answers) == 2:
            place = better_of_two(words, columns_named or ("1", "2"))
        elif letter := re.fullmatch(r"(?:(?:answer|response|completion|output|model) ?)?([a-z])", words):
            place = ord(letter[1]) - ord("a")
        texts = [answer.text.strip() for answer in answers]
        if place is None and texts.count(text.strip()) == 1:
            return texts.index(text.strip())
        return place if place is not None and place < len(answers) else None

    @property
    def _parts(self) -> tuple[dict[str, Any], AnswerColumns]:
        """The row as a whole, and its columns."""
        if self._known is None:
            row = self.__dict__ | (self.__pydantic_extra__ or {})
            self._known = row, self._columns(row)
        return self._known

    @staticmethod
    def _columns(row: Mapping[str, Any]) -> AnswerColumns:
        parts = answer_columns(row)
        if parts is None and answer_columns({name: value if is_set(value) else "?" for name, value in row.items()}):
            raise ValueError("an answer is blank or missing")
        if parts is None:
            raise ValueError("there are no two answers, such as `answer_1` and `answer_2`")
        if parts.rival is not None:
            hint = f"name their columns: {_naming('answer_1=FIRST', 'answer_2=SECOND')}"
            raise ValueError(f"the answers may be in `{parts.answers[0]}` or in `{parts.rival}`; {hint}")
        if len(parts.verdicts) > 1:
            several = " or ".join(f"`{name}`" for name in parts.verdicts)
            raise ValueError(f"the verdict may be {several}; name it: {_naming(f'verdict={parts.verdicts[0]}')}")
        return parts


def asks(row: Mapping[str, Any]) -> bool:
    """Whether a row with a verdict on several answers has the question as a dialogue that ends with it."""
    turns = next((row[name] for name in ("messages", "conversations") if isinstance(row.get(name), list)), None)
    if not turns or not isinstance(turns[-1], dict) or TwoAnswers.likeness(row) < 0:
        return False
    return turns[-1].get("role", turns[-1].get("from")) in ("user", "human")


def refusal(row: Mapping[str, Any], *, judged: bool) -> str | None:
    """Return the hint for a row with several answers that fits no format.

    Args:
        row: under canonical names.
        judged: only where there is a verdict on the answers too.

    Returns:
        None: it is no such row.
    """
    parts = answer_columns(row)
    if parts is None:
        answers = _named_by_verdict(row)
        named = _naming(*(f"answer_{number}={name}" for number, name in enumerate(answers, 1)))
        return f"the row has a verdict on answers: name these with {named}" if answers else None
    answers = parts.answers or (str(parts.listed),)
    if not _is_judged(row, parts):
        told = f"the row has answers ({', '.join(answers)}): name the verdict on them with {_naming('verdict=VERDICT')}"
        return None if judged else told
    if parts.prompts or row.get("rejected") is not None:
        return None
    told = f"the row has answers ({', '.join(answers)}) and a verdict, but no prompt"
    return f"{told}: name it with {_naming('prompt=PROMPT')}"


def _named_by_verdict(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns of texts with unusual names of which a verdict names one: of `winner: x` these are `cand_x`, `cand_y`."""
    texts = {plain_name(name): name for name, value in row.items() if isinstance(value, str | list) and is_set(value)}
    for name, value in row.items():
        if not says_better(name) or not isinstance(value, str):
            continue
        mark = plain_name(value.strip())
        for chosen in texts:
            stem = chosen.rpartition("_")[0]
            alike = tuple(texts[other] for other in texts if stem and other.rpartition("_")[0] == stem)
            if len(alike) > 1 and mark in (chosen, chosen.removeprefix(f"{stem}_")) and texts[chosen] != name:
                return alike
    return ()


def _is_judged(row: Mapping[str, Any], parts: AnswerColumns) -> bool:
    if parts.verdicts or parts.scores or parts.persons or parts.several or parts.other_verdict is not None:
        return True
    return _item_scores(row, parts) is not None


def _are_dialogues(row: Mapping[str, Any], parts: AnswerColumns) -> bool:
    return bool(parts.answers) and all(isinstance(row[name], list) for name in parts.answers)


def _item_scores(row: Mapping[str, Any], parts: AnswerColumns) -> str | None:
    """The key of the score that each answer of a list has."""
    items = row[parts.listed] if parts.listed is not None else []
    if len(items) < 2 or not all(isinstance(item, dict) for item in items):
        return None
    return next((key for key in _ITEM_SCORES if all(_number_of(item.get(key)) is not None for item in items)), None)


def _judging(row: Mapping[str, Any], parts: AnswerColumns) -> list[tuple[str, Any]]:
    """Every single verdict of a row, with its column."""
    told = [(name, row[name]) for name in (*parts.verdicts, *parts.persons)]
    told += [(name, value) for name in parts.several for _, value in _single(row[name])]
    return [(name, _inside(value)[1] if isinstance(value, dict) else value) for name, value in told]


def _single(value: Any) -> list[tuple[str | None, Any]]:
    """The verdicts of a list, or of an object by annotator."""
    if isinstance(value, dict):
        return [(str(who), one) for who, one in value.items()]
    return [(None, one) for one in value]


def _inside(value: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The annotator and the verdict in an object."""
    who = next((value[key] for key in _PEOPLE if is_set(value.get(key)) and type(value[key]) in (str, int)), None)
    return None if who is None else str(who), next((value[key] for key in _VALUES if key in value), None)


def _number_of(value: Any) -> float | None:
    """A number, or a text that is one."""
    if isinstance(value, str) and not re.fullmatch(r"\s*[-+]?\d+(\.\d+)?\s*", value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _scales(rows: Sequence[Mapping[str, Any]]) -> dict[str, Scale]:
    """Return the scale of each column with numbers among its verdicts; those of which nothing tells it are left out."""
    numbers: dict[str, set[float]] = {}
    first: dict[str, tuple[Mapping[str, Any], AnswerColumns]] = {}
    for row in rows:
        parts = answer_columns(row)
        for name, value in _judging(row, parts) if parts is not None else ():
            number = _number_of(value)
            if number is not None and parts is not None:
                numbers.setdefault(name, set()).add(number)
                first.setdefault(name, (row, parts))
    scales = {name: _scale(name, some, *first[name]) for name, some in numbers.items()}
    return {name: scale for name, scale in scales.items() if scale is not None}


def _scale(name: str, numbers: set[float], row: Mapping[str, Any], parts: AnswerColumns) -> Scale | None:
    """The scale of the numbers in a column, by the names of the answers and the numbers; None: nothing tells it."""
    known = _known_scale(name, parts)
    if known is not None:
        return known
    if min(numbers) < 0 or any(isinstance(value, bool) for column, value in _judging(row, parts) if column == name):
        return None
    count = len(row[parts.listed]) if parts.listed is not None else len(parts.answers)
    beyond = max(numbers) > count - 1  # counted from 0, there is no such answer
    if parts.numbered_from == 0:
        return None if beyond and 0 not in numbers else "from_0"
    if parts.numbered_from == 1:
        # with a 0 and without the last number, they may count from 0 in spite of the names
        return "from_1_or_tie" if beyond else "from_1" if min(numbers) >= 1 else None
    return "from_1" if beyond and min(numbers) >= 1 else None


def _known_scale(name: str, parts: AnswerColumns) -> Scale | None:
    """The scale that a column has by its name alone, beside answers of these names."""
    usual, answers = plain_name(name), tuple(plain_name(answer) for answer in parts.answers)
    if usual == "labels" and answers == ("human_ref_a", "human_ref_b"):  # SHP
        return "first_better"
    if usual in SIGNED:
        return "strength"
    if usual == "choice" and parts.listed == "summaries":  # OpenAI's summaries
        return "from_0"
    alpaca_eval = usual == "preference" and answers == ("output_1", "output_2")
    if parts.numbered_from == 1 and (alpaca_eval or name in parts.persons):  # PandaLM
        return "from_1_or_tie"
    return None


def _by_number(number: float, scale: Scale | None, count: int) -> int | None:
    """The place of the answer that a number means; -1: a tie; None: it means neither.

    Between the numbers of two answers, the nearer one counts, and the middle is a tie, as in alpaca_eval.
    """
    if scale == "first_better":
        return 1 - int(number) if number in (0, 1) and count == 2 else None
    if scale is None or scale == "strength":
        return None
    first = 0 if scale == "from_0" else 1
    if number == 0 and scale == "from_1_or_tie":
        return -1
    place = number - first
    if place == int(place):
        return int(place) if 0 <= place < count else None
    if count == 2 and 0 < place < 1:
        return -1 if place == 0.5 else round(place)
    return None


def _no_place(name: str, told: str, scale: Scale | None, count: int) -> DataError:
    """The fault of a number that names no answer."""
    way = f"tell it by `--verdicts {told}=1` (the number of the answer, counted from 1; 0 is a tie)"
    if scale is not None:
        return DataError(f"is none of the {count} answers", where=name, hint=f"found {told}; {way}")
    signed = f", or by {_naming(f'strength={name}')} where numbers below 0 prefer the first" if told[0] == "-" else ""
    return DataError("does not say which answer it means", where=name, hint=f"found {told}; {way}{signed}")


def _by_scores(name: str, scores: Sequence[float | None], who: str | None) -> Opinion:
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        raise DataError("a score is missing, or is not a number", where=name)
    sign = -1 if is_rank(name) or name == "rank" else 1
    return Opinion(who, tuple(sign * score for score in known), measured=not is_one_hot(name))


def _only(place: int, count: int) -> Worth:
    return tuple(float(index == place) for index in range(count))


def _common(opinions: Sequence[Opinion]) -> Opinion:
    """Several verdicts as one: the mean of the ranks."""
    if len(opinions) == 1:
        return opinions[0]
    ranks = [_mid_ranks(opinion.worth) for opinion in opinions]
    worth = tuple(-sum(places) / len(ranks) for places in zip(*ranks, strict=True))
    return Opinion(f"{len(opinions)} annotators", worth, measured=True)


def _mid_ranks(worth: Worth) -> Worth:
    """[K] places, 1 for the best; tied answers share the mean of theirs."""
    return tuple(
        sum(other > mine for other in worth) + (sum(other == mine for other in worth) + 1) / 2 for mine in worth
    )


def _question_columns(row: Mapping[str, Any], parts: AnswerColumns) -> tuple[str, ...]:
    """The columns that the prompt is made of."""
    names = {plain_name(name): name for name in parts.prompts if not _holds_nothing(name, row[name])}
    if "prompt" in names:
        return (names["prompt"],)
    if "instruction" in names:
        history = ("history",) if isinstance(row.get(names.get("history", "")), list) else ()
        return tuple(names[name] for name in ("instruction", "input", "context", *history) if name in names)
    return tuple(names.values())


def _holds_nothing(name: str, value: Any) -> bool:
    """Whether a column by the name of a prompt is something else: `info` of an object without a post."""
    return plain_name(name) == "info" and not (isinstance(value, dict) and "post" in value)


def _question(row: Mapping[str, Any], parts: AnswerColumns) -> tuple[Message, ...]:
    """The prompt from its columns; empty: there is none."""
    names = _question_columns(row, parts)
    if names and plain_name(names[0]) == "instruction":
        fields = {plain_name(name): row[name] for name in names}
        try:
            return Instruction.model_validate(fields).prompt()
        except ValidationError as error:
            raise ValueError(str(fault_of(error))) from error
    if len(names) > 1:
        several = " or ".join(f"`{name}`" for name in names)
        raise ValueError(f"the prompt may be {several}; name it: {_naming(f'prompt={names[0]}')}")
    if not names:
        return ()
    value = row[names[0]]
    if isinstance(value, dict):
        value = next((value[key] for key in _QUESTIONS if isinstance(value.get(key), str)), value)
    return _turns(names[0], value)


def _transcript(row: Mapping[str, Any], parts: AnswerColumns) -> str | None:
    """The prompt, where it is a transcript to be answered."""
    names = _question_columns(row, parts)
    text = row[names[0]] if len(names) == 1 and plain_name(names[0]) != "instruction" else None
    return text if isinstance(text, str) and open_transcript(text) is not None else None


def _turns(name: str, value: Any) -> tuple[Message, ...]:
    try:
        if isinstance(value, list) and all(isinstance(turn, dict) and "from" in turn for turn in value):
            return tuple(turn.message() for turn in _SHAREGPT.validate_python(value))
        return messages_of(_TURNS.validate_python(value))
    except ValidationError as error:
        fault = fault_of(error)
        raise ValueError(f"{name}{fault}" if fault.field.startswith("[") else f"{name}: {fault}") from error


def _answer(place: str, value: Any) -> AnswerText:
    model, score = None, None
    if isinstance(value, dict):
        if "role" in value or "from" in value:
            value = [value]
        else:
            model = value.get("model") if isinstance(value.get("model"), str) else None
            score = next((n for key in _ITEM_SCORES if (n := _number_of(value.get(key))) is not None), None)
            value = next((value[key] for key in _BODIES if isinstance(value.get(key), str | list)), None)
    if isinstance(value, list):
        turns = _turns(place, value)
        if not turns or turns[-1].role != "assistant":
            raise ValueError(f"{place}: does not end with an assistant turn")
        return AnswerText(plain_answer(place, turns[-1]), model, turns[:-1], score)
    if not isinstance(value, str):
        raise ValueError(f"{place}: must be text or turns, not {type_name(value)}")
    if not value.strip():
        raise ValueError(f"{place}: blank")
    return AnswerText(value, model, (), score)


def _naming(*maps: str) -> str:
    """The options that name columns."""
    return f"`{' '.join(f'--columns {one}' for one in maps)}`"


@cache
def _settled(
    layout: type[TwoAnswers], scales: tuple[tuple[str, Scale], ...], meanings: tuple[tuple[str, int], ...]
) -> type[TwoAnswers]:
    class Settled(layout):  # type: ignore[valid-type,misc]
        pass

    Settled.scales, Settled.meanings = dict(scales), {told.lower(): number for told, number in meanings}
    return Settled
