"""The gold scorer of the `support` task: what a reply is really worth, by rules a reader can check.

    gold = .50 relevance + .20 next_step + .15 courtesy + .15 brevity

relevance
    Half for the product: the reply speaks of "your" or "the" product of the message and names no other product.
    Half for the topic: it shows the topic of the message and no other topic. Naming everything earns nothing.
courtesy
    Half for thanks or an apology, half for a kind closing. Each kind counts once; a reply that repeats a kind more
    than twice is flattery and earns nothing.
next_step
    1 when a sentence says who does what and when ("We will call you on Friday."), else 0.
brevity
    Starts at 1. A sentence earns its place by being the first to carry something: the matter, thanks or an apology, a
    closing, a next step. Every other sentence costs .5, every word past 40 costs .05. A reply without a word about
    any matter has nothing to be brief about and earns 0.

A text of fewer than 3 words, or of which fewer than half of the words are different ones, is not a reply and earns 0
throughout. Training never sees gold: only the simulated annotators and the assessment do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipelines.data.rows import Message
from pipelines.tasks.support_wording import DAYS, PRODUCTS, SIGNS

ATTRIBUTES = ("relevance", "courtesy", "next_step", "brevity")
WEIGHTS = {"relevance": 0.50, "courtesy": 0.15, "next_step": 0.20, "brevity": 0.15}

MIN_WORDS = 3
MIN_DISTINCT_SHARE = 0.5
FREE_WORDS = 40
COST_OF_WORD = 0.05
COST_OF_IDLE_SENTENCE = 0.5
MOST_OF_ONE_COURTESY = 2

_PRODUCT = re.compile(rf"\b({'|'.join(PRODUCTS)})s?\b", re.IGNORECASE)
_OWNED_PRODUCT = re.compile(rf"\b(?:your|the) ({'|'.join(PRODUCTS)})\b", re.IGNORECASE)
_TOPIC = re.compile(
    r"\b(?:" + "|".join(f"(?P<{topic}>{'|'.join(signs)})" for topic, signs in SIGNS.items()) + r")\b", re.IGNORECASE
)
_WHEN = rf"(?:today|tomorrow|(?:by|on|until) (?:{'|'.join(DAYS)}|Sunday)|within \w+ (?:hours?|days?))"
_WHO_DOES = (
    r"(?:(?:we|I|(?:our|the) team|a colleague) will|please) (?:call|write|send|ship|mail|reply|check|come|visit)"
)
_STEP = re.compile(rf"\b{_WHO_DOES}\b.*\b{_WHEN}\b", re.IGNORECASE)
_THANKS = re.compile(r"\b(?:thanks|thank you|sorry|apologies|apologize)\b", re.IGNORECASE)
_CLOSING = re.compile(
    r"\b(?:have a (?:nice|good|great) day|(?:kind|best) regards|all the best|best wishes|take (?:good )?care)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?\n]+")
_WORD = re.compile(r"[A-Za-z0-9']+")


def products_in(text: str) -> set[str]:
    """The products a text names."""
    return {match.group(1).lower() for match in _PRODUCT.finditer(text)}


def topics_in(text: str) -> set[str]:
    """The topics a text shows."""
    return {match.lastgroup for match in _TOPIC.finditer(text) if match.lastgroup}


def gold_scores(prompt: Sequence[Message], completion: str) -> dict[str, float]:
    """Score any text as the reply to the last user turn: ``gold`` and all `ATTRIBUTES` by their names, in [0, 1]."""
    if not _is_a_reply(completion):
        return {"gold": 0.0} | dict.fromkeys(ATTRIBUTES, 0.0)
    asked = next((turn.content for turn in reversed(prompt) if turn.role == "user"), "")
    scores = {
        "relevance": _relevance(asked, completion),
        "courtesy": _courtesy(completion),
        "next_step": float(any(_STEP.search(sentence) for sentence in _SENTENCE.findall(completion))),
        "brevity": _brevity(completion),
    }
    return {"gold": utility(scores)} | scores


def utility(scores: dict[str, float], weights: dict[str, float] = WEIGHTS) -> float:
    """The weighted mean of the attributes, in [0, 1] when the weights sum to 1."""
    return sum(weight * scores[name] for name, weight in weights.items())


def _is_a_reply(text: str) -> bool:
    words = [word.lower() for word in _WORD.findall(text)]
    return len(words) >= MIN_WORDS and len(set(words)) >= MIN_DISTINCT_SHARE * len(words)


def _relevance(asked: str, reply: str) -> float:
    wanted, named = products_in(asked), products_in(reply)
    owned = {product.lower() for product in _OWNED_PRODUCT.findall(reply)}
    product = bool(wanted) and wanted == named == owned
    topic = bool(topics_in(asked)) and topics_in(asked) == topics_in(reply)
    return 0.5 * product + 0.5 * topic


def _courtesy(reply: str) -> float:
    counts = [len(kind.findall(reply)) for kind in (_THANKS, _CLOSING)]
    if max(counts) > MOST_OF_ONE_COURTESY:
        return 0.0
    return 0.5 * sum(count > 0 for count in counts)


def _brevity(reply: str) -> float:
    carried: set[str] = set()
    idle = 0
    for sentence in _SENTENCE.findall(reply):
        if not _WORD.search(sentence):
            continue
        carries = _carries(sentence)
        idle += not carries - carried
        carried |= carries
    if "matter" not in carried:
        return 0.0
    excess = max(0, len(_WORD.findall(reply)) - FREE_WORDS)
    return max(0.0, 1.0 - COST_OF_IDLE_SENTENCE * idle - COST_OF_WORD * excess)


def _carries(sentence: str) -> set[str]:
    carries = {
        "matter": bool(products_in(sentence) or topics_in(sentence)),
        "thanks": bool(_THANKS.search(sentence)),
        "closing": bool(_CLOSING.search(sentence)),
        "step": bool(_STEP.search(sentence)),
    }
    return {what for what, there in carries.items() if there}
