"""The one protocol that every reward source and judge speaks: prompts and completions in, scores out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pipelines.data.rows import Message
from pipelines.errors import DataError

Dialogue = Sequence[Message]
Progress = Callable[[int], None]
"""Called with the number of rows that were just scored."""


@dataclass(frozen=True)
class Completion:
    """An answer of a policy.

    Attributes:
        text: without the end-of-sequence token.
        ids: tokens of the policy's tokenizer, the EOS included where it came.
        finished: whether it ended by itself; False: it hit the length limit.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool


class Scorer(Protocol):
    """Judges answers.

    Attributes:
        name: what tables call it.
    """

    name: str

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """One finite score for each pair; higher is better."""


@runtime_checkable
class ScorerWithParts(Protocol):
    """A scorer whose score is made of parts that are worth seeing by themselves."""

    name: str

    def with_parts(
        self, prompts: Sequence[Dialogue], completions: Sequence[Completion]
    ) -> tuple[list[float], dict[str, list[float]]]:
        """The scores as `__call__` gives them, and each part by its name, one value a pair."""


def counts_of(scorer: Scorer) -> dict[str, float]:
    """What a scorer counted since it was made: texts it had to cut, requests it sent; empty for one that counts not."""
    counts: dict[str, float] = dict(getattr(scorer, "counts", {}))
    if hasattr(scorer, "truncated"):
        counts["truncated"] = scorer.truncated
    return counts


class ScoreError(DataError):
    """A score that is not one finite number.

    Attributes:
        row: index of its completion among those that were given.
    """

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def checked_scores(scorer: str, values: Iterable[float], rows: int, *, start: int = 0) -> list[float]:
    """The scores as plain floats, proven to be one finite number for each completion.

    Args:
        scorer: what the error calls the source of the scores.
        values: numbers, or zero-dimensional tensors or arrays.
        rows: how many scores there must be.
        start: index of the first completion, where these are a batch out of more.

    Raises:
        DataError: another number of scores.
        ScoreError: one is not a number, or not finite.
    """
    scores: list[float] = []
    for row, value in enumerate(values):
        try:
            if isinstance(value, str | bytes):
                raise TypeError("a text that looks like a number is still a text")
            scores.append(float(value))
        except (TypeError, ValueError, RuntimeError) as error:
            kind = f"the text {value!r}" if isinstance(value, str | bytes) else f"a {type(value).__name__}"
            raise ScoreError(
                f"{scorer} gave {kind} as the score of completion {start + row + 1}; it must be one number", start + row
            ) from error
    if len(scores) != rows:
        raise DataError(f"{scorer} gave {len(scores)} scores for {rows} completions; it must give one for each")
    for row, score in enumerate(scores):
        if not math.isfinite(score):
            raise ScoreError(
                f"{scorer} gave the score {score} for completion {start + row + 1}; scores must be finite", start + row
            )
    return scores
