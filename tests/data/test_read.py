"""One source row by row: how many rows of it, which kind, and what is said about its format."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data import read
from pipelines.data.formats import FORMATS
from pipelines.data.read import SourceReader, sampled
from pipelines.data.rows import Comparison, Demonstration, Prompt
from pipelines.data.sources.record import Record


def save(tmp_path: Path, rows: list[Any]) -> str:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_without_a_kind_rows_come_as_they_are(tmp_path: Path) -> None:
    reader = SourceReader(Source(path=save(tmp_path, [{"prompt": "a", "chosen": "b", "rejected": "c"}])))
    (outcome,) = reader
    assert isinstance(outcome.row, Comparison)
    assert reader.format is FORMATS["preference"]
    assert reader.reason == "seen in the columns prompt, chosen, rejected"
    named = SourceReader(Source(path=save(tmp_path, []), format="prompt"))
    assert named.reason == "named by the configuration"


def test_a_record_may_hold_several_rows(tmp_path: Path) -> None:
    row = {"prompt": "q", "responses": ["a", "b", "c"], "scores": [1.0, 3.0, 2.0]}
    path = save(tmp_path, [row, row])
    outcomes = list(SourceReader(Source(path=path), Comparison))
    assert [len(outcome.rows) for outcome in outcomes] == [3, 3]
    assert {(pair.chosen, pair.rejected) for pair in outcomes[0].rows} == {("b", "a"), ("b", "c"), ("c", "a")}
    assert len(next(iter(SourceReader(Source(path=path), Demonstration))).rows) == 3


def test_tags_of_a_source(tmp_path: Path) -> None:
    row = {"talk": [{"role": "user", "content": "q"}], "chosen": {"role": "bot", "content": "y"}, "rejected": "n"}
    source = Source(
        path=save(tmp_path, [row]),
        columns={"conversations": "talk"},
        tags={"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "bot"},
    )
    (outcome,) = SourceReader(source, Comparison)
    assert outcome.row is not None
    assert (outcome.row.prompt[0].content, outcome.row.chosen, outcome.row.rejected) == ("q", "y", "n")


def test_a_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path, [{"prompt": "a"}])
    assert len(list(SourceReader(Source(path="~/a.jsonl"), Prompt))) == 1


def test_limit_comes_before_sample_and_the_order_stays(tmp_path: Path) -> None:
    path = save(tmp_path, [{"prompt": str(i)} for i in range(100)])

    def numbers(**options: int) -> list[int]:
        reader = SourceReader(Source.model_validate({"path": path, **options}), Prompt)
        return [int(o.row.prompt[0].content) for o in reader if o.row is not None]

    found = numbers(sample=10, limit=50)
    assert found == sorted(found) == numbers(sample=10, limit=50)
    assert len(set(found)) == 10
    assert max(found) < 50
    assert numbers(sample=500) == list(range(100))
    assert numbers(sample=10) != numbers(sample=10, limit=50)


def records(count: int, size: int = 0) -> Iterator[Record]:
    return (Record(f"f:{i}", "x" * size + str(i), {}) for i in range(count))


def test_every_row_has_the_same_chance_to_be_in_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    for seed in range(2000):
        monkeypatch.setattr(read, "SAMPLE_SEED", seed)
        seen.update(record.place for record in sampled(records(10), 3))
    assert all(abs(seen[f"f:{i}"] - 600) < 100 for i in range(10))  # 5 standard deviations of a binomial.


def test_a_sample_holds_no_more_than_itself_in_memory() -> None:
    tracemalloc.start()
    assert len(sampled(records(20_000, 1000), 20)) == 20
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "unread",
    ["NaN", "[1e999]", '{"y": 1, "y": 2}', '"\\u0000"', '{"\\ud800": 1}', "[" * 200 + "]" * 200, '1, "x": 2'],
)
def test_a_column_that_nobody_reads_may_hold_anything(tmp_path: Path, unread: str) -> None:
    """The same value makes the row bad where it is read, be it under another name."""
    path = tmp_path / "a.jsonl"
    row = '{"q": "a", "chosen": "b", "rejected": "c", "x": '
    path.write_text((row + unread + "}\n") * 2)
    outcomes = list(SourceReader(Source(path=str(path), columns={"prompt": "q", "margin": "x"}), Comparison))
    assert [outcome.fault is not None for outcome in outcomes] == [True, True]
    good = list(SourceReader(Source(path=str(path), columns={"prompt": "q"}), Comparison))
    assert [outcome.row.chosen for outcome in good if outcome.row is not None] == ["b", "b"]


def test_a_line_in_another_encoding_is_bad_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "a", "by": "Jos\xe9"}\n{"prompt": "Jos\xe9", "by": "b"}\n{"prompt": "\xe9}\n')
    outcomes = list(SourceReader(Source(path=str(path)), Prompt))
    assert [str(outcome.fault) for outcome in outcomes] == [
        "None",
        "not UTF-8 (byte 0xe9 at offset 15)",
        "not UTF-8 (byte 0xe9 at offset 12)",
    ]
