"""`rlhf agreement`, by the functions of the program and as a process of its own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.data.rows import Message
from pipelines.labels.label_types import LabelSet, Question
from pipelines.labels.tasks_file import write_tasks
from rlhf_cli.app import run
from tests.cli.conftest import Program
from tests.labels.pools import by_hand, pool

HOSTILE = "\x1b[31m<b>|[x](http://y)\u202e"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path / "labels.jsonl", pool(1, tasks=20, people=3, habits={1: "first"}))
    return tmp_path


def test_the_report_is_data_on_stdout(program: Program) -> None:
    write_tasks(program.folder / "labels.jsonl", pool(1, tasks=20, people=3, habits={1: "first"}))
    done = program("agreement", "labels.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("overall (ranking): 60 labels, 3 annotators, 20 tasks, 20 of them by two or more\n")
    assert "Krippendorff's alpha, ordinal" in done.stdout
    assert "p1: the same place wins: the answer shown at place 1 came out best in 20 of 20 tasks" in done.stdout
    assert done.stderr == ""


def test_an_annotator_is_left_out_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = ["agreement", "labels.jsonl", "--json", "--bootstrap", "0"]
    assert run([*fast, "--leave-out", "p1"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["questions"]
    assert {one["name"] for one in report["annotators"]} == {"p0", "p2"}
    everybody = [word for name in ("p0", "p1", "p2") for word in ("--leave-out", name)]
    assert run([*fast, *everybody]) == 0
    assert json.loads(capsys.readouterr().out)["questions"][0]["alpha"]["value"] is None
    assert run([*fast, "--leave-out", "p3"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["hint"] == "there are: p0, p1, p2"


def test_json_holds_every_figure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agreement", "labels.jsonl", "--json", "--bootstrap", "50"]) == 0
    found = json.loads(capsys.readouterr().out)
    (report,) = found["questions"]
    assert found["simulated"] is False
    assert report["alpha"]["low"] < report["alpha"]["value"] < report["alpha"]["high"]
    assert {one["name"] for one in report["annotators"]} == {"p0", "p1", "p2"}
    assert report["annotators"][1]["patterns"]
    assert len(report["pairs"]) == 3
    assert run(["agreement", "labels.jsonl", "--json", "--bootstrap", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"][0]["alpha"]["low"] is None


def test_out_writes_markdown_that_names_and_comments_cannot_change(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = by_hand([{HOSTILE: [1, 2], "b": [2, 1]}], answers=[[HOSTILE, "fine"]])
    (task,) = labels.tasks
    labels.tasks[task] = replace(labels.tasks[task], prompt=(Message(role="user", content=HOSTILE),))
    labels.labels[0] = replace(labels.labels[0], flagged=True, comment=HOSTILE)
    write_tasks(folder / "hostile.jsonl", labels)
    assert run(["agreement", "hostile.jsonl", "--out", "new/report.md"]) == 0
    written, shown = (folder / "new/report.md").read_text(), capsys.readouterr().out
    for text in (written, shown):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "U+202E" in text
    assert "<b>" not in written
    assert not re.search(r"(?<!\\)\]\(http", written)
    assert "\\<b\\>\\|" in written


def test_each_question_or_the_one_that_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = by_hand([{"a": [1, 2], "b": [1, 2]}])
    labels.questions = (*labels.questions, Question("honest", "binary", "?"))
    labels.labels = [replace(one, values={**one.values, "honest": (1, 0)}) for one in labels.labels]
    write_tasks(folder / "two.jsonl", labels)
    assert run(["agreement", "two.jsonl", "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)["questions"]
    assert [(one["question"], one["level"]) for one in reports] == [("overall", "ordinal"), ("honest", "nominal")]
    assert run(["agreement", "two.jsonl", "--question", "honest"]) == 0
    assert capsys.readouterr().out.startswith("honest (binary)")


def test_a_run_gives_its_newest_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def put(path: str, people: int) -> None:
        (folder / path).mkdir(parents=True)
        write_tasks(folder / path / "tasks.jsonl", pool(1, tasks=5, people=people))
        (folder / path / "manifest.json").write_text("{}")

    def annotators() -> int:
        assert run(["agreement", "--run-dir", "runs/my", "--json"]) == 0
        return len(json.loads(capsys.readouterr().out)["questions"][0]["annotators"])

    put("runs/my/labels", 2)
    assert annotators() == 2
    put("runs/my/rounds/02/labels", 3)
    assert annotators() == 3


def test_a_store_is_read_while_people_still_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.labels.store.records import Settings, Submission
    from pipelines.labels.store.store import LabelStore

    labels = by_hand([{"a": [1, 2]}])
    (folder / "runs/my").mkdir(parents=True)
    (folder / "runs/my/config.yaml").write_text("")
    settings = Settings("t", labels.questions, "", overlap=2, control_share=0.0, seed=0)
    store = LabelStore.create(folder / "runs/my/labels.sqlite", settings)
    store.add_tasks(labels.tasks.values())
    store.add_annotator("a")
    given = store.next_task("a")
    assert given is not None
    store.submit("a", given.task.id, Submission({"overall": (1, 2)}, 1.0, "", False, False, "key", given.version))
    assert run(["agreement"]) == 0
    assert "n/a: one annotator only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["labels.jsonl", "--question", "x"], 2, "no question is named `x`"),
        (["labels.jsonl", "--run-dir", "runs/my"], 2, "do not go together"),
        (["gone.jsonl"], 3, "gone.jsonl"),
        (["nothing.jsonl"], 3, "holds no task"),
        (["--run-dir", "."], 6, "no labels yet"),
        (["--run-dir", "nowhere"], 2, "no such run directory"),
        ([], 2, "no run below runs/"),
    ],
)
def test_what_cannot_be_done_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, words: str
) -> None:
    write_tasks(folder / "nothing.jsonl", LabelSet((), {}, []))
    assert run(["agreement", *args]) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert "Traceback" not in shown
