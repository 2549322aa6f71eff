"""`rlhf score` as a process of its own."""

from __future__ import annotations

import json

import pytest

from pipelines.config.scorer_section import ScorerSection
from rlhf_cli.settings import reward_source
from tests.cli.conftest import Program

REWARD = 'def score(prompts, completions):\n    print("noise")\n    return [float(len(c)) for c in completions]\n'


@pytest.fixture
def folder(program: Program) -> Program:
    (program.folder / "my_reward.py").write_text(REWARD)
    rows = [{"prompt": "q", "chosen": "aaa", "rejected": "b"}, {"prompt": "r", "chosen": "a", "rejected": "bb"}]
    (program.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return program


def test_lines_go_to_stdout_and_the_summary_to_stderr(folder: Program):
    done = folder("score", "pairs.jsonl", "--reward-model", "my_reward:score")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {"place": "pairs.jsonl:1", "scores": {"chosen": 3.0, "rejected": 1.0}}
    assert len(lines) == 2
    assert "50.0% (95 % interval 9.5% to 90.5%) of 2 comparisons" in done.stderr
    assert "noise" in done.stderr


def test_with_out_the_lines_go_there_and_the_summary_to_stdout(folder: Program):
    summary = folder.json("score", "pairs.jsonl", "--reward-model", "my_reward:score", "--out", "scored.jsonl")
    assert summary["accuracy"]["value"] == 0.5
    assert "rows" in summary
    assert len((folder.folder / "scored.jsonl").read_text().splitlines()) == 2


def test_columns_are_named_and_the_directory_of_out_is_made(folder: Program):
    (folder.folder / "own.jsonl").write_text('{"q": "a", "a": "bb"}\n')
    columns = ("--columns", "prompt=q", "--columns", "completion=a")
    out = ("--out", "new/dir/scored.jsonl")
    folder.json("score", "own.jsonl", "--reward-model", "my_reward:score", *columns, *out)
    assert json.loads((folder.folder / "new/dir/scored.jsonl").read_text())["scores"] == {"completion": 2.0}


def test_an_out_that_cannot_be_written_is_refused_before_scoring(folder: Program):
    done = folder("score", "pairs.jsonl", "--reward-model", "my_reward:score", "--out", ".")
    assert done.returncode == 2
    done = folder("score", "pairs.jsonl", "--reward-model", "my_reward:score", "--out", "pairs.jsonl/x")
    assert done.returncode == 9
    assert "noise" not in done.stderr


def test_a_bad_row_is_exit_code_3_and_its_place(folder: Program):
    with (folder.folder / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "q", "chosen": "aaa"}\n')
        file.write('{"prompt": "q"}\n')
    line = ("score", "pairs.jsonl", "--reward-model", "my_reward:score")
    error = folder.json(*line, code=3)["error"]
    assert error["where"] == "pairs.jsonl:3"
    assert "--on-bad-row drop" in error["hint"]
    for drop in (("--on-bad-row", "drop"), ("--set", "data.on_bad_row=drop")):
        assert folder.json(*line, *drop)["summary"]["rows"] == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--reward-model", "my_reward:score", "--run-dir", "x"), "stands alone"),
        ((), "neither a configuration nor a run directory"),
        (("--reward-model", "my_reward:score", "--label", "bad"), "takes no `label`"),
        (("--config", "my.yaml", "--label", "bad"), "--label goes with --reward-model"),
        (("--reward-model", "http://me:s3cret@host/x"), "token_env"),
        (("--reward-model", "my_reward:gone"), "does not exist"),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Program, args: tuple[str, ...], words: str):
    error = folder.json("score", "pairs.jsonl", *args, code=2)["error"]
    assert words in error["message"]
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("https://host/score", "http"),
        ("package.module:Class.score", "function"),
        ("owner/model", "classifier"),
        ("./runs/x/reward/model", "classifier"),
        ("C:/models/x", "classifier"),
    ],
)
def test_what_a_reward_model_may_be_named_by(name: str, kind: str):
    assert ScorerSection.model_validate(reward_source(name)).kind == kind
