"""Gold on replies written by hand: the order a person would give them, and nothing for those who play the rules."""

from __future__ import annotations

import pytest

from pipelines.data.rows import Message
from pipelines.tasks import load_task
from pipelines.tasks.support_gold import WEIGHTS
from pipelines.tasks.support_wording import ANSWERS, PRODUCTS

TASK = load_task("support")
PROMPT = (Message(role="user", content="Hi, Ana here, my kettle has not arrived yet. Order 826."),)

BEST = "We are sorry for the trouble. Your kettle is late. We will call you on Friday. Have a nice day!"


def gold(text: str) -> dict[str, float]:
    return TASK.gold(PROMPT, text)


def test_the_best_reply_gets_everything() -> None:
    assert gold(BEST) == {"gold": 1.0, "relevance": 1, "courtesy": 1, "next_step": 1, "brevity": 1}


def test_replies_stand_in_the_expected_order() -> None:
    replies = [
        BEST,
        "We are sorry for the trouble. Your kettle is late. We will call you on Friday.",
        "Your kettle is late. We will call you on Friday.",
        "Your kettle is late.",
        "Your kettle is late. It rains a lot at this time of year.",
        "Your lamp is late. It rains a lot at this time of year.",
        "Your lamp is broken. It rains a lot at this time of year.",
        "Your lamp is broken. It rains a lot at this time of year. Many people like our blue boxes.",
    ]
    points = [gold(reply)["gold"] for reply in replies]
    assert points == sorted(points, reverse=True)
    assert len(set(points)) == len(points)


def test_relevance_weighs_most() -> None:
    assert WEIGHTS["relevance"] >= sum(WEIGHTS.values()) / 2
    rude_but_relevant, kind_but_beside_the_point = (
        "Your kettle is late.",
        BEST.replace("kettle is late", "lamp is broken"),
    )
    assert gold(rude_but_relevant)["gold"] > gold(kind_but_beside_the_point)["gold"]


def test_wording_is_free() -> None:
    own = "Apologies! The kettle was delayed, and a colleague will ship it within two days. Best regards, Jo"
    assert gold(own)["gold"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "?!...",
        "kettle",
        "thanks thanks thanks",
        "thanks thanks thanks thanks sorry sorry sorry sorry",
        "your your your kettle kettle kettle late late late",
        "\x00\x01 \ufffd\ufffd",
        "a b c d e f g h",
        "Your kettle. Your kettle. Your kettle. Your kettle.",
    ],
)
def test_garbage_and_repetition_get_nothing(text: str) -> None:
    assert gold(text)["gold"] == 0


def test_naming_a_wrong_product_beside_the_right_one_is_no_better_than_the_wrong_one() -> None:
    both = gold("Your kettle or your lamp is late.")
    assert both["relevance"] == gold("Your lamp is late.")["relevance"] == 0.5


def test_naming_everything_is_not_relevant() -> None:
    everything = " ".join(f"Your {product}," for product in PRODUCTS) + " " + ", ".join(ANSWERS) + "."
    assert gold(everything)["relevance"] == 0
    assert gold(everything)["gold"] <= 0.15


def test_a_heap_of_keywords_is_not_relevant() -> None:
    assert gold("kettle late delivery Friday")["relevance"] <= 0.5


def test_courtesy_cannot_be_farmed() -> None:
    once = gold("Sorry about this. Your kettle is late.")
    assert once["courtesy"] == 0.5
    twice = gold("Sorry about this. We are sorry for it. Your kettle is late.")
    assert twice["courtesy"] == once["courtesy"]
    assert twice["brevity"] < once["brevity"]
    often = gold("Sorry about this. Thanks for writing. We are sorry for the trouble. Your kettle is late.")
    assert often["courtesy"] == 0


def test_a_second_next_step_is_rambling() -> None:
    one = gold("Your kettle is late. We will call you on Friday.")
    two = gold("Your kettle is late. We will call you on Friday. We will write to you by Monday.")
    assert two["next_step"] == one["next_step"] == 1
    assert two["brevity"] < one["brevity"]


@pytest.mark.parametrize(
    "text", ["We will see.", "We will call you.", "Call us on Friday or not.", "On Monday it rained."]
)
def test_a_next_step_says_who_does_what_and_when(text: str) -> None:
    assert gold(f"Your kettle is late. {text}")["next_step"] == 0


def test_a_long_reply_is_not_brief() -> None:
    assert (
        gold(BEST[:-1] + " and " + "very " * 5 + "fine wishes " + " ".join(f"w{i}" for i in range(40)))["brevity"] == 0
    )


def test_a_message_about_nothing_known_has_no_relevant_reply() -> None:
    assert TASK.gold((Message(role="user", content="What is love?"),), BEST)["relevance"] == 0


def test_every_value_is_a_share() -> None:
    for text in ("", BEST, "x " * 500, "Your lamp is late. " * 3):
        scores = gold(text)
        assert set(scores) == {"gold", *TASK.attributes}
        assert all(0 <= value <= 1 for value in scores.values())
