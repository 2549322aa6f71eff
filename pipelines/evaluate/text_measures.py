"""Measures of answers that need no judge: repetition within each, variety over all, perplexity under the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipelines.report.bootstrap import ratio
from pipelines.report.estimates import Estimate
from pipelines.scorers import Completion
from pipelines.scorers.rules import pieces
from pipelines.scorers.rules import repetition as repetition_rule

REPEATED = 3
"""Number of consecutive words that count as a repetition if they occurred before in the answer."""
DISTINCT = (1, 2, 3)
"""Lengths of the n-grams whose variety is measured."""
LARGEST_LOG = 700.0
"""Nats above which a perplexity is no floating-point number."""


def repetition(answers: Sequence[Completion]) -> list[float]:
    """Share of each answer's n-grams of words that came before in it, n being `REPEATED`; 0 for an answer without any.

    It is seq-rep-n of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", section 6.1.
    """
    score = repetition_rule(REPEATED)
    return [-score(answer) + 0.0 for answer in answers]  # adding 0 turns -0.0 into 0.0


def distinct(answers: Sequence[Completion], n: int) -> Estimate:
    """Number of different n-grams of words in all answers, as a share of the number of words.

    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", section 5. It falls as
    the answers get longer or more, so it compares policies that answered the same prompts at similar length. There is
    no interval: prompts that a bootstrap draws twice would repeat all their n-grams.
    """
    words = [pieces(answer.text) for answer in answers]
    total = sum(map(len, words))
    if not total:
        return Estimate.none("there is no word")
    grams = {tuple(text[start : start + n]) for text in words for start in range(len(text) - n + 1)}
    return Estimate(len(grams) / total, n=len(answers))


def perplexity(logprobs: Sequence[float], answers: Sequence[Completion], samples: int) -> Estimate:
    """Perplexity of all answers by token: exp of minus their log-probability divided by their number of tokens.

    Args:
        logprobs: log-probability of each whole answer under the reference, in nats.
        answers: answers of at least one token each.
        samples: number of bootstrap resamples.
    """
    nats = ratio([-logprob for logprob in logprobs], [float(len(answer.ids)) for answer in answers], samples)
    if nats.value is None or nats.low is None or nats.high is None or nats.high > LARGEST_LOG:
        return Estimate.none("the reference gives such answers hardly any probability")
    return Estimate(math.exp(nats.value), math.exp(nats.low), math.exp(nats.high), nats.n)
