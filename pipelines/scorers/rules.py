"""Simple rules as scorers: what a reward model tends to overlook, to be put beside it in a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines.scorers.base import Completion, Dialogue, Progress

Rule = Callable[[Completion], float]


class RuleScorer:
    """One number from the answer alone; the prompt has no say."""

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
    """0 up to `target` tokens (EOS included), then minus the excess as a share of `target`: -1 at twice of it."""

    def rule(completion: Completion) -> float:
        return -max(0, len(completion.ids) - target) / target

    return rule


def repetition(ngram: int) -> Rule:
    """Minus the share of the answer's n-grams of words that came before in it: 0 is none, near -1 is a loop."""

    def rule(completion: Completion) -> float:
        words = completion.text.split()
        grams = [tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)]
        return (len(set(grams)) - len(grams)) / len(grams) if grams else 0.0

    return rule
