"""Self-made tasks: sources of rows whose true quality can be computed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipelines.data.rows import Comparison, Demonstration, Message, Prompt


@dataclass(frozen=True)
class AnnotatorPool:
    """Simulated annotators of the comparisons.

    Args:
        annotators: how many people there are, at least 1; each labels about the same number of pairs.
        noise: standard deviation of the slip of a single judgement, in points of gold (0 to 1). 0 never slips.
        bias: how far one person's taste is from the common one. 0 means that all weigh the attributes alike; with .3
            a person's weights are typically off by a third.
        length_bias: points of gold that ten more words are worth to the pool; below 0 they cost.
    """

    annotators: int
    noise: float
    bias: float
    length_bias: float = 0.0

    def __post_init__(self) -> None:
        if self.annotators < 1:
            raise ValueError(f"a pool needs at least one annotator, not {self.annotators}")
        if self.noise < 0 or self.bias < 0:
            raise ValueError(f"noise and bias cannot be negative: {self.noise}, {self.bias}")


@dataclass(frozen=True)
class Probe:
    """Two answers to one prompt that differ in one respect only, in which the second one is worse."""

    prompt: tuple[Message, ...]
    good: str
    spoiled: str
    attribute: str


class SelfMadeTask(Protocol):
    """A generator of data and the scorer that knows the truth about it.

    Every stream is a function of its seed alone: the same seed gives the same rows on any machine, and the streams of
    one seed are independent of one another.
    """

    @property
    def name(self) -> str:
        """The name `load_task` knows it by."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes `gold` reports."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Weights of the attributes in ``"gold"``; they sum to 1."""

    @property
    def probe_attributes(self) -> tuple[str, ...]:
        """The respects that `probes` spoil, in turn."""

    def demonstrations(self, n: int, seed: int) -> Iterator[Demonstration]:
        """``n`` dialogues of mixed quality to imitate."""

    def comparisons(self, n: int, seed: int, pool: AnnotatorPool) -> Iterator[Comparison]:
        """``n`` labeled pairs."""

    def prompts(self, n: int, seed: int) -> Iterator[Prompt]:
        """``n`` distinct prompts."""

    def gold(self, prompt: Sequence[Message], completion: str) -> dict[str, float]:
        """The true quality under ``"gold"`` and each attribute by its name, all in [0, 1]."""

    def probes(self, n: int, seed: int) -> Iterator[Probe]:
        """``n`` probes, the attributes taking turns."""


@dataclass(frozen=True)
class Annotator:
    """One person.

    Args:
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
        """Value to this person of a reply with these attribute scores, without random slips."""
        liked = sum(weight * scores[name] for name, weight in self.weights.items())
        return liked + self.taste_for_length * len(text.split()) / 10

    def prefers_first(
        self, first: tuple[Mapping[str, float], str], second: tuple[Mapping[str, float], str], rng: random.Random
    ) -> bool:
        """One judgement of two (attribute scores, text)."""
        return self.utility(*first) - self.utility(*second) + rng.gauss(0.0, self.noise) > 0


def hire(pool: AnnotatorPool, weights: Mapping[str, float], seed: int) -> list[Annotator]:
    """The people of a pool, whose weights of the attributes differ from the common ones by log-normal factors."""
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
