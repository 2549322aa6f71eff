"""Judged answers: the canonical judgement, the layouts of KTO data, and answers with scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from typing_extensions import override

from pipelines.data.faults import type_name
from pipelines.data.formats.alpaca import Instruction
from pipelines.data.formats.format import FLAG, LIST, NUMBER, TEXT, Format, columns
from pipelines.data.formats.sharegpt import Conversations
from pipelines.data.formats.turns import Answer, Question, Turns, answer_text, messages_of, plain_answer, user
from pipelines.data.rows import CanonicalRow, Comparison, Judgement, Lenient, Message, NonBlank


def _flag_or_number(value: Any) -> Any:
    if not isinstance(value, bool | int | float):
        raise ValueError(f"must be true, false or a number, not {type_name(value)}")
    return value


def _zero_or_one(value: Any) -> Any:
    """Read 0 and 1 as false and true, as many files have them."""
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise ValueError(f"must be true, false, 1 or 0, not {type_name(value)}")


GoodOrBad = Annotated[bool, BeforeValidator(_zero_or_one)]


class Judged(Format):
    """Annotator and source of a judgement."""

    unless: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    holds = (Judgement,)

    annotator: str | None = None
    source: str | None = None

    def judgement(self, prompt: tuple[Message, ...], completion: str, label: bool | float) -> Judgement:
        """The canonical judgement."""
        return Judgement(
            prompt=prompt, completion=completion, label=label, annotator=self.annotator, source=self.source
        )

    def of_dialogue(self, messages: tuple[Message, ...], label: bool | float) -> Judgement:
        """The judgement of a dialogue's last turn.

        Raises:
            ValueError: it is not the assistant's.
        """
        if not messages or messages[-1].role != "assistant":
            raise ValueError("the last turn, which the label judges, is not the assistant's")
        return self.judgement(messages[:-1], plain_answer("the last turn", messages[-1]), label)


class JudgementRow(Judged):
    """The canonical judgement: a dialogue, one text, and what somebody thought of it as true/false or a number."""

    name = "judgement"
    shape = columns(prompt=LIST, completion=TEXT, label=FLAG + NUMBER)
    unless = ()
    prompt: Turns
    completion: str
    label: Annotated[bool | float, BeforeValidator(_flag_or_number)]

    @override
    def canonical(self) -> Judgement:
        return self.judgement(messages_of(self.prompt), self.completion, self.label)


class Kto(Judged):
    """A prompt, an answer, each a text or turns, and whether the answer is good."""

    name = "kto"
    shape = columns(prompt=TEXT + LIST, completion=TEXT + LIST, label=FLAG + NUMBER)
    prompt: Question
    completion: Answer
    label: GoodOrBad

    @override
    def canonical(self) -> Judgement:
        return self.judgement(messages_of(self.prompt), answer_text("completion", self.completion), self.label)


class MessagesKto(Judged):
    """A dialogue, and whether its last turn is good."""

    name = "messages_kto"
    shape = columns(messages=LIST, label=FLAG + NUMBER)
    messages: Turns
    label: GoodOrBad

    @override
    def canonical(self) -> Judgement:
        return self.of_dialogue(messages_of(self.messages), self.label)


class ShareGPTKto(Conversations, Judged):
    """A ShareGPT dialogue, and whether its last turn is good."""

    name = "sharegpt_kto"
    shape = columns(conversations=LIST, label=FLAG + NUMBER)
    label: GoodOrBad

    @override
    def canonical(self) -> Judgement:
        return self.of_dialogue(self.messages(), self.label)


class AlpacaKto(Instruction, Judged):
    """An instruction, its answer, and whether the answer is good."""

    name = "alpaca_kto"
    shape = columns(instruction=TEXT, output=TEXT, label=FLAG + NUMBER)
    output: str
    label: GoodOrBad

    @override
    def canonical(self) -> Judgement:
        return self.judgement(self.prompt(), self.output, self.label)


class Scored(Judged):
    """A prompt, an answer, each a text or turns, and its score."""

    name = "scored"
    shape = columns(prompt=TEXT + LIST, completion=TEXT + LIST, score=NUMBER)
    prompt: Question
    completion: Answer
    score: float

    @override
    def canonical(self) -> Judgement:
        answer = answer_text([*self.shape][1], self.completion)
        return self.judgement(messages_of(self.prompt), answer, self.score)


class ScoredResponse(Scored):
    """The same, with the answer in `response`."""

    name = "scored_response"
    shape = columns(prompt=TEXT + LIST, response=TEXT + LIST, score=NUMBER)
    completion: Answer = Field(alias="response")


class _ScoredAnswers(Format):
    """Several answers to one prompt: every two with different scores are a comparison, the difference its margin."""

    unless = ("chosen", "rejected")
    holds = (Comparison,)
    source: str | None = None

    def pairs(self, prompt: tuple[Message, ...], answers: Sequence[tuple[float, str]]) -> tuple[CanonicalRow, ...]:
        """All comparisons, those of the best answer first; none where all scores are equal."""
        ordered = sorted(answers, key=lambda answer: -answer[0])  # stable: equal scores keep the order of the file
        return tuple(
            self.completed(
                Comparison(prompt=prompt, chosen=better, rejected=worse, margin=high - low, source=self.source)
            )
            for (high, better), (low, worse) in combinations(ordered, 2)
            if high > low
        )


class ScoredList(_ScoredAnswers):
    """A prompt (or an instruction), a list of answers and a list of their scores."""

    name = "scored_list"
    shape = columns(responses=LIST, scores=LIST)
    prompt: Question | None = None
    instruction: str | None = None
    responses: Annotated[list[NonBlank], Field(min_length=2)]
    scores: list[float]

    @override
    def rows(self) -> tuple[CanonicalRow, ...]:
        asked = [messages_of(self.prompt)] if self.prompt is not None else []
        asked += [(user(self.instruction),)] if self.instruction is not None else []
        if len(asked) != 1:
            raise ValueError("there must be either a prompt or an instruction")
        if len(self.responses) != len(self.scores):
            raise ValueError(f"there are {len(self.responses)} responses and {len(self.scores)} scores")
        return self.pairs(asked[0], list(zip(self.scores, self.responses, strict=True)))


class ScoredCompletion(Lenient):
    """An answer as UltraFeedback writes it."""

    response: NonBlank
    overall_score: float


class UltraFeedback(_ScoredAnswers):
    """An instruction and a list of answers, each with its overall score, as in UltraFeedback."""

    name = "ultrafeedback"
    shape = columns(instruction=TEXT, completions=LIST)
    instruction: str
    completions: Annotated[list[ScoredCompletion], Field(min_length=2)]

    @override
    def rows(self) -> tuple[CanonicalRow, ...]:
        answers = [(answer.overall_score, answer.response) for answer in self.completions]
        return self.pairs((user(self.instruction),), answers)
