"""A prompt is on one side, whatever kind of row it came in, and the split is the same everywhere."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from pipelines.config.data_section import SplitBy
from pipelines.data.canonical import prompt_of, to_kind
from pipelines.data.rows import Comparison, Demonstration, Message, Prompt
from pipelines.data.split import is_held_out, prompt_key, split_key


def prompts(n: int) -> list[tuple[Message, ...]]:
    return [(Message(role="user", content=f"Question {i}?"),) for i in range(n)]


def test_all_kinds_of_row_fall_on_the_same_side() -> None:
    for prompt in prompts(200):
        answer = Message(role="assistant", content="Yes.")
        rows = (
            Demonstration(messages=(*prompt, answer)),
            Comparison(prompt=prompt, chosen="Yes.", rejected="No."),
            Prompt(prompt=prompt),
        )
        sides = {is_held_out(prompt_of(row), 0.3) for row in rows}
        assert sides == {is_held_out(to_kind(rows[1], Prompt).prompt, 0.3)}


def test_the_share_is_about_the_fraction_and_grows_with_it() -> None:
    all_prompts = prompts(4000)
    small = {prompt for prompt in all_prompts if is_held_out(prompt, 0.1)}
    large = {prompt for prompt in all_prompts if is_held_out(prompt, 0.4)}
    assert abs(len(small) / 4000 - 0.1) < 0.02
    assert abs(len(large) / 4000 - 0.4) < 0.03
    assert small < large


@pytest.mark.parametrize(
    ("by", "places"), [("question", [4, 15, 21, 29, 37, 38, 44, 45]), ("opening", [1, 21, 24, 28, 58, 59])]
)
def test_the_split_is_the_same_on_every_machine(by: SplitBy, places: list[int]) -> None:
    # worked out once from sha256; a change here would move prompts across the split of existing runs
    assert [i for i, prompt in enumerate(prompts(60)) if is_held_out(prompt, 0.1, by)] == places


def user(text: str, **fields: Any) -> Message:
    return Message.model_validate({"role": "user", "content": text, **fields})


SYSTEM = Message(role="system", content="Be kind.")
LATER = (Message(role="assistant", content="Yes."), user("More?"))
TOOLS = ({"type": "function", "function": {"name": "search"}},)


@pytest.mark.parametrize(
    "other",
    [
        (user("What is a café,\n  really?"),),
        (user("WHAT IS A CAFÉ, REALLY?"),),
        (user(unicodedata.normalize("NFD", " What is a café,\treally? ")),),
        (user("What is a\u00a0café,\u3000really?"),),
        (SYSTEM, user("What is a café, really?")),
        (SYSTEM.model_copy(update={"tools": TOOLS}), user("What is a café, really?")),
        (user("What is a café, really?", tools=TOOLS),),
        (Message(role="assistant", content="Hello!"), user("What is a café, really?")),
        (user("What is a café, really?"), *LATER),
        (SYSTEM, user("what is a café,  REALLY?"), *LATER),
    ],
)
def test_a_question_is_on_one_side_whatever_stands_around_it(other: tuple[Message, ...]) -> None:
    assert split_key(other) == split_key((user("What is a café, really?"),))
    assert split_key(other, "opening") != split_key((user("What is a tea, really?"),), "opening")


@pytest.mark.parametrize("text", ["What is a cafe, really?", "What is a café really?", "Whatisacafé,really?", "More?"])
def test_other_questions_have_other_keys(text: str) -> None:
    assert split_key((user(text),)) != split_key((user("What is a café, really?"), *LATER))


def test_a_dialogue_without_a_question_goes_by_its_other_turns() -> None:
    call, result = Message(role="assistant", content="Let me see."), Message(role="tool", content="42")
    assert split_key((SYSTEM, call, result)) == split_key((call, result)) != split_key((call,))
    assert split_key((SYSTEM,)) != split_key((call,))


def test_an_older_split_goes_by_the_opening_as_it_is_written() -> None:
    def sides(content: str, role: str = "user") -> list[bool]:
        message = Message.model_validate({"role": role, "content": content})
        return [is_held_out((message,), fraction / 40, "opening") for fraction in range(40)]

    assert sides("Café?") == sides(unicodedata.normalize("NFD", " Café?\n"))
    assert sides("Café?") != sides("Café?", role="tool")
    for prompt in prompts(50):
        key = split_key(prompt, "opening")
        assert split_key((*prompt, *LATER), "opening") == prompt_key(prompt) == key
        assert split_key((SYSTEM, *prompt, *LATER), "opening") == split_key((SYSTEM, *prompt), "opening") != key
