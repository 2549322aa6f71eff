"""The task `support`: customers write about a product, an agent replies in two or three sentences.

A message has one product and one topic, in one of many phrasings, with names, numbers and places around it. A reply is
an opening, an answer, a next step, asides and a closing; only the answer is always there. Demonstrations are of mixed
quality: about three in four answer the message, the rest is about another product or another topic.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from pipelines.data.rows import Comparison, Demonstration, Message, Prompt
from pipelines.tasks import support_wording as wording
from pipelines.tasks.support_gold import ATTRIBUTES, WEIGHTS, gold_scores
from pipelines.tasks.task import AnnotatorPool, Probe, hire

PROBE_ATTRIBUTES = ("product", "topic", "courtesy", "next_step", "brevity")

# shares in the demonstrations
RIGHT_PRODUCT = 0.85
RIGHT_TOPIC = 0.85
WITH_OPENING = 0.5
WITH_CLOSING = 0.4
WITH_STEP = 0.45
NUMBER_OF_ASIDES = (0, 0, 0, 0, 0, 1, 1, 1, 2, 2)

# Share of the comparisons whose sides differ in one respect only, and the respects among them. Without contrasts a
# reward model sees courtesy and length but never relevance; the product and the topic get the most because both must be
# looked up in the message, which is learned last.
CONTRASTS = 0.85
CONTRAST_SHARES = {"product": 7, "topic": 7, "courtesy": 1, "next_step": 1, "brevity": 1}


@dataclass(frozen=True)
class Case:
    """Subject of a message."""

    product: str
    topic: str


@dataclass(frozen=True)
class Reply:
    """A reply in its parts; an absent part is an empty string."""

    product: str
    topic: str
    phrasing: int
    opening: str = ""
    step: str = ""
    asides: tuple[str, ...] = ()
    closing: str = ""

    @property
    def text(self) -> str:
        """The reply as it is read."""
        answer = wording.ANSWERS[self.topic][self.phrasing].format(p=self.product)
        return " ".join(part for part in (self.opening, answer, self.step, *self.asides, self.closing) if part)


class Support:
    """The task; see the module's text. Holds no state."""

    name = "support"
    attributes = ATTRIBUTES
    weights = WEIGHTS
    probe_attributes = PROBE_ATTRIBUTES

    def demonstrations(self, n: int, seed: int) -> Iterator[Demonstration]:
        """``n`` dialogues of one message and one reply of mixed quality."""
        rng = random.Random(f"support/demonstrations/{seed}")
        for _ in range(n):
            case, message = _message(rng)
            reply = Message(role="assistant", content=_any_reply(rng, case).text)
            yield Demonstration(messages=(message, reply))

    def prompts(self, n: int, seed: int) -> Iterator[Prompt]:
        """``n`` distinct prompts."""
        rng = random.Random(f"support/prompts/{seed}")
        seen: set[str] = set()
        while len(seen) < n:
            _, message = _message(rng)
            if message.content not in seen:
                seen.add(message.content)
                yield Prompt(prompt=(message,))

    def comparisons(self, n: int, seed: int, pool: AnnotatorPool) -> Iterator[Comparison]:
        """``n`` pairs, the annotators of ``pool`` taking turns. No pair is a tie by gold."""
        return islice(self._labeled_pairs(seed, pool), n)

    def gold(self, prompt: Sequence[Message], completion: str) -> dict[str, float]:
        """The true quality of any text as a reply; the rules stand in `pipelines.tasks.support_gold`."""
        return gold_scores(prompt, completion)

    def probes(self, n: int, seed: int) -> Iterator[Probe]:
        """``n`` probes, the attributes of `PROBE_ATTRIBUTES` taking turns."""
        rng = random.Random(f"support/probes/{seed}")
        for number in range(n):
            attribute = PROBE_ATTRIBUTES[number % len(PROBE_ATTRIBUTES)]
            case, message = _message(rng)
            good = _reply(rng, case.product, case.topic, opening=True, closing=rng.random() < 0.5, step=True)
            spoiled = _spoil(rng, good, attribute)
            yield Probe(prompt=(message,), good=good.text, spoiled=spoiled.text, attribute=attribute)

    def _labeled_pairs(self, seed: int, pool: AnnotatorPool) -> Iterator[Comparison]:
        rng = random.Random(f"support/comparisons/{seed}")
        people = hire(pool, WEIGHTS, seed)
        made = 0
        while True:
            case, message = _message(rng)
            first, second = _pair(rng, case)
            sides = [(gold_scores((message,), reply.text), reply.text) for reply in (first, second)]
            if sides[0][0]["gold"] == sides[1][0]["gold"]:
                continue
            person = people[made % len(people)]
            made += 1
            if not person.prefers_first(sides[0], sides[1], rng):
                sides.reverse()
            yield Comparison(
                prompt=(message,), chosen=sides[0][1], rejected=sides[1][1], annotator=person.name, source="simulated"
            )


