"""What a command is to write never destroys what it reads, nor a label store."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from pipelines.errors import ConflictError, DiskError, UsageError
from pipelines.labels.tasks_file import write_tasks
from rlhf_cli.app import run
from rlhf_cli.output_file import make_room
from tests.labels.pools import by_hand


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ["pairs", "labels.jsonl", "--out", "labels.jsonl"],
        ["pairs", "labels.jsonl", "--out", "link.jsonl"],
        ["agreement", "labels.jsonl", "--out", "labels.jsonl"],
        ["labels", "convert", "labels.jsonl", "--to", "argilla", "--out", "./labels.jsonl"],
        ["score", "labels.jsonl", "--reward-model", "nowhere", "--out", "labels.jsonl"],
        ["sample", "labels.jsonl", "--model", "nowhere", "--out", "labels.jsonl"],
        ["sample", "labels.jsonl", "--model", "nowhere", "--out", "labels.jsonl", "--dry-run"],
    ],
    ids=" ".join,
)
def test_what_is_read_is_not_written_to(
    command: list[str], force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = tmp_path / "labels.jsonl"
    write_tasks(labels, by_hand([{"p": [1, 2, 2]}], answers=[["a", "b", "c"]]))
    (tmp_path / "link.jsonl").symlink_to(labels)
    before = labels.read_bytes()
    assert run([*command, "--json", *(["--force"] if force else [])]) == 2
    assert "would destroy it" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert labels.read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [
        ["pairs", "labels.jsonl", "--out", "my.yaml.json"],
        ["agreement", "labels.jsonl", "--out", "my.yaml.json"],
        ["labels", "convert", "labels.jsonl", "--to", "argilla", "--out", "my.yaml.json"],
    ],
    ids=" ".join,
)
def test_a_file_that_is_there_is_replaced_only_by_force(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path / "labels.jsonl", by_hand([{"p": [1, 2, 2]}], answers=[["a", "b", "c"]]))
    mine = tmp_path / "my.yaml.json"
    mine.write_text("mine")
    assert run([*command, "--json"]) == 4
    assert "there already" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert mine.read_text() == "mine"
    assert run([*command, "--force"]) == 0
    assert mine.read_text() != "mine"


def test_a_label_store_is_never_replaced_and_other_files_are(tmp_path: Path) -> None:
    store = tmp_path / "labels.sqlite"
    with sqlite3.connect(store) as database:
        database.execute("create table labels (id)")
    with pytest.raises(UsageError, match="answers are nowhere else"):
        make_room(store, replace=True)
    (tmp_path / "old.jsonl").write_text("{}")
    with pytest.raises(ConflictError):
        make_room(tmp_path / "old.jsonl")
    make_room(tmp_path / "old.jsonl", [store, "owner/name"], replace=True)
    make_room(tmp_path / "new" / "rows.jsonl", write=False)
    assert not (tmp_path / "new").exists()
    make_room(tmp_path / "new" / "rows.jsonl")
    assert (tmp_path / "new").is_dir()


def test_what_lies_in_a_directory_that_is_read_is_not_written_to(tmp_path: Path) -> None:
    rows = tmp_path / "set" / "train.jsonl"
    rows.parent.mkdir()
    rows.write_text("{}")
    with pytest.raises(UsageError, match="would destroy it"):
        make_room(rows, [rows.parent], replace=True)
    make_room(tmp_path / "set" / "new.jsonl", [rows.parent])


def test_a_name_that_no_file_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="refuses"):
        make_room(tmp_path / ("x" * 300))
