"""The quick way through a format gives what the long way gives, and leaves every bad or richer row to it."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.data.canonical import to_line
from pipelines.data.formats import FORMATS
from pipelines.data.rows import unchecked_comparison

USER, ASSISTANT = {"role": "user", "content": " Hi?\n"}, {"role": "assistant", "content": "Ja: \u00fc."}
PLAIN: dict[str, dict[str, Any]] = {
    "preference": {"prompt": "a", "chosen": " b", "rejected": "c\u00a0"},
    "prompt_completion": {"prompt": "a", "completion": "b"},
    "prompt": {"prompt": "a"},
    "messages": {"messages": [USER, ASSISTANT]},
}
BLANK = ("", " ", "\u3000\n", "\x1c", None, 1, ["a"])
BESIDE: dict[str, Any] = {"tools": [{"name": "f"}], "margin": 1.5, "annotator": "ann"}


@pytest.mark.parametrize("name", PLAIN)
def test_both_ways_give_the_same_row(name: str) -> None:
    layout, row = FORMATS[name], PLAIN[name] | {"id": 7}
    quick, (long,) = layout.quick(row), layout.model_validate(row).rows()
    assert quick == long
    assert type(quick) is type(long)
    assert quick is not None
    assert (hash(quick), to_line(quick)) == (hash(long), to_line(long))


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_not_plain_takes_the_long_way(name: str) -> None:
    layout, row = FORMATS[name], PLAIN[name]
    for column in row:
        assert all(layout.quick(row | {column: value}) is None for value in BLANK)
    richer = [column for column in BESIDE if column in layout.model_fields]
    assert "tools" in richer
    assert all(layout.quick(row | {column: BESIDE[column]}) is None for column in richer)


@pytest.mark.parametrize(
    "turn", [{"role": "x", "content": "a"}, {"role": "user"}, {"role": "user", "content": 1}, USER | {"tools": []}, "a"]
)
def test_a_turn_that_is_not_plain_takes_the_long_way(turn: Any) -> None:
    assert FORMATS["messages"].quick({"messages": [USER, turn, ASSISTANT]}) is None


def test_a_trusted_row_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        unchecked_comparison("a", "b", "c").chosen = "d"  # type: ignore[misc]