def _message(rng: random.Random) -> tuple[Case, Message]:
    case = Case(product=rng.choice(wording.PRODUCTS), topic=rng.choice(tuple(wording.PROBLEMS)))
    problem = rng.choice(wording.PROBLEMS[case.topic]).format(
        p=case.product, n=rng.randint(2, 9), city=rng.choice(wording.CITIES), day=rng.choice(wording.DAYS)
    )
    opening = rng.choice(wording.GREETINGS) if rng.random() < 0.3 else f"{rng.choice(wording.NAMES)} here,"
    detail = f"Order {rng.randint(100, 999)}." if rng.random() < 0.75 else ""
    return case, Message(role="user", content=f"{opening} {problem} {detail}".strip())


def _reply(
    rng: random.Random, product: str, topic: str, *, opening: bool, closing: bool, step: bool, asides: int = 0
) -> Reply:
    return Reply(
        product=product,
        topic=topic,
        phrasing=rng.randrange(len(wording.ANSWERS[topic])),
        opening=rng.choice(wording.OPENINGS) if opening else "",
        step=rng.choice(wording.STEPS).format(day=rng.choice(wording.DAYS)) if step else "",
        asides=tuple(rng.sample(wording.ASIDES, asides)),
        closing=rng.choice(wording.CLOSINGS) if closing else "",
    )


def _any_reply(rng: random.Random, case: Case) -> Reply:
    """A reply as the demonstrations have them."""
    return _reply(
        rng,
        product=case.product if rng.random() < RIGHT_PRODUCT else _other(rng, wording.PRODUCTS, case.product),
        topic=case.topic if rng.random() < RIGHT_TOPIC else _other(rng, tuple(wording.ANSWERS), case.topic),
        opening=rng.random() < WITH_OPENING,
        closing=rng.random() < WITH_CLOSING,
        step=rng.random() < WITH_STEP,
        asides=rng.choice(NUMBER_OF_ASIDES),
    )


def _pair(rng: random.Random, case: Case) -> tuple[Reply, Reply]:
    """Two replies to one message: two of any kind, or one and itself with one respect spoiled."""
    if rng.random() >= CONTRASTS:
        return _any_reply(rng, case), _any_reply(rng, case)
    attribute = rng.choices(tuple(CONTRAST_SHARES), weights=tuple(CONTRAST_SHARES.values()))[0]
    good = replace(_any_reply(rng, case), product=case.product)
    if attribute == "topic":
        good = _with_topic(rng, good, case.topic)
    if attribute == "courtesy" and not good.opening:
        good = replace(good, opening=rng.choice(wording.OPENINGS))
    if attribute == "next_step" and not good.step:
        good = replace(good, step=rng.choice(wording.STEPS).format(day=rng.choice(wording.DAYS)))
    if attribute == "brevity":
        good = replace(good, asides=())
    pair = [good, _spoil(rng, good, attribute)]
    rng.shuffle(pair)
    return pair[0], pair[1]


def _spoil(rng: random.Random, reply: Reply, attribute: str) -> Reply:
    """The same reply with one attribute of `PROBE_ATTRIBUTES` made worse."""
    match attribute:
        case "product":
            return replace(reply, product=_other(rng, wording.PRODUCTS, reply.product))
        case "topic":
            return _with_topic(rng, reply, _other(rng, tuple(wording.ANSWERS), reply.topic))
        case "courtesy":
            return replace(reply, opening="", closing="")
        case "next_step":
            return replace(reply, step="")
        case "brevity":
            return replace(reply, asides=tuple(rng.sample(wording.ASIDES, rng.choice((1, 2)))))
    raise ValueError(f"no such attribute: {attribute}")


def _with_topic(rng: random.Random, reply: Reply, topic: str) -> Reply:
    return replace(reply, topic=topic, phrasing=rng.randrange(len(wording.ANSWERS[topic])))


def _other(rng: random.Random, among: tuple[str, ...], than: str) -> str:
    return rng.choice([choice for choice in among if choice != than])
