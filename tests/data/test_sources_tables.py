"""Tables of text and columnar files: the same rows as from JSON, and faults with a place."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import feather, parquet

from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Judgement, Prompt
from pipelines.data.sources import record as limits
from pipelines.data.sources.files import read_records
from pipelines.errors import DataError


def write(tmp_path: Path, name: str, content: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def faults(path: Path, **source: Any) -> list[tuple[str, str]]:
    outcomes = list(SourceReader(Source(path=str(path), **source)))
    return [(o.record.place.removeprefix(f"{path}:"), str(o.fault)) for o in outcomes if o.fault]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_table_of_text(tmp_path: Path, name: str, mark: str) -> None:
    lines = ["prompt#chosen", '"a#""b""\nc#d"#', "", "d\u2028é#e "]
    path = write(tmp_path, name, "\ufeff" + "\r\n".join(lines).replace("#", mark))
    first, second = read_records(path)
    assert first.row == {"prompt": f'a{mark}"b"\nc{mark}d', "chosen": ""}
    assert first.text == f'"a{mark}""b""\nc{mark}d"{mark}'
    assert second.row == {"prompt": "d\u2028é", "chosen": "e "}
    assert [first.place, second.place] == [f"{path}:2", f"{path}:5"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a", "the row has another number of cells than the header (1, not 2)"),
        (b"a,b,c", "the row has another number of cells than the header (3, not 2)"),
        (b'"a"b,c', "not a valid row of the table (',' expected after '\"')"),
        (b"caf\xe9,b", "prompt: not UTF-8 (byte 0xe9)"),
        (b"a\x00,b", "prompt: NUL character"),
        (b",b", "prompt: missing"),
    ],
)
def test_a_bad_row_of_a_table_and_the_next_is_read(tmp_path: Path, row: bytes, reason: str) -> None:
    path = write(tmp_path, "a.csv", b"prompt,completion\nq,a\n" + row + b"\nq,a\n")
    assert faults(path) == [("3", reason)]
    assert [o.row is not None for o in SourceReader(Source(path=str(path)))] == [True, False, True]


@pytest.mark.parametrize(
    ("content", "where", "reason"),
    [
        (b"", "", "no rows"),
        (b"prompt\n", "", "no rows"),
        (b"prompt,prompt\na,b", ":1", "'prompt' is there twice"),
        (b"prompt,x,x\na,b,c", ":1", "'x' is there twice"),
        (b",\na,b", ":1", "it is blank"),
        (b"prompt\ra\rb", ":1", "new-line character"),
        (b"pr\xffmpt\na", ":1", "not UTF-8"),
        (b'prompt\na\n"b\nc\n', ":3", "unexpected end of data"),
        ("prompt\na".encode("utf-16")[:-1], "", "begins as UTF-16"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, content: bytes, where: str, reason: str) -> None:
    path = write(tmp_path, "a.csv", content)
    with pytest.raises(DataError) as caught:
        list(read_records(path))
    assert reason in caught.value.message
    assert caught.value.where == f"{path}{where}"


def test_an_open_quote_is_not_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ROW_SIZE", 1000)
    path = write(tmp_path, "a.csv", 'prompt\nx\n"' + "y\n" * 2000)
    with pytest.raises(DataError, match="a quote may be left open") as caught:
        list(read_records(path))
    assert caught.value.where == f"{path}:3"


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    long = "word " * 50_000  # the csv module alone refuses more than 131,072 characters
    (record,) = read_records(write(tmp_path, "a.csv", f"prompt,chosen\n{long},a\n"))
    assert record.row["prompt"] == long


def test_declared_numbers_and_truth_values_are_parsed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "q,chosen,rejected,margin\n1,2,3,1.5\n1,2,3,\n1,2,3,much\n")
    reader = SourceReader(Source(path=str(path), columns={"prompt": "q"}), Comparison)
    good, empty, bad = reader
    assert good.row is not None
    assert (good.row.prompt[0].content, good.row.chosen, good.row.margin) == ("1", "2", 1.5)
    assert empty.row is not None
    assert empty.row.margin is None
    assert str(bad.fault) == "margin: must be a number (found 'much')"

    labels = "prompt,completion,label\na,b,true\na,b,FALSE\na,b,1\na,b,0\na,b,maybe\n"
    judged = SourceReader(Source(path=str(write(tmp_path, "b.csv", labels))))
    rows = list(judged)
    assert judged.format is not None
    assert judged.format.name == "kto"
    assert [row.row.label for row in rows if isinstance(row.row, Judgement)] == [True, False, True, False]
    assert str(rows[-1].fault) == "label: must be true, false, 1 or 0 (found 'maybe')"


def test_a_decimal_comma_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "prompt;chosen;rejected;margin\na;b;c;1.5\na;b;c;1,5\n")
    assert faults(path) == [("3", "margin: must be a number (found '1,5'; write it with a decimal point)")]


@pytest.mark.parametrize("cell", ["nan", "inf", "-Infinity", "1e999"])
def test_a_number_in_a_table_is_finite(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path, "a.csv", f"prompt,chosen,rejected,margin\na,b,c,1.5\na,b,c,{cell}\n")
    assert faults(path) == [("3", f"margin: must be a number (found '{cell}')")]


def test_an_open_quote_in_a_tsv_file_swallows_no_rows(tmp_path: Path) -> None:
    head = "prompt\tcompletion\n"
    path = write(tmp_path, "a.tsv", head + 'a\tA\n"open\tB\nnext\tC\nclosing"\tD\nb\tE\n"two\nlines"\tF\n')
    (fault,) = faults(path)
    assert fault[0] == "3"
    assert "a cell in quotes runs over lines that look like rows" in fault[1]
    rows = [outcome.row for outcome in SourceReader(Source(path=str(path)), Prompt) if outcome.row is not None]
    assert [row.prompt[0].content for row in rows] == ["a", "b", "two\nlines"]
    assert faults(write(tmp_path, "a.csv", 'prompt,x\n"a\tb\nc",d\n')) == []


ROWS: list[dict[str, Any]] = [{"prompt": f"q{i}", "chosen": "é", "rejected": "n", "margin": 0.5} for i in range(2500)]


def save(tmp_path: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    table, path = pyarrow.Table.from_pylist(rows), tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(table, path, row_group_size=700)
    elif name.startswith("feather"):
        feather.write_feather(table, str(path))
    else:
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "feather.arrow", "feather.feather", "stream.arrow"])
def test_columnar_files(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, name, ROWS)
    records = list(read_records(path))
    assert [record.row for record in records] == ROWS
    assert records[1200].place == f"{path}:row 1201"
    turns = save(tmp_path, name, [{"prompt": [{"role": "user", "content": "a"}]}])
    (outcome,) = SourceReader(Source(path=str(turns)), Prompt)
    assert outcome.row == Prompt.model_validate({"prompt": [{"role": "user", "content": "a"}]})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": datetime.datetime(2020, 1, 1)}, "prompt: must be text, not datetime"),
        ({"prompt": b"a"}, "prompt: must be text, not bytes"),
        ({"prompt": 5}, "prompt: must be text, not a number"),
        ({"prompt": None}, "prompt: must be text, not null"),
    ],
)
def test_typed_values_are_never_turned_into_text(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    found = faults(save(tmp_path, "a.parquet", [row]), format="prompt")
    assert [(place, text.split(" (")[0]) for place, text in found] == [("row 1", reason)]


@pytest.mark.parametrize("name", ["a.parquet", "feather.feather", "stream.arrow"])
def test_broken_columnar_files(tmp_path: Path, name: str) -> None:
    whole = save(tmp_path, name, ROWS).read_bytes()
    for content in (b"", b"nonsense" * 20, whole[: len(whole) // 2]):
        path = write(tmp_path, name, content)
        with pytest.raises(DataError, match=r"not a valid|cannot be read") as caught:
            list(read_records(path))
        assert caught.value.where == str(path)
    with pytest.raises(DataError, match="no rows"):
        list(read_records(save(tmp_path, name, [])))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", ["prompt;completion", '"a, b;";c, "d"']),
        ("a.csv", ['"prompt, long";"completion"', '"a, b;";c, "d"']),
        ("a.csv", ["prompt\tcompletion", 'a, b;\tc, "d"']),
        ("a.csv", ["prompt|completion", 'a, b;|c, "d"']),
        ("a.csv", ["sep=;", "prompt;completion", '"a, b;";c, "d"']),
        ("a.csv", ["SEP=|", "prompt|completion", 'a, b;|c, "d"']),
        ("a.tsv", ["", "prompt;completion", '"a, b;";c, "d"']),
        ("a.csv", ["prompt ; completion", '"a, b;";c, "d"']),
        ("a.csv", ["prompt,completion,", '"a, b;","c, ""d""",,']),
        ("a.csv", ["prompt,completion,,", '"a, b;","c, ""d"""']),
    ],
)
def test_a_table_as_excel_writes_it(tmp_path: Path, name: str, lines: list[str], encoding: str) -> None:
    (record,) = read_records(write(tmp_path, name, "\r\n".join(lines).encode(encoding)))
    assert list(record.row.values()) == ["a, b;", 'c, "d"']
    assert record.place.endswith(f":{len(lines)}")


