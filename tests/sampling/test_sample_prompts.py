"""Prompt sets: each prompt once, caps, rounds, and held-out ones in their share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.prompts import Asked, digest_of_prompts, of_files, of_run, shares, take
from pipelines.errors import DataError
from pipelines.run.reporting import SilentReporter
from tests.models.helpers import write_data


def source(path: Path, rows: list[dict[str, Any]], **options: Any) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path=str(path), **options)


def texts(asked: list[Asked]) -> list[str]:
    return [entry.messages[-1].content for entry in asked]


def test_files_of_several_kinds_give_each_prompt_once(tmp_path: Path):
    first = source(tmp_path / "a.jsonl", [{"prompt": f"q{n}"} for n in range(4)] + [{"prompt": " q1 "}])
    rows = [{"prompt": f"q{n}", "chosen": "x", "rejected": "y"} for n in range(2, 6)]
    second = source(tmp_path / "b.jsonl", rows)
    dialogue = [{"role": "user", "content": "q9"}, {"role": "assistant", "content": "x"}]
    third = source(tmp_path / "c.jsonl", [{"messages": dialogue}])
    asked, counts = of_files([first, second, third], SilentReporter())
    assert sorted(texts(asked)) == ["q0", "q1", "q2", "q3", "q4", "q5", "q9"]
    assert [(one.rows, one.repeated, one.over_cap, one.prompts) for one in counts] == [
        (5, 1, 0, 4),
        (4, 2, 0, 2),
        (1, 0, 0, 1),
    ]
    assert {entry.source for entry in asked} == {"a.jsonl", "b.jsonl", "c.jsonl"}
    assert [entry.key for entry in asked] == sorted(entry.key for entry in asked)
    assert next(entry.place for entry in asked if texts([entry]) == ["q5"]) == f"{tmp_path / 'b.jsonl'}:4"


def test_a_cap_holds_for_each_file_and_the_rest_does_not_come_back_through_another(tmp_path: Path):
    rows = [{"prompt": f"q{n}"} for n in range(10)]
    asked, counts = of_files(
        [source(tmp_path / "a.jsonl", rows), source(tmp_path / "b.jsonl", [*rows[:9], {"prompt": "other"}])],
        SilentReporter(),
        most=3,
    )
    assert len(asked) == 4
    assert "other" in texts(asked)
    assert [(one.over_cap, one.prompts) for one in counts] == [(7, 3), (0, 1)]


def test_the_order_of_the_rows_has_no_hand_in_the_choice(tmp_path: Path):
    rows = [{"prompt": f"q{n}"} for n in range(30)]
    there, _ = of_files([source(tmp_path / "a.jsonl", rows)], SilentReporter(), most=5)
    back, _ = of_files([source(tmp_path / "a.jsonl", rows[::-1])], SilentReporter(), most=5)
    assert texts(there) == texts(back)
    assert texts(there) != [f"q{n}" for n in range(5)]
    assert digest_of_prompts(there) == digest_of_prompts(back) != digest_of_prompts(there[:4])


def test_a_bad_row_is_refused_with_its_place(tmp_path: Path):
    bad = source(tmp_path / "a.jsonl", [{"prompt": "q"}, {"prompt": ""}])
    with pytest.raises(DataError) as caught:
        of_files([bad], SilentReporter())
    assert caught.value.where == f"{tmp_path / 'a.jsonl'}:2"


def test_a_run_gives_both_sides_each_prompt_once(tmp_path: Path):
    def row(text: str) -> dict[str, Any]:
        return {"prompt": [{"role": "user", "content": text}]}

    write_data(tmp_path, "prompts", [row("a"), row("b"), row("a"), row("c")], [row("d")])
    train, heldout = of_run(tmp_path / "data" / "prompts", "round-2")
    assert sorted(texts(train)) == ["a", "b", "c"]
    assert texts(heldout) == ["d"]
    assert {entry.source for entry in train} == {"round-2"}


def test_every_round_goes_on_where_the_one_before_ended():
    asked = [Asked((), key, "") for key in range(10)]

    def even(entry: Asked) -> int | None:
        return entry.key if entry.key % 2 == 0 else None

    assert take(asked, 2, even) == ([0, 2], 1)
    assert take(asked, 2, even, 2)[0] == [4, 6]
    assert take(asked, 2, even, 3)[0] == [8, 0]
    assert take(asked, 2, even, 4)[0] == [2, 4]
    assert take(asked, None, even, 4) == ([0, 2, 4, 6, 8], 5)
    assert take(asked, 7, even, 2)[0] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("train", "heldout", "most", "expected"),
    [
        (90, 10, 20, (18, 2)),
        (90, 10, 3, (2, 1)),
        (90, 10, 1, (1, 0)),
        (90, 10, None, (None, None)),
        (90, 0, 5, (5, 0)),
        (3, 1, 100, (99, 1)),
    ],
)
def test_held_out_prompts_have_their_share(train: int, heldout: int, most: int | None, expected: tuple[int, int]):
    assert shares(train, heldout, most) == expected
