"""`rlhf data check` as a process of its own, and in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.data.sources.hub import DatasetPart
from pipelines.errors import HubError
from rlhf_cli import app as application
from tests.tiny import tiny_tokenizer

GOOD = {"prompt": "one", "chosen": "good", "rejected": "bad"}
BLANK = {"prompt": "two", "chosen": "", "rejected": "bad"}
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "pandas")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD) + "\n")
    (tmp_path / "bad.jsonl").write_text(json.dumps(GOOD) + "\n" + json.dumps(BLANK) + "\n")
    (tmp_path / "faq.csv").write_text("question\nhow are you\n")
    return tmp_path


def run(*args: str) -> int:
    return application.run(["data", "check", *args])


@pytest.mark.parametrize("command", ["data", "data check"])
def test_help_has_three_examples(command: str) -> None:
    result = CliRunner().invoke(application.app, [*command.split(), "--help"], env={"COLUMNS": "80"})
    examples = result.stdout.partition("Examples:\n")[2].strip().splitlines()
    assert len(examples) == 3
    assert all(line.strip().startswith(f"rlhf {command}") for line in examples)


def test_good_rows_exit_0_and_read_from_left_to_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("good.jsonl", "-q") == 0
    out, err = capsys.readouterr()
    assert err == ""
    labels = [line[2:24].strip() for line in out.splitlines() if line.startswith("  ")]
    start = labels.index("format")
    assert labels[start : start + 4] == ["format", "rows", "they hold", "can train"]
    assert "user: one\n    assistant: good" in out


def test_bad_rows_exit_3_after_everything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bad.jsonl", "good.jsonl", "-q") == 3
    out, err = capsys.readouterr()
    assert "bad.jsonl:2: chosen: blank" in out
    assert "1 prompt, 1 whole row" in out
    assert "error: 1 of 3 rows are bad" in err


def test_json_is_complete_where_there_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bad.jsonl", "none.jsonl", "--json", "-q") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["files"][0]["bad_places"] == [["bad.jsonl:2", "chosen: blank"]]
    assert "no such data file" in found["files"][1]["error"]["message"]
    assert found["problem"]["code"] == "bad_data"
    assert run("good.jsonl", "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out)["problem"] is None


def test_options_of_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("faq.csv", "--columns", "prompt=question", "--as", "ppo", "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["kinds"] == {"prompt": 1}
    assert run("good.jsonl", "--format", "hh", "-q") == 3
    assert run("good.jsonl", "--format", "alpaka", "-q") == 2
    assert run("faq.csv", "--columns", "question", "-q") == 2
    assert "KEY=COLUMN" in capsys.readouterr().err
    assert run() == 2


def test_a_hub_that_cannot_be_had_leaves_the_rest_of_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(wanted: DatasetPart) -> None:
        raise HubError("gone", where=wanted.path)

    monkeypatch.setattr("pipelines.data.sources.open_hub", refuse)
    assert run("good.jsonl", "nope/nope", "--json", "-q") == 10
    found = json.loads(capsys.readouterr().out)
    assert found["files"][0]["kinds"] == {"comparison": 1}
    assert found["problem"]["code"] == "network"
    assert found["problem"]["where"] == "nope/nope"


def test_without_files_those_of_the_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my.yaml").write_text(
        "data:\n  demonstrations: good.jsonl\n  prompts: {path: faq.csv, columns: {prompt: question}}\n"
    )
    assert run("--config", "my.yaml", "--json", "-q") == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [(file["stage"], file["kinds"]) for file in files] == [
        ("sft", {"demonstration": 1}),
        ("ppo", {"prompt": 1}),
    ]
    assert run("--config", "my.yaml", "--columns", "prompt=x", "-q") == 2
    assert "--columns goes with FILE" in capsys.readouterr().err
    (folder / "my.yaml").write_text("data:\n  comparisons: faq.csv\n")
    assert run("--config", "my.yaml", "-q") == 3


def test_what_a_source_can_be_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"who": "human", "value": "hi"}, {"who": "bot", "value": "ho"}]
    (folder / "turns.jsonl").write_text(json.dumps({"conversations": turns}) + "\n" + json.dumps({"bad": 1}) + "\n")
    tags = ("--tags", "role_tag=who", "--tags", "assistant_tag=bot")
    assert run("turns.jsonl", *tags, "--limit", "1", "-q") == 0
    assert run("turns.jsonl", *tags, "-q") == 3
    assert run("good.jsonl", "--split", "test", "-q") == 2
    capsys.readouterr()
    assert run("good.jsonl", "--tags", "role=who", "-q") == 2
    assert "there is no tag `role`" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_has_no_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrapped.json").write_text('{"data": [{"prompt": "a"}]}')
    assert run("wrapped.json", "-q") == 3
    out, err = capsys.readouterr()
    assert "not read  " in out
    assert "characters" not in out
    assert "split" not in out
    assert "save that list alone" in err


def test_words_of_libraries_do_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("good.jsonl", "--as", "foo") == 2
    assert "Value error" not in capsys.readouterr().err


def test_tokens_and_their_marks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "my.yaml").write_text("sft: {max_length: 9}\nreward: {max_length: 9}\ndata: {eval_fraction: 0.5}\n")
    assert run("good.jsonl", "--model", "model", "--config", "my.yaml", "--as", "reward", "-q") == 0
    out = capsys.readouterr().out
    assert "<|user|>one<|assistant|>[[good</s>]]" in out
    assert "at 9 tokens: 0 of 1 row left out" in out
    assert "data.eval_fraction 0.5" in out
    (folder / "long.jsonl").write_text(json.dumps(GOOD | {"chosen": "xyz" * 5}) + "\n")
    assert run("long.jsonl", "--model", "model", "--max-length", "8", "-q") == 0
    assert "at 8 tokens: 1 of 1 row left out" in capsys.readouterr().out


def test_escape_sequences_of_a_file_do_not_reach_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "evil.jsonl").write_text(json.dumps(GOOD | {"chosen": "\x1b[2Jgone"}) + "\n")
    assert run("evil.jsonl", "-q") == 0
    out = capsys.readouterr().out
    assert "gone" in out
    assert "\x1b" not in out


def test_nothing_heavy_is_imported_without_a_model() -> None:
    code = (
        "import sys; from rlhf_cli.app import run; run(['data', 'check', 'good.jsonl', '-q']); "
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    repository = str(Path(application.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": repository}, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
