"""The protocol of all reward sources and judges: prompts and completions in, scores out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pipelines.data.chat import ChatEncoder
from pipelines.data.rows import Message
from pipelines.errors import DataError

Dialogue = Sequence[Message]
Progress = Callable[[int], None]
"""Called with the number of rows that were just scored."""


@dataclass(frozen=True)
class Completion:
    """An answer of a policy.

    Attributes:
        text: its text, without the EOS token and without its thought.
        ids: tokens of the policy's tokenizer, the thought included, and the EOS where it was sampled.
        finished: whether it ended by itself; False: it hit the length limit.
        thought: what stands before the answer of a model that thinks, with its marks and the blanks around it.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool
    thought: str = ""

    @classmethod
    def of(cls, text: str, ids: Sequence[int], *, finished: bool, opened: bool = False) -> Completion:
        """Split a text into thought and answer; `opened`: the prompt has opened a thought, which some templates do."""
        thought = _thought(text, opened=opened)
        return cls(text[len(thought) :], tuple(ids), finished, thought)

    def read(self, *, thoughts: bool) -> str:
        """The text that a scorer reads: the answer, after its thought where the scorer asks for that."""
        return self.thought + self.text if thoughts else self.text


_MARKS = (
    *(("<think>", "</think>"), ("<thinking>", "</thinking>")),
    *(("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")),
)
"""Begin and end of a thought: Qwen 3, DeepSeek R1, GLM 4.5, SmolLM3 and others; Magistral; Seed-OSS."""


def sampled_completion(
    encoder: ChatEncoder, prompt_ids: Sequence[int], ids: Sequence[int], *, finished: bool
) -> Completion:
    """The completion that a policy sampled after a prompt; its thought may have been opened by the template."""
    tail = list(prompt_ids)
    while encoder.eos_token_id in tail:
        tail = tail[tail.index(encoder.eos_token_id) + 1 :]
    opened = encoder.decode(tail).rstrip().endswith(tuple(begin for begin, _ in _MARKS))
    return Completion.of(encoder.decode(ids), ids, finished=finished, opened=opened)


def _thought(text: str, *, opened: bool) -> str:
    """The beginning of a text that is a thought; all of it where the thought never ends; empty without one."""
    for begin, end in _MARKS:
        thought, mark, answer = text.partition(end)
        begins = text.lstrip().startswith(begin)
        if mark and (begins or begin not in thought):  # an end without a begin: the prompt had that
            return text[: len(text) - len(answer.lstrip())]
        if begins:
            return text
    return text if opened else ""


class Scorer(Protocol):
    """Judges answers; its name stands in tables."""

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
    """A score that is not one finite number, with the index `row` of its completion among those that were scored."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def checked_scores(scorer: str, values: Iterable[float], rows: int, *, start: int = 0) -> list[float]:
    """Check that there is one finite number for each completion, and return the scores as plain floats.

    Args:
        scorer: name of the scorer in errors.
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
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            kind = f"the text {value!r}" if isinstance(value, str | bytes) else f"a {type(value).__name__}"
            if isinstance(error, OverflowError):
                kind = "a number that is too large"
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
