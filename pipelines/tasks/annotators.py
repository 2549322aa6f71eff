"""Simulated people: they nearly agree with the truth, each with a taste and a bad day of their own."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.tasks.base import AnnotatorPool


@dataclass(frozen=True)
class Annotator:
    """One person.

    Args:
        name: as the rows carry it, ``sim-01``.
        weights: what each attribute is worth to this person; sums to 1.
        taste_for_length: points of gold that ten more words are worth (or cost), whatever they say.
        noise: standard deviation of the slip of one judgement, in points of gold.

    Where the truth is another scorer than gold, its standard deviation stands in the place of a point of gold.
    """

    name: str
    weights: Mapping[str, float]
    taste_for_length: float
    noise: float

    def utility(self, scores: Mapping[str, float], text: str) -> float:
        """What a reply with these attribute scores is worth to this person, without the slip."""
        return (
            sum(w * scores[name] for name, w in self.weights.items()) + self.taste_for_length * len(text.split()) / 10
        )

    def prefers_first(
        self, first: tuple[Mapping[str, float], str], second: tuple[Mapping[str, float], str], rng: random.Random
    ) -> bool:
        """One judgement of two (attribute scores, text)."""
        return self.utility(*first) - self.utility(*second) + rng.gauss(0.0, self.noise) > 0


def hire(pool: AnnotatorPool, weights: Mapping[str, float], seed: int) -> list[Annotator]:
    """The people of a pool.

    Args:
        pool: how many, how noisy, how biased.
        weights: the common weights of the attributes, from which each person's differ by a log-normal factor.
        seed: the same seed gives the same people.
    """
    people = []
    for number in range(1, pool.annotators + 1):
        rng = random.Random(f"annotator/{seed}/{number}")
        own = {name: weight * math.exp(rng.gauss(0.0, pool.bias)) for name, weight in weights.items()}
        total = sum(own.values())
        people.append(
            Annotator(
                name=f"sim-{number:02d}",
                weights={name: weight / total for name, weight in own.items()},
                taste_for_length=pool.length_bias + rng.gauss(0.0, 0.05 * pool.bias),
                noise=pool.noise,
            )
        )
    return people
