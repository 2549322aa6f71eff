"""Two or more answers to one prompt, and a verdict on which is better: by number, letter, name, score or strength."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any, ClassVar

from pydantic import ConfigDict, PrivateAttr
from typing_extensions import override

from pipelines.data.choices import TIES, better_of_two, plain
from pipelines.data.faults import Fault, shorten
from pipelines.data.formats.answer_columns import AnswerColumns, answer_columns, person_of, plain_name, says_better
from pipelines.data.formats.answer_texts import AnswerText, open_prompt, question, question_columns, read_answer
from pipelines.data.formats.format import FLAG, LIST, NUMBER, TEXT, Format, columns
from pipelines.data.formats.transcripts import answer_alone
from pipelines.data.formats.unread_columns import CONTEXT, is_set, naming, way_out
from pipelines.data.formats.verdict_values import (
    Opinion,
    Scale,
    Scales,
    common_opinion,
    has_verdict,
    item_score_key,
    no_such_place,
    number_of,
    opinion_by_scores,
    person_and_verdict,
    place_by_number,
    scales_of,
    single_verdicts,
    worth_of_best,
)
from pipelines.data.rows import CanonicalRow, Comparison, Message, Prompt
from pipelines.errors import DataError

_SKIPPED = -100
"""The strength in HelpSteer2 of an annotator who found neither answer valid."""


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
        return len(cls.shape) if has_verdict(row, parts) else -1

    @classmethod
    @override
    def unread(cls, row: Mapping[str, Any]) -> Fault | None:
        parts = answer_columns(row)
        if parts is None or (fault := super().unread(row)) is not None:
            return None if parts is None else fault
        asked = question_columns(row, parts)
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
        return ", ".join(str(name) for name in (*question_columns(row, parts), *answers, *verdicts))

    @classmethod
    @override
    def settled(cls, rows: Sequence[Mapping[str, Any]], meanings: Mapping[str, int]) -> type[Format]:
        return _settled(cls, tuple(scales_of(rows).items()), tuple(meanings.items()))

    @override
    def canonical(self) -> CanonicalRow:
        """The first of `rows`, where the answers are not tied."""
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
        annotator, worth, measured = self._overall(answers) or common_opinion(self.opinions(answers))
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
            answers = tuple(read_answer(f"{parts.listed}[{n}]", item) for n, item in enumerate(row[parts.listed]))
        else:
            answers = tuple(read_answer(name, row[name]) for name in parts.answers)
        models = [row[name] for name in parts.models if isinstance(row[name], str)]
        if len(models) == len(answers):
            answers = tuple(answer._replace(model=model) for answer, model in zip(answers, models, strict=True))
        asked = question(row, parts)
        transcript = open_prompt(row, parts)
        if transcript is not None:
            answers = tuple(answer._replace(text=answer_alone(transcript, answer.text)) for answer in answers)
        before = answers[0].before
        if any(answer.before != before for answer in answers):
            raise ValueError("the dialogues differ before their last turn, so the answers are not to one prompt")
        said = {turn.content.strip() for turn in before}
        if said and not {turn.content.strip() for turn in asked} <= said:
            raise ValueError("the prompt is none of the turns that the answers share")
        if not said and not asked:
            raise ValueError(f"there is no prompt; name its column: {naming('prompt=NAME')}")
        return before or asked, answers

    def opinions(self, answers: Sequence[AnswerText]) -> list[Opinion]:
        """The verdicts of single annotators, or else the one verdict of the row.

        Raises:
            DataError: a verdict says neither an answer nor a tie.
            ValueError: nobody has judged the answers, or several columns may hold the verdict.
        """
        row, parts = self._parts
        judged: list[tuple[str | None, str, Any]] = [(person_of(name), name, row[name]) for name in parts.persons]
        judged += [(who, name, value) for name in parts.several for who, value in single_verdicts(row[name])]
        told = [self._opinion(name, value, answers, who) for who, name, value in judged]
        opinions = [opinion for opinion in (told if any(told) else [self._overall(answers)]) if opinion is not None]
        if not opinions and parts.other_verdict is not None:
            name = parts.other_verdict
            hint = f"where it does: {naming(f'verdict={name}')}; where it is no verdict: {naming(f'{name}=')}"
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
            return opinion_by_scores(parts.scores[0], [number_of(number) for number in numbers], who)
        if parts.listed is not None and (name := item_score_key(row, parts)) is not None:
            return opinion_by_scores(name, [answer.score for answer in answers], who)
        return None

    def _opinion(self, name: str, value: Any, answers: Sequence[AnswerText], who: str | None) -> Opinion | None:
        """Read one verdict; None: it says nothing."""
        if isinstance(value, dict):
            person, value = person_and_verdict(value)
            who = who if person is None else person
        if isinstance(value, list) and value:
            hint = f"where these are the verdicts of several annotators: {naming(f'verdicts={name}')}"
            raise DataError("must be one verdict, not a list", where=name, hint=hint)
        if not is_set(value) or isinstance(value, list):
            return None
        count = len(answers)
        told = f"{value:g}" if isinstance(value, float) else str(value).strip().lower()
        if told in self.meanings:
            meant = self.meanings[told]
            if meant > count:
                raise DataError(f"there are {count} answers only, not {meant}", where=name)
            return Opinion(who, worth_of_best(meant - 1, count), measured=False)
        number = number_of(value)
        if number is None:
            place = self._by_words(str(value), answers)
            if place is None:
                raise DataError("names none of the answers, and is no tie", where=name, hint=f"found {shorten(value)}")
            return Opinion(who, worth_of_best(place, count), measured=False)
        scales = self.scales if self.scales is not None else scales_of([self._parts[0]])
        scale = scales.get(name)
        if scale == "strength" and count > 2:
            raise DataError(f"is a strength, which compares two answers and not {count}", where=name)
        if scale == "strength":
            strengths = (max(-number, 0.0), max(number, 0.0))
            return None if number == _SKIPPED else Opinion(who, strengths, measured=True)
        told_numbers = any(number_of(meaning) is not None for meaning in self.meanings)
        place = None if told_numbers else place_by_number(number, scale, count)
        if place is None:
            raise no_such_place(name, told, scale, count)
        return Opinion(who, worth_of_best(place, count), measured=False)

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
            hint = f"name their columns: {naming('answer_1=FIRST', 'answer_2=SECOND')}"
            raise ValueError(f"the answers may be in `{parts.answers[0]}` or in `{parts.rival}`; {hint}")
        if len(parts.verdicts) > 1:
            several = " or ".join(f"`{name}`" for name in parts.verdicts)
            raise ValueError(f"the verdict may be {several}; name it: {naming(f'verdict={parts.verdicts[0]}')}")
        return parts


def asks(row: Mapping[str, Any]) -> bool:
    """Whether a row with a verdict on several answers has the question as a dialogue that ends with it."""
    turns = next((row[name] for name in ("messages", "conversations") if isinstance(row.get(name), list)), None)
    if not turns or not isinstance(turns[-1], dict) or TwoAnswers.likeness(row) < 0:
        return False
    return turns[-1].get("role", turns[-1].get("from")) in ("user", "human")


def refusal(row: Mapping[str, Any], *, judged: bool) -> str | None:
    """Return the hint for a row with several answers that fits no format, or, if `judged`, a verdict on them too."""
    parts = answer_columns(row)
    if parts is None:
        answers = _named_by_verdict(row)
        named = naming(*(f"answer_{number}={name}" for number, name in enumerate(answers, 1)))
        return f"the row has a verdict on answers: name these with {named}" if answers else None
    answers = parts.answers or (str(parts.listed),)
    if not has_verdict(row, parts):
        told = f"the row has answers ({', '.join(answers)}): name the verdict on them with {naming('verdict=VERDICT')}"
        return None if judged else told
    if parts.prompts or row.get("rejected") is not None:
        return None
    told = f"the row has answers ({', '.join(answers)}) and a verdict, but no prompt"
    return f"{told}: name it with {naming('prompt=PROMPT')}"


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


def _are_dialogues(row: Mapping[str, Any], parts: AnswerColumns) -> bool:
    return bool(parts.answers) and all(isinstance(row[name], list) for name in parts.answers)


@cache
def _settled(
    layout: type[TwoAnswers], scales: tuple[tuple[str, Scale], ...], meanings: tuple[tuple[str, int], ...]
) -> type[TwoAnswers]:
    class Settled(layout):  # type: ignore[valid-type,misc]
        pass

    Settled.scales, Settled.meanings = dict(scales), {told.lower(): number for told, number in meanings}
    return Settled
