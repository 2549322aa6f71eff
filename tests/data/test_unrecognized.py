"""Rows of no accepted format: the hint names the columns that make them fit, and with it they are read."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Demonstration, Judgement
from pipelines.errors import DataError
from rlhf_cli.settings import source_of

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHARE = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


def hint_for(path: Path, rows: list[Any], kind: Any = None) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="the format is not recognized") as caught:
        list(SourceReader(source_of(str(path)), kind))
    assert caught.value.where == f"{path}:1"
    return str(caught.value.hint)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"system": "s", "question": "q", "chosen": "good", "rejected": "bad"}, Comparison),
        ({"q": "a", "chosen": "good", "rejected": "bad"}, Comparison),
        ({"id": 1, "Question": "q", "response_chosen": "a", "responseRejected": "b"}, Comparison),
        ({"promt": "a", "choosen": "b", "rejcted": "c"}, Comparison),
        ({"question": "a", "answer": "b"}, Demonstration),
        ({"my question": "a", "completion": "b"}, Demonstration),
        ({"dialog": TURNS}, Demonstration),
        ({"dialog": SHARE}, Demonstration),
        ({"question": "a", "answer": "b", "label": True}, Judgement),
        ({"question": "a", "answer": "b", "rating": 3.5}, Judgement),
    ],
)
def test_the_hint_makes_the_rows_fit(tmp_path: Path, row: dict[str, Any], expected: type) -> None:
    hint = hint_for(tmp_path / "a.jsonl", [row, row])
    command = re.search("`(--columns .*?)`", hint)
    assert command is not None, hint
    columns = [word for word in shlex.split(command[1]) if word != "--columns"]
    outcomes = list(SourceReader(source_of(str(tmp_path / "a.jsonl"), columns=columns)))
    assert [type(outcome.row) for outcome in outcomes] == [expected] * 2
    assert len(hint) < 300


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"prompt": {"0": "a"}, "chosen": {"0": "b"}, "rejected": {"0": "c"}}], 'orient="records"'),
        ([{"columns": ["prompt"], "index": [0], "data": [["a"]]}], 'orient="records"'),
        ([{"question": ["a", "b"], "answer": ["c", "d"]}], 'orient="records"'),
        ([{"meta": 1, "rows": [{"prompt": "a"}]}], "list `rows`"),
        (TURNS, '{"messages": ['),
        ([{"chosen": "a", "rejected": "b"}], "--columns prompt=PROMPT"),
        ([{"prompt": "a", "chosen": "b"}], "--columns rejected=REJECTED"),
        ([{"prompt": 5}], "`prompt` is a number"),
        ([{}], "--columns prompt=COLUMN"),
        ([{"en": "a", "de": "b"}], "--columns prompt=COLUMN"),
    ],
)
def test_where_no_column_map_helps_one_line_says_what_does(tmp_path: Path, rows: list[Any], expected: str) -> None:
    hint = hint_for(tmp_path / "a.jsonl", rows)
    assert expected in hint
    assert "\n" not in hint


def test_the_map_is_for_the_rows_that_are_needed(tmp_path: Path) -> None:
    row = {"question": "a", "better": "b", "worse": "c"}
    assert "--columns chosen=better" in hint_for(tmp_path / "a.jsonl", [row], Comparison)


def test_an_empty_name_leaves_a_column_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b", "label": "spam"}))
    (outcome,) = SourceReader(source_of(str(path), columns=["label="]), Demonstration)
    assert isinstance(outcome.row, Demonstration)
