"""Scorers without a model: length and repetition, which reward models overlook, and the gold scorer of a task."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipelines.scorers.protocol import Completion, Dialogue, Progress, checked_scores
from pipelines.tasks import SelfMadeTask

Rule = Callable[[Completion], float]
LONGEST_WORD = 40
"""Maximum characters of a word; a longer run without blanks is no word."""
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    r"\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff65"  # kana, ideographs, their punctuation
    r"\U00020000-\U0003ffff"  # rare ideographs
)
_PIECE = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


class RuleScorer:
    """A number computed from the answer alone; the prompt is not used."""

    def __init__(self, name: str, rule: Rule, *, progress: Progress | None = None) -> None:
        self.name = name
        self._rule = rule
        self._progress = progress

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The rule's value for each answer."""
        scores = [self._rule(completion) for completion in completions]
        if self._progress is not None:
            self._progress(len(scores))
        return scores


def length(target: int) -> Rule:
    """0 up to `target` tokens (EOS included), then minus the excess as a share of `target`: -1 at twice `target`."""

    def rule(completion: Completion) -> float:
        return -max(0, len(completion.ids) - target) / target

    return rule


def repetition(ngram: int) -> Rule:
    """Minus the share of the answer's n-grams of `pieces` that came before in it: 0 is none, near -1 is a loop."""

    def rule(completion: Completion) -> float:
        words = pieces(completion.text)
        grams = [tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)]
        return (len(set(grams)) - len(grams)) / len(grams) if grams else 0.0

    return rule


def pieces(text: str) -> list[str]:
    """Split a text into words, or into single characters where words have no blanks between them.

    That holds for scripts without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese), and for anything longer than
    `LONGEST_WORD`, such as a loop of "hahaha...".
    """
    words: list[str] = []
    for word in _PIECE.findall(text):
        words += word if len(word) > LONGEST_WORD else [word]
    return words


class GoldScorer:
    """The true utility that a self-made task knows, so it only judges and is never trained on.

    Its parts are the attributes of the task, each in [0, 1].
    """

    def __init__(self, name: str, task: SelfMadeTask, *, progress: Progress | None = None) -> None:
        self.name = name
        self._task = task
        self._progress = progress

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The task's hidden utility of each answer."""
        return self.with_parts(prompts, completions)[0]

    def with_parts(
        self, prompts: Sequence[Dialogue], completions: Sequence[Completion]
    ) -> tuple[list[float], dict[str, list[float]]]:
        """The utility, and each attribute by its name."""
        rows = [
            self._task.gold(prompt, completion.text) for prompt, completion in zip(prompts, completions, strict=True)
        ]
        if self._progress is not None:
            self._progress(len(rows))
        parts = {name: [row[name] for row in rows] for name in self._task.attributes}
        return checked_scores(f"the gold scorer {self.name}", (row["gold"] for row in rows), len(prompts)), parts
