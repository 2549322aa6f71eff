"""`rlhf pairs`: rows that training reads, settings of the run, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison
from pipelines.labels.tasks_file import write_tasks
from rlhf_cli.app import run
from tests.cli.conftest import Program
from tests.labels.pools import by_hand, pool

ABC = [["a", "b", "c"]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path / "labels.jsonl", by_hand([{"p": [1, 2, 2], "q": [1, 3, 2]}], answers=ABC))
    return tmp_path


def found(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    assert run(["pairs", *args, "--json"]) == code
    read: dict[str, Any] = json.loads(capsys.readouterr().out)
    return read


def test_the_rows_are_written_and_what_is_left_out_is_said(program: Program) -> None:
    write_tasks(program.folder / "labels.jsonl", by_hand([{"p": [1, 2, 2]}], answers=ABC, simulated=True))
    done = program("pairs", "labels.jsonl", "--out", "new/rows.jsonl")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "2 of 3 pairs kept: 2 rows in new/rows.jsonl",
        "  left out: 1 tie",
        "  simulated: no human gave 1 of the labels",
    ]
    rows = [json.loads(line) for line in (program.folder / "new/rows.jsonl").read_text().splitlines()]
    assert [(row["chosen"], row["rejected"], row["margin"]) for row in rows] == [("a", "b", 1.5), ("a", "c", 1.5)]
    assert rows[0]["source"] == "simulated"
    report = program.json("data", "check", "new/rows.jsonl", "--as", "reward")
    assert report["problem"] is None


@pytest.mark.parametrize("format_", ["rlhf", "trl", "trl-implicit", "llama-factory-sharegpt", "hh"])
def test_every_format_is_read_back_as_the_same_comparisons(folder: Path, format_: str) -> None:
    assert run(["pairs", "labels.jsonl", "--out", "rows.json", "--format", format_, "--quiet"]) == 0
    register = format_.startswith("llama-factory")
    source = Source(path=str(folder), name="rows") if register else Source(path=str(folder / "rows.json"))
    rows = [outcome.row for outcome in SourceReader(source, Comparison)]
    assert [(row.chosen, row.rejected) for row in rows] == [("a", "b"), ("a", "c"), ("c", "b")]


def test_an_annotator_is_left_out_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = found(capsys, "labels.jsonl", "--out", "rows.jsonl", "--leave-out", "q")
    assert (report["left_out"], report["settings"]["leave_out"], report["rows"]) == ({"q": 1}, ["q"], 2)
    assert run(["pairs", "labels.jsonl", "--out", "rows.jsonl", "--leave-out", "q", "--force"]) == 0
    assert "left out: 1 labels of q" in capsys.readouterr().err
    error = found(capsys, "labels.jsonl", "--out", "new.jsonl", "--leave-out", "Q", code=2)["error"]
    assert (error["message"], error["hint"]) == ("no annotator is named `Q`", "there are: p, q")


def test_counts_and_settings_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = found(capsys, "labels.jsonl", "--out", "rows.jsonl", "--min-agreement", "0.8", "--method", "majority")
    assert result["settings"]["method"] == "majority"
    assert (result["possible"], result["made"], result["rows"]) == (3, 2, 2)
    assert result["dropped"] == {"below min_agreement": 1}
    assert found(capsys, "labels.jsonl", "--out", "r.jsonl", "--format", "hh")["lost"]["margin"] == 3


def test_what_is_of_note_in_an_export_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"prompt": "p", "answer_1": "a", "answer_2": "b", "rlhf": {"task": "0" * 16, "order": [0, 1]}}
    choice = {"type": "pairwise", "from_name": "better", "to_name": "prompt", "value": {"selected": "left"}}
    (folder / "export.json").write_text(json.dumps([{"data": data, "annotations": [{"result": [choice]}]}]))
    report = found(capsys, "export.json", "--out", "rows.jsonl")
    assert report["rows"] == 1
    [note] = [note for note in report["notes"] if "--tasks" in note]
    assert run(["pairs", "export.json", "--out", "rows.jsonl", "--force"]) == 0
    assert f"1 x {note}" in capsys.readouterr().err


def test_settings_are_those_of_the_run_unless_said_otherwise(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tasks(folder / "labels.jsonl", pool(0, tasks=5))
    (folder / "run/labels").mkdir(parents=True)
    (folder / "labels.jsonl").rename(folder / "run/labels/tasks.jsonl")
    (folder / "run/config.yaml").write_text(
        "model: {name_or_path: org/m}\nfeedback:\n  source: human\n  pairs: {method: majority, min_annotators: 4}\n"
    )
    settings = found(capsys, "--run-dir", "run", "--out", "rows.jsonl")["settings"]
    assert (settings["method"], settings["min_annotators"], settings["ties"]) == ("majority", 4, "drop")
    settings = found(capsys, "--run-dir", "run", "--out", "new.jsonl", "--method", "bradley_terry")["settings"]
    assert (settings["method"], settings["min_annotators"]) == ("bradley_terry", 4)


def test_judgements_are_written_for_kto(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tasks(folder / "toxic.jsonl", by_hand([{"p": [1], "q": [1]}, {"p": [0], "q": [1]}], "binary"))
    result = found(capsys, "toxic.jsonl", "--out", "rows.jsonl", "--format", "kto")
    assert (result["made"], result["dropped"]) == (1, {"tie": 1})
    assert json.loads((folder / "rows.jsonl").read_text())["label"] is True


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--format", "x"], 2, "no format `x`"),
        (["--format", "kto"], 2, "format `kto` holds judgements"),
        (["--min-agreement", "2"], 2, "min_agreement"),
        (["--min-annotators", "0"], 2, "min_annotators"),
        (["--question", "x"], 2, "no question is named `x`"),
        (["--min-annotators", "3"], 3, "no row is left: 3 too few annotators"),
    ],
)
def test_what_cannot_be_done_says_why_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, words: str
) -> None:
    error = found(capsys, "labels.jsonl", "--out", "rows.jsonl", *args, code=code)["error"]
    assert words in error["message"]
    assert not (folder / "rows.jsonl").exists()


def test_the_rows_are_the_same_every_time(folder: Path) -> None:
    write_tasks(folder / "labels.jsonl", pool(0, tasks=10))
    for name in ("one.jsonl", "two.jsonl"):
        assert run(["pairs", "labels.jsonl", "--out", name, "--weights", "reliability", "--quiet"]) == 0
    assert (folder / "one.jsonl").read_bytes() == (folder / "two.jsonl").read_bytes()