@pytest.mark.parametrize("head", [",prompt,chosen,rejected", "Unnamed: 0,prompt,chosen,rejected"])
def test_the_index_of_pandas_is_left_alone(tmp_path: Path, head: str) -> None:
    path = write(tmp_path, "a.csv", f"{head}\n0,q,good,bad\n1,r,good,bad\n")
    rows = [outcome.row for outcome in SourceReader(Source(path=str(path)), Comparison)]
    assert [row.prompt[0].content for row in rows if row is not None] == ["q", "r"]


@pytest.mark.parametrize("column", ["score", "label", "input"])
def test_nan_says_nothing_about_an_answer(tmp_path: Path, column: str) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = save(tmp_path, "a.parquet", [{"messages": turns, column: float("nan")}])
    assert faults(path) == []


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow"])
def test_nan_in_a_column_that_nobody_reads(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c", "rating": rating} for rating in (float("nan"), 1.0)]
    path = save(tmp_path, name, rows)
    assert faults(path) == []
    ((place, fault),) = faults(path, columns={"margin": "rating"})
    assert place == "row 1"
    assert fault.startswith("rating: NaN or infinity")


def test_bytes_of_another_encoding_count_only_where_they_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"prompt,by\na,caf\xe9\n\xfc,b\n")
    assert faults(path) == [("3", "prompt: not UTF-8 (byte 0xfc)")]
