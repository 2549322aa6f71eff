"""Several right answers and several wrong ones to a question, as the benchmarks of reward models have them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import override

from pipelines.data.formats.format import LIST, TEXT, columns
from pipelines.data.formats.trl import Labeled
from pipelines.data.formats.turns import TextQuestion, messages_of
from pipelines.data.rows import Comparison, NonBlank

Answers = Annotated[list[NonBlank], Field(min_length=1)]
STYLES = 3
"""Styles of the answers of RM-Bench, from plain to ornate: short, detailed, detailed with Markdown."""


class AnswerLists(Labeled):
    """A question, right answers and wrong ones: every right one is compared with every wrong one.

    RewardBench 2 (arXiv:2506.01937) has one right answer and three wrong ones, and names the `subset`. RM-Bench
    (arXiv:2410.16184) has both in three styles, and names the `domain`; a comparison is hard where the wrong answer has
    the more ornate style, normal in equal styles, else easy.
    """

    name = "answer_lists"
    shape = columns(prompt=TEXT, chosen=LIST, rejected=LIST)
    prompt: TextQuestion
    chosen: Answers
    rejected: Answers
    subset: str | None = None
    domain: str | None = None

    @classmethod
    @override
    def likeness(cls, row: Mapping[str, Any]) -> int:
        lists = (row.get("chosen"), row.get("rejected"))
        if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists):
            return -1  # lists of turns
        return super().likeness(row)

    @override
    def rows(self) -> tuple[Comparison, ...]:
        styled = self.domain is not None and len(self.chosen) == len(self.rejected) == STYLES
        question, rows = messages_of(self.prompt), []
        for (place, right), (other, wrong) in product(enumerate(self.chosen), enumerate(self.rejected)):
            source = self._source(place - other if styled else None)
            rows.append(self.comparison(question, right, wrong).model_copy(update={"source": source}))
        return tuple(map(self.completed, rows))

    def _source(self, more_ornate: int | None) -> str | None:
        """Return the part of the benchmark; `more_ornate`: styles from the wrong answer up to the right one."""
        part = self.source or self.subset or self.domain
        if more_ornate is None:
            return part
        return f"{part}, {'normal' if more_ornate == 0 else 'easy' if more_ornate > 0 else 'hard'}"
