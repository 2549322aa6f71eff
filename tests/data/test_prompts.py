"""Prompt sets: each prompt once, caps, rounds, and held-out ones in their share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.config.data_section import Source
from pipelines.data.encode import ChatEncoder
from pipelines.data.prompts import (
    SourcedPrompt,
    digest_of_prompts,
    evaluation_prompts,
    prompts_of_run,
    prompts_of_sources,
    sample_prompts,
    shares,
    take,
)
from pipelines.data.rows import Message
from pipelines.errors import DataError
from pipelines.run.reporting import SilentReporter
from tests.models.helpers import write_data
from tests.tiny import tiny_tokenizer


def source(path: Path, rows: list[dict[str, Any]], **options: Any) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path=str(path), **options)


def user(text: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": text}]}


def texts(asked: list[SourcedPrompt]) -> list[str]:
    return [entry.messages[-1].content for entry in asked]


def test_files_of_several_kinds_give_each_prompt_once(tmp_path: Path):
    first = source(tmp_path / "a.jsonl", [{"prompt": f"q{n}"} for n in range(4)] + [{"prompt": " q1 "}])
    rows = [{"prompt": f"q{n}", "chosen": "x", "rejected": "y"} for n in range(2, 6)]
    second = source(tmp_path / "b.jsonl", rows)
    dialogue = [{"role": "user", "content": "q9"}, {"role": "assistant", "content": "x"}]
    third = source(tmp_path / "c.jsonl", [{"messages": dialogue}])
    asked, counts = prompts_of_sources([first, second, third], SilentReporter())
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
    asked, counts = prompts_of_sources(
        [source(tmp_path / "a.jsonl", rows), source(tmp_path / "b.jsonl", [*rows[:9], {"prompt": "other"}])],
        SilentReporter(),
        most=3,
    )
    assert len(asked) == 4
    assert "other" in texts(asked)
    assert [(one.over_cap, one.prompts) for one in counts] == [(7, 3), (0, 1)]


def test_the_order_of_the_rows_does_not_change_the_choice(tmp_path: Path):
    rows = [{"prompt": f"q{n}"} for n in range(30)]
    there, _ = prompts_of_sources([source(tmp_path / "a.jsonl", rows)], SilentReporter(), most=5)
    back, _ = prompts_of_sources([source(tmp_path / "a.jsonl", rows[::-1])], SilentReporter(), most=5)
    assert texts(there) == texts(back)
    assert texts(there) != [f"q{n}" for n in range(5)]
    assert digest_of_prompts(there) == digest_of_prompts(back) != digest_of_prompts(there[:4])


def test_the_choices_are_those_of_earlier_versions(tmp_path: Path):
    """Pinned with commit 361c8d1: the prompts of a run, of a file and of an evaluation, and their order."""
    long = "q4 " + "word " * 40
    rows = [user(text) for text in ("q0", "q1", " q1 ", "q2", "q3", long, "q5", "q4", "q0", "q6", "q7")]
    write_data(tmp_path, "prompts", rows, rows)
    directory = tmp_path / "data" / "prompts"
    order = ["q5", "q0", "q6", "q7", "q2", "q4", "q3", " q1 ", long]
    assert [texts(side) for side in prompts_of_run(directory, "round-1")] == [order, order]
    of_file, _ = prompts_of_sources([Source(path=str(directory / "train.jsonl"))], SilentReporter(), most=5)
    assert texts(of_file) == order[:5]
    config = Config.model_validate({"model": {"name_or_path": "any"}, "eval": {"num_prompts": 6}})
    chosen, counts = evaluation_prompts(directory / "heldout.jsonl", ChatEncoder(tiny_tokenizer()), config, 16)
    assert [prompt["messages"][-1].content for prompt in chosen] == ["q7", "q4", "q3", "q6", "q0", "q2"]
    assert (counts.heldout, counts.repeated, counts.too_long, counts.used) == (11, 2, 1, 6)


def test_a_bad_row_is_refused_with_its_place(tmp_path: Path):
    bad = source(tmp_path / "a.jsonl", [{"prompt": "q"}, {"prompt": ""}])
    with pytest.raises(DataError) as caught:
        prompts_of_sources([bad], SilentReporter())
    assert caught.value.where == f"{tmp_path / 'a.jsonl'}:2"


def test_a_run_gives_both_sides_each_prompt_once(tmp_path: Path):
    write_data(tmp_path, "prompts", [user(text) for text in "abac"], [user("d")])
    train, heldout = prompts_of_run(tmp_path / "data" / "prompts", "round-2")
    assert sorted(texts(train)) == ["a", "b", "c"]
    assert texts(heldout) == ["d"]
    assert {entry.source for entry in train} == {"round-2"}


def test_a_sample_stands_for_all_sources_whatever_the_order_of_the_file() -> None:
    encoder = ChatEncoder(tiny_tokenizer())
    turns = [(Message(role="user", content=f"{name} {n}"),) for name in ("a", "b") for n in range(128)]
    turns += [(Message(role="user", content="you " * 60),), turns[3]]
    sample = sample_prompts(turns, encoder, 30, 64, cut=False)[0]
    first = [prompt["messages"][0].content for prompt in sample]
    assert len(set(first)) == 64
    assert 20 < sum(text.startswith("a") for text in first) < 44
    again = sample_prompts(turns[::-1], encoder, 30, 64, cut=False)[0]
    assert [prompt["messages"] for prompt in again] == [prompt["messages"] for prompt in sample]
    whole, too_long = sample_prompts(turns, encoder, 30, None, cut=False)
    assert (len(whole), too_long) == (256, 1)
    assert whole[:64] == sample


def test_every_round_goes_on_where_the_one_before_ended():
    asked = [SourcedPrompt((), key, "") for key in range(10)]

    def even(entry: SourcedPrompt) -> int | None:
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
