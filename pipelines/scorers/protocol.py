"""The protocol of all reward sources and judges: prompts and completions in, scores out."""

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
        text: its text, without the EOS token.
        ids: tokens of the policy's tokenizer, the EOS included where it was sampled.
        finished: whether it ended by itself; False: it hit the length limit.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool


class Scorer(Protocol):
    """Judges answers.

    Attributes:
        name: its name in tables.
    """

    name: str

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """One finite score for each pair; higher is better."""


@runtime_checkable
class ScorerWithParts(Protocol):
    """A scorer whose score has parts that are reported separately."""

    name: str

    def with_parts(
        self, prompts: Sequence[Dialogue], completions: Sequence[Completion]
    ) -> tuple[list[float], dict[str, list[float]]]:
        """The scores that `__call__` gives, and each part by its name, one value a pair."""


def counts_of(scorer: Scorer) -> dict[str, float]:
    """Counts of a scorer since its creation, such as texts cut and requests sent; empty where it counts nothing."""
    counts: dict[str, float] = dict(getattr(scorer, "counts", {}))
    if hasattr(scorer, "truncated"):
        counts["truncated"] = scorer.truncated
    return counts


class ScoreError(DataError):
    """A score that is not one finite number.

    Attributes:
        row: index of its completion among those that were scored.
    """

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def checked_scores(scorer: str, values: Iterable[float], rows: int, *, start: int = 0) -> list[float]:
    """Check that there is one finite number for each completion, and return the scores as plain floats.

    Args:
        scorer: name of the scorer in errors.
        values: numbers, or zero-dimensional tensors or arrays.
        rows: number of scores that there must be.
        start: index of the first completion, where these are one batch of several.

    Raises:
        DataError: the number of scores is another.
        ScoreError: a score is not a number, or not finite.
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
