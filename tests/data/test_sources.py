"""Files with something wrong in them: the place and the reason, never a traceback."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.sources import json_files as json_file
from pipelines.data.sources import record as limits
from pipelines.data.sources.files import read_records
from pipelines.errors import DataError

GOOD = b'{"prompt": "a"}'


def write(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", GOOD + b"\n" + GOOD + b"\n", [("1", {"prompt": "a"}), ("2", {"prompt": "a"})]),
        ("a.jsonl", b"\xef\xbb\xbf" + GOOD, [("1", {"prompt": "a"})]),
        ("a.jsonl", b"\r\n" + GOOD + b"\r\n \n\n", [("2", {"prompt": "a"})]),
        ("a.jsonl", '{"prompt": "\u2028\x85 ok"}'.encode(), [("1", {"prompt": "\u2028\x85 ok"})]),
        ("a.json", b"\xef\xbb\xbf [ " + GOOD + b",\r\n" + GOOD + b"]\n", [("row 1", {"prompt": "a"})] * 2),
        ("a.JSON", b"[" + GOOD + b"]", [("row 1", {"prompt": "a"})]),
        ("a.json", GOOD + b"\n" + GOOD, [("1", {"prompt": "a"}), ("2", {"prompt": "a"})]),
        ("a.json.gz", gzip.compress(b"[" + GOOD + b"]", mtime=0), [("row 1", {"prompt": "a"})]),
        ("a.json.gz", gzip.compress(GOOD, mtime=0), [("1", {"prompt": "a"})]),
        ("a.jsonl.gz", gzip.compress(GOOD, mtime=0), [("1", {"prompt": "a"})]),
        ("a.csv.GZ", gzip.compress(b"prompt\na", mtime=0), [("2", {"prompt": "a"})]),
        ("a.jsonl", b"\n[" + GOOD + b",\n" + GOOD + b"]\n", [("row 1", {"prompt": "a"}), ("row 2", {"prompt": "a"})]),
        ("a.jsonl", b"\xef\xbb\xbf[\n" + GOOD + b"\n]", [("row 1", {"prompt": "a"})]),
        ("a.jsonl", b'"a"\n"b"', [("1", {"prompt": "a"}), ("2", {"prompt": "b"})]),
        ("a.json", b'["a", "b"]', [("row 1", {"prompt": "a"}), ("row 2", {"prompt": "b"})]),
        ("a.json", b'"a"\n"b"', [("1", {"prompt": "a"}), ("2", {"prompt": "b"})]),
        ("a.json", ("[" + GOOD.decode() + "]").encode("utf-16"), [("row 1", {"prompt": "a"})]),
        ("a.jsonl.gz", gzip.compress(GOOD.decode().encode("utf-16-be"), mtime=0), [("1", {"prompt": "a"})]),
        ("a.txt", "é".encode("utf-32"), [("1", {"prompt": "é"})]),
        ("a.txt", b"\xef\xbb\xbfone \r\n\r\n\xc3\xa9t\xc3\xa9", [("1", {"prompt": "one "}), ("3", {"prompt": "été"})]),
    ],
)
def test_good_files(tmp_path: Path, name: str, content: bytes, expected: list[tuple[str, Any]]) -> None:
    path = write(tmp_path, name, content)
    records = list(read_records(path))
    assert [record.row for record in records] == [row for _, row in expected]
    assert records[0].place == f"{path}:{expected[0][0]}"
    assert all(record.fault is None for record in records)


ROW_FAULTS = [
    (b'{"prompt": "a"', "not valid JSON (column 15: Expecting ',' delimiter)"),
    (b"{'prompt': 'a'}", "not valid JSON (column 2: "),
    (b"{", "not valid JSON (column 2: the object goes over several lines"),
    (b'{"prompt": "a", "prompt": "b"}', "prompt: the key stands twice"),
    (b'{"prompt": "a", "x": {"y": 1, "y": 2}}', "y: the key stands twice"),
    (b'{"prompt": "a", "margin": NaN}', "margin: NaN or infinity is not a number in JSON"),
    (b'{"prompt": "a", "x": [1, -Infinity]}', "x[1]: NaN or infinity"),
    (b'{"prompt": "a", "x": 1e999}', "x: NaN or infinity"),
    (b'{"prompt": "a\\u0000b"}', "prompt: NUL character"),
    (b'{"prompt": "a\x00b"}', "NUL character"),
    (b'{"prompt": [{"content": "\\ud83d"}]}', "prompt[0].content: half a surrogate pair"),
    (b'{"\\udc00": 1}', "half a surrogate pair (broken \\u escape) in a key"),
    (b'["a"]', "must be an object, not a list"),
    (b'"a"', "must be an object, not text"),
    (b"null", "must be an object, not null"),
    (b'{"prompt": "caf\xe9"}', "not UTF-8 (byte 0xe9 at offset 15)"),
    (b'{"x": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
    (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"x": ' + b"1" * 5000 + b"}", "not valid JSON"),
]


@pytest.mark.parametrize(("line", "reason"), ROW_FAULTS)
def test_a_bad_line_has_a_place_and_the_next_is_read(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path, "a.jsonl", GOOD + b"\n" + line + b"\n" + GOOD)
    first, bad, last = read_records(path)
    assert first.row == last.row == {"prompt": "a"}
    assert bad.place == f"{path}:2"
    assert reason in str(bad.any_fault)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"prompt": "a", "prompt": "b"}', "prompt: the key stands twice"),
        (b'{"margin": NaN}', "margin: NaN"),
        (b'{"prompt": "\\u0000"}', "prompt: NUL"),
        (b"3", "must be an object, not a number"),
        (b"[" * 200 + b"]" * 200, "must be an object"),
    ],
)
def test_a_bad_row_of_an_array_has_a_place_and_the_next_is_read(tmp_path: Path, row: bytes, reason: str) -> None:
    path = write(tmp_path, "a.json", b"[" + GOOD + b",\n" + row + b",\n" + GOOD + b"]")
    _, bad, last = read_records(path)
    assert bad.place == f"{path}:row 2"
    assert reason in str(bad.any_fault)
    assert last.row == {"prompt": "a"}
    assert last.any_fault is None


@pytest.mark.parametrize(
    ("name", "content", "where", "reason"),
    [
        ("a.json", b"", "", "no rows"),
        ("a.json", b" [ ] ", "", "no rows"),
        ("a.jsonl", b"\n \n", "", "no rows"),
        ("a.txt", b"", "", "no rows"),
        ("a.json", b'{\n  "prompt": "a"\n}', ":1", "one array of objects, or one object a line"),
        ("a.json", b"nonsense", ":1", "must be one array"),
        ("a.json", b"[" + GOOD + b",\n {]", ":2", "not valid JSON: column 3"),
        ("a.json", b"[" + GOOD + b"\n" + GOOD + b"]", ":2", "column 1: Expecting ',' or ']'"),
        ("a.json", b"[" + GOOD, ":1", "Expecting"),
        ("a.json", b"[" + GOOD + b",]", ":1", "Expecting value"),
        ("a.json", b"[" + GOOD + b"]\nx", ":2", "after the end"),
        ("a.json", b"[" * 100_000, ":row 1", "nested too deeply"),
        ("a.json", b"[\n\xff]", ":2", "not UTF-8 (byte 0xff at offset 2)"),
        ("a.json", '[{"a": 1}]'.encode("utf-16")[:-1], "", "begins as UTF-16"),
        ("a.jsonl", '{"a": "\ud800"}'.encode("utf-16", "surrogatepass"), "", "begins as UTF-16"),
        ("a.xlsx", GOOD, "", "`.xlsx` is unknown; data files end in .json, .jsonl, .txt, .csv, .tsv, .parquet"),
        ("a", GOOD, "", "no ending"),
        ("a.zip.gz", GOOD, "", "`.gz` is unknown"),
        ("a.jsonl.gz", GOOD, "", "cannot be unpacked: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(GOOD * 50, mtime=0)[:-12], "", "cannot be unpacked"),
        ("a.json.gz", gzip.compress(GOOD * 50, mtime=0)[:20] + b"xxxxxxxxxxxxxx", "", "cannot be unpacked"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, where: str, reason: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        list(read_records(path))
    assert reason in caught.value.message
    assert caught.value.where == f"{path}{where}"


@pytest.mark.parametrize(
    ("name", "content", "way_out"),
    [
        ("a.xlsx", b"PK", "CSV UTF-8"),
        ("a.csv", b"PK\x03\x04\x14\x00\x06\x00", "CSV UTF-8"),
        ("a.jsonl.zst", b"(", "unpack"),
        ("a.json", b'["\xfc"]', "iconv"),
        ("a.json", b'{"prompt": "' + b"a" * 11_000_000 + b'"}', 'orient="records"'),
        ("a.json", b'{\n"prompt": {"0": "a"}}', 'orient="records"'),
    ],
)
def test_the_way_out_is_named(tmp_path: Path, name: str, content: bytes, way_out: str) -> None:
    with pytest.raises(DataError) as caught:
        list(read_records(write(tmp_path, name, content)))
    assert way_out in str(caught.value.hint)


@pytest.mark.parametrize("lines", [b'["a", "b"]\n["c", "d"]\n', b'[{"role": "user", "content": "a"}]\n' * 2])
def test_lines_that_are_lists_are_no_array(tmp_path: Path, lines: bytes) -> None:
    records = list(read_records(write(tmp_path, "a.jsonl", lines)))
    assert [record.place[-1] for record in records] == ["1", "2"]
    assert all("must be an object, not a list" in str(record.fault) for record in records)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data file"):
        list(read_records(tmp_path / "a.json"))
    with pytest.raises(DataError, match="directory"):
        list(read_records(tmp_path))


def test_a_line_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ROW_SIZE", 30)
    exact = b'{"prompt": "' + b"x" * 16 + b'"}'
    content = b"\r\n".join([exact, b'{"prompt": "' + b"x" * 200 + b'"}', GOOD])
    first, long, last = read_records(write(tmp_path, "a.jsonl", content))
    assert first.row == json.loads(exact)
    assert "longer" in str(long.fault)
    assert long.place.endswith(":2")
    assert (last.place[-1], last.row) == ("3", {"prompt": "a"})
    records = list(read_records(write(tmp_path, "a.json", b'[{"prompt": "' + b"x" * 200 + b'"}]')))
    assert "longer" in str(records[0].fault)


def test_an_array_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cut of the text, also inside a number, an escape or a character, gives the same rows."""
    rows = [{"a": 'é\u2028\\ "]}, {', "b": [1.5e-7, -12, True, None]}, {"c": {"d": "x" * 50}}, {"e": 123456}]
    content = json.dumps(rows, indent=1, ensure_ascii=False).encode() + b" \n"
    path = write(tmp_path, "a.json", content)
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(json_file, "CHUNK", size)
        assert [record.row for record in read_records(path)] == rows
        broken = write(tmp_path, "b.json", content[:-4] + b", {]")
        with pytest.raises(DataError) as caught:
            list(read_records(broken))
        assert caught.value.where == f"{broken}:{len(content[:-4].splitlines())}"


def test_an_array_never_stands_in_memory_as_a_whole(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = write(tmp_path, f"{rows}.json", json.dumps([{"prompt": "x" * 900}] * rows).encode())
        tracemalloc.start()
        assert sum(1 for _ in read_records(path)) == rows
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(4000) < peak(500) + 200_000  # The big file is 3.2 MB bigger.


def test_a_row_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ROW_SIZE", 1_000_000)
    path = write(tmp_path, "a.json", b'[{"prompt": "' + b"x" * 6_000_000)
    with pytest.raises(DataError, match="no end within 4 MB"):
        list(read_records(path))


def test_an_array_that_is_cut_off_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, cut in (('[{"a": "b"}, {"a": "b', True), ('[{"a": "b"}, {"a"', True), ('[{"a": 1} 2]', False)):
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            list(read_records(path))
        assert ("cut off" in (caught.value.hint or "")) == cut
