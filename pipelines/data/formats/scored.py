"""Answers with scores: one answer is a judgement; several to one prompt are compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from pipelines.data.formats.base import (
    LIST,
    NUMBER,
    TEXT,
    Answer,
    Format,
    Lenient,
    Question,
    answer_text,
    columns,
    messages_of,
    user,
)
from pipelines.data.formats.judged import Judged
from pipelines.data.rows import CanonicalRow, Comparison, Judgement, Message, NonBlank

AtLeastTwo = Field(min_length=2)


class Scored(Judged):
    """A prompt, an answer, each a text or turns, and its score."""

    name = "scored"
    shape = columns(prompt=TEXT + LIST, completion=TEXT + LIST, score=NUMBER)
    unless = ("chosen", "rejected")
    holds = (Judgement,)
    prompt: Question
    completion: Answer
    score: float

    @override
    def canonical(self) -> Judgement:
        return self.judgement(messages_of(self.prompt), answer_text("completion", self.completion), self.score)


class ScoredResponse(Judged):
    """The same, with the answer in `response`."""

    name = "scored_response"
    shape = columns(prompt=TEXT + LIST, response=TEXT + LIST, score=NUMBER)
    unless = ("chosen", "rejected")
    holds = (Judgement,)
    prompt: Question
    response: Answer
    score: float

    @override
    def canonical(self) -> Judgement:
        return self.judgement(messages_of(self.prompt), answer_text("response", self.response), self.score)


class _ScoredAnswers(Format):
    """Several answers to one prompt: every two with different scores are a comparison, the difference its margin."""

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
    unless = ("chosen", "rejected")
    prompt: Question | None = None
    instruction: str | None = None
    responses: Annotated[list[NonBlank], AtLeastTwo]
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
    unless = ("chosen", "rejected")
    instruction: str
    completions: Annotated[list[ScoredCompletion], AtLeastTwo]

    @override
    def rows(self) -> tuple[CanonicalRow, ...]:
        answers = [(answer.overall_score, answer.response) for answer in self.completions]
        return self.pairs((user(self.instruction),), answers)
