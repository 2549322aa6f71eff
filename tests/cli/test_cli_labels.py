"""`rlhf labels`: show, convert, config."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.data.rows import Message
from pipelines.labels.exchange.label_files import read_labels
from pipelines.labels.exchange.label_studio import MODELS
from pipelines.labels.label_types import Answer, LabelSet, Question, Task
from pipelines.labels.tasks_file import write_tasks
from rlhf_cli import app as application
from tests.labels.exchange.exports import PAIR, annotation, result, selected, task

TASKS = [Task((Message(role="user", content=text),), (Answer("a", "m"), Answer("b", "m"))) for text in ("Hi?", "Who?")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        task(PAIR, annotation(selected("left"), by={"email": "ann@x.org"}), annotation(by=3)),
        task({**PAIR, "prompt": "Why?"}, annotation(selected("right"), by=3, was_cancelled=True)),
    ]
    (tmp_path / "export.json").write_text(json.dumps(rows))
    asked = (Question("better", "pairwise", "Which?"),)
    write_tasks(tmp_path / "tasks.jsonl", LabelSet(asked, {one.id: one for one in TASKS}, []))
    return tmp_path


def run(*args: str) -> int:
    return application.run(["labels", *args])


def told(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    assert run(*args, "--json") == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("command", ["labels", "labels show", "labels convert", "labels config"])
def test_help_has_three_examples(command: str) -> None:
    shown = CliRunner().invoke(application.app, [*command.split(), "--help"], env={"COLUMNS": "80"})
    examples = shown.stdout.partition("Examples:\n")[2].strip().splitlines()
    assert len(examples) == 3
    assert all(line.strip().startswith(f"rlhf {command}") for line in examples)


def test_show_is_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "export.json") == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "export.json",
        "  questions   pw (pairwise)",
        "  tasks       2, 2 answers each",
        "  labels      1 of 1 tasks, by 2 annotators; 2 skipped",
        "    ann@x.org: 1, 4.3 s at the median",
        "    3: 0, 2 skipped, 4.3 s at the median",
        "  of note",
        "    1 x empty results (read as skipped; --ties-from-empty reads them as ties)",
    ]
    found = told(capsys, "show", "export.json", "--ties-from-empty")
    assert found["annotators"]["3"]["skipped"] == 1
    assert (found["tasks_with_labels"], found["labels"], found["skipped"]) == (1, 2, 1)


def test_tasks_go_out_and_labels_come_home(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "tasks.jsonl", "--to", "label-studio", "--out", "new/import.json") == 0
    out, err = capsys.readouterr()
    assert out == "new/import.json: 2 tasks\n"
    assert "2 x names of models" in err
    rows = json.loads((folder / "new/import.json").read_text())
    for row in rows:
        row["annotations"] = [annotation(result("better", "better", "pairwise", {"selected": "left"}), by="ann")]
    (folder / "back.json").write_text(json.dumps(rows))
    args = ("convert", "back.json", "--to", "tasks", "--tasks", "tasks.jsonl", "--out", "home.jsonl", "--pseudonyms")
    assert told(capsys, *args)["labels"] == 2
    found = read_labels(folder / "home.jsonl")
    assert list(found.tasks.values()) == TASKS
    assert found.questions[0].text == "Which?"
    for row, label in zip(rows, found.labels, strict=True):
        first = row["data"]["rlhf"]["order"][0]
        assert label.values["better"] == ((1, 2) if first == 0 else (2, 1))
        assert label.annotator == "annotator-01"


def test_to_argilla(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "convert", "tasks.jsonl", "--to", "argilla", "--out", "records.json")["left_out"] == {MODELS: 2}
    assert [record["id"] for record in json.loads((folder / "records.json").read_text())] == [one.id for one in TASKS]


def test_another_seed_is_another_order(folder: Path) -> None:
    orders = set()
    for seed in range(6):
        run("convert", "tasks.jsonl", "--to", "label-studio", "--out", "import.json", "--seed", str(seed), "--force")
        orders.add(tuple(json.loads((folder / "import.json").read_text())[0]["data"]["rlhf"]["order"]))
    assert orders == {(0, 1), (1, 0)}


def test_values_and_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice = result("verdict", "x", "choices", {"choices": ["toxic"]})
    (folder / "export.json").write_text(json.dumps([task({"q": "Why?", "a": "So."}, annotation(choice))]))
    args = ("show", "export.json", "--columns", "prompt=q", "--columns", "answer=a")
    assert run(*args) == 3
    assert "--value TEXT=NUMBER" in capsys.readouterr().err
    assert told(capsys, *args, "--value", "toxic=1")["questions"] == [{"name": "verdict", "kind": "binary", "text": ""}]


def test_buckets_from_the_option_or_the_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exports = Path(__file__).parents[1] / "labels" / "exchange" / "faults"
    (folder / "config.xml").write_text(
        '<View><Ranker name="rank" toName="items"><Bucket name="good"/><Bucket name="bad"/></Ranker></View>'
    )
    for file in ("ranker_config_order.json", "ranker_jsonb_order.json"):
        assert run("convert", str(exports / file), "--to", "tasks", "--out", "labels.jsonl") == 3
        assert not (folder / "labels.jsonl").exists()
        for order in (("--buckets", "good,bad"), ("--label-config", "config.xml")):
            assert run("convert", str(exports / file), "--to", "tasks", "--out", "labels.jsonl", "--force", *order) == 0
            assert [label.values for label in read_labels(folder / "labels.jsonl").labels] == [{"rank": (2, 1)}] * 3
        (folder / "labels.jsonl").unlink()


def test_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "--to", "label-studio", "--question", "overall:ranking", "--question", "safe:binary") == 0
    root = ElementTree.fromstring(capsys.readouterr().out)
    assert len(root.findall("Choices")) == 4
    text = told(capsys, "config", "--to", "argilla", "--question", "clear:scale7", "--answers", "2")["config"]
    assert "clear_2" in text
    assert "clear_3" not in text


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["show", "none.json"], 3, "No such file"),
        (["show", "export.json", "--columns", "promt=q"], 2, "there is no `promt`"),
        (["show", "export.json", "--columns", "prompt"], 2, "KEY=FIELD"),
        (["show", "export.json", "--buckets", "good,,bad"], 2, "--buckets wants distinct names"),
        (["show", "export.json", "--buckets", "good,good"], 2, "--buckets wants distinct names"),
        (["show", "export.json", "--label-config", "none.xml"], 3, "cannot be read"),
        (["show", "export.json", "--value", "toxic=bad"], 2, "must be a whole number"),
        (["convert", "export.json", "--to", "tasks", "--out", "."], 2, "this is a directory"),
        (["convert", "export.json", "--to", "argilla", "--out", "x.json", "--with-labels"], 2, "label-studio only"),
        (["config", "--to", "argilla", "--question", "a:pairwise", "--answers", "3"], 2, "about 2 answers"),
        (["config", "--to", "argilla", "--question", "a:b"], 2, "kind"),
    ],
)
def test_what_is_wrong_is_said(args: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert told(capsys, *args, code=code)["error"]["exit"] == code
