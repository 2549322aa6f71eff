"""What a command is to write never destroys what it reads, nor a label store."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.feedback.tasks_file import write_tasks
from rlhf_cli.app import run
from rlhf_cli.outfile import make_room
from tests.feedback.pools import by_hand


@pytest.mark.parametrize(
    "command",
    [
        ["pairs", "labels.jsonl", "--out", "labels.jsonl"],
        ["pairs", "labels.jsonl", "--out", "link.jsonl"],
        ["agreement", "labels.jsonl", "--out", "labels.jsonl"],
        ["labels", "convert", "labels.jsonl", "--to", "argilla", "--out", "./labels.jsonl"],
        ["score", "labels.jsonl", "--reward-model", "nowhere", "--out", "labels.jsonl"],
        ["sample", "labels.jsonl", "--model", "nowhere", "--out", "labels.jsonl"],
        ["sample", "labels.jsonl", "--model", "nowhere", "--out", "labels.jsonl", "--force", "--dry-run"],
    ],
    ids=" ".join,
)
def test_what_is_read_is_not_written_to(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = tmp_path / "labels.jsonl"
    write_tasks(labels, by_hand([{"p": [1, 2, 2]}], answers=[["a", "b", "c"]]))
    (tmp_path / "link.jsonl").symlink_to(labels)
    before = labels.read_bytes()
    assert run([*command, "--json"]) == 2
    assert "would destroy it" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert labels.read_bytes() == before


def test_a_label_store_is_never_replaced_and_other_files_are(tmp_path: Path) -> None:
    store = tmp_path / "labels.sqlite"
    with sqlite3.connect(store) as database:
        database.execute("create table labels (id)")
    with pytest.raises(UsageError, match="answers are nowhere else"):
        make_room(store)
    (tmp_path / "old.jsonl").write_text("{}")
    make_room(tmp_path / "old.jsonl", [store, "owner/name"])
    make_room(tmp_path / "new" / "rows.jsonl", write=False)
    assert not (tmp_path / "new").exists()
    make_room(tmp_path / "new" / "rows.jsonl")
    assert (tmp_path / "new").is_dir()
