"""Judging a classifier of answers: accuracy, area under the curve, and whether its probabilities can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pipelines.models.text_classifier import EncodedText
from pipelines.statistics import auc, wilson

BINS = 10
MIDDLE = 0.5


@dataclass(frozen=True)
class Judged:
    """An answer as a reward model reads it, and how good it is: 0 bad, 1 good; between them on a scale."""

    text: EncodedText
    target: float


@dataclass(frozen=True)
class Bin:
    """Rows of similar probability.

    Attributes:
        n: how many.
        probability: mean of what the model said.
        good: mean of what was true; the same for a calibrated model.
    """

    n: int
    probability: float
    good: float


def figures(logits: Sequence[float], targets: Sequence[float]) -> dict[str, float | None]:
    """How well logits go with targets.

    A target on neither side of the middle of its scale takes no part in accuracy, majority and AUC.

    Args:
        logits: at least one; the sigmoid of each is the probability of good.
        targets: in [0, 1].

    Returns:
        ``accuracy`` at a probability of .5 (exactly .5 is half right) with its 95 % interval ``accuracy_low`` and
        ``accuracy_high`` (Wilson), ``majority``, the accuracy of always saying what most rows are, ``auc``, all None
        where nothing lies off the middle, ``auc`` also where one side is missing; ``brier``, the mean squared error of
        the probability (Brier 1950), ``loss``, the mean cross entropy in nats, and ``calibration_error``, the mean
        distance of probability and truth over `reliability`'s bins (ECE; Naeini et al. 2015, with bins of equal mass).
    """
    probabilities = [probability(logit) for logit in logits]
    decided = [(logit, target > MIDDLE) for logit, target in zip(logits, targets, strict=True) if target != MIDDLE]
    found: dict[str, float | None] = dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high", "majority", "auc"))
    if decided:
        right = sum(0.5 if logit == 0 else float((logit > 0) is good) for logit, good in decided)
        low, high = wilson(right, len(decided))
        share = sum(good for _, good in decided) / len(decided)
        found |= {"accuracy": right / len(decided), "accuracy_low": low, "accuracy_high": high}
        found |= {"majority": max(share, 1 - share)}
        found |= {"auc": auc([good for _, good in decided], [logit for logit, _ in decided])}
    pairs = list(zip(probabilities, targets, strict=True))
    bins = reliability(probabilities, targets)
    return found | {
        "brier": fmean((p - target) ** 2 for p, target in pairs),
        "loss": fmean(_softplus(logit) - target * logit for logit, target in zip(logits, targets, strict=True)),
        "calibration_error": sum(b.n * abs(b.probability - b.good) for b in bins) / len(pairs),
    }


def reliability(probabilities: Sequence[float], targets: Sequence[float], bins: int = BINS) -> list[Bin]:
    """The rows in the order of their probability, in `bins` groups of equal size as far as that goes.

    Equal probabilities stay together, so that a constant is one group and not one for every order of the rows.
    """
    rows = sorted(zip(probabilities, targets, strict=True), key=lambda row: row[0])
    found, start = [], 0
    for number in range(1, bins + 1):
        stop = round(len(rows) * number / bins)
        while 0 < stop < len(rows) and rows[stop][0] == rows[stop - 1][0]:
            stop += 1
        if stop > start:
            part = rows[start:stop]
            found.append(Bin(len(part), fmean(p for p, _ in part), fmean(target for _, target in part)))
            start = stop
    return found


def probability(logit: float) -> float:
    """The sigmoid."""
    return math.exp(-_softplus(-logit))


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
