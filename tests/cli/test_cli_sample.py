"""`rlhf sample` as the user calls it: in this process where that will do, as one of its own where it is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pipelines.labels.tasks_file import read_tasks
from rlhf_cli.app import run
from tests.models.helpers import outside_base
from tests.programs import program

QUICK = ("--max-new-tokens", "5", "--batch-size", "4", "--set", "run.device=cpu", "--set", "run.threads=1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return outside_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the command, with prompts and comparisons."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"say {number}"} for number in range(10)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": f"say {number}", "chosen": "a", "rejected": "b"} for number in range(8, 14)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return tmp_path


def command(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr, after checking its exit code."""
    found = run(["sample", *args])
    said = capsys.readouterr()
    assert found == code, said.err
    return said.out, said.err


def as_json(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command(capsys, *args, "--json", code=code)[0])
    return found


def test_several_files_and_models_into_one_file(base: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    other = outside_base(folder / "other", "gpt2")
    args = ("--model", str(base), "--model", str(other), "-k", "3", "--out", "new/tasks.jsonl", *QUICK)
    out, err = command(capsys, "prompts.jsonl", "pairs.jsonl", *args)
    assert "14 tasks in new/tasks.jsonl" in out
    assert "pairs.jsonl: 4 prompts of 6 rows (2 repeated)" in out
    assert "completions" in err
    tasks = read_tasks(folder / "new/tasks.jsonl").tasks.values()
    models = [answer.model for task in tasks for answer in task.answers]
    assert 20 <= models.count(str(base)) <= 28
    assert 10 <= models.count(str(other)) <= 14


def test_json_has_the_figures_and_demonstrations_one_answer_each(
    base: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    args = ("--model", str(base), "--as", "demonstrations", "--out", "demos.jsonl", "--max-per-source", "6", *QUICK)
    found = as_json(capsys, "prompts.jsonl", *args)
    assert found["rows"] == found["prompts"] == 6
    assert found["sources"] == [{"path": "prompts.jsonl", "rows": 10, "repeated": 0, "over_cap": 4, "prompts": 6}]
    assert found["models"][0]["model"] == str(base)


def test_a_dry_run_writes_nothing_and_says_what_would_be_refused(
    base: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(folder.iterdir())
    args = ("prompts.jsonl", "--model", str(base), "--out", "new/tasks.jsonl", "--dry-run")
    found = as_json(capsys, *args)
    assert (found["plan"]["action"], found["plan"]["prompts"], found["problem"]) == ("begin", 10, None)
    assert "4 completions of each of 10 prompts" in command(capsys, *args)[0]
    assert sorted(folder.iterdir()) == before
    (folder / "new").mkdir()
    (folder / "new" / "tasks.jsonl").write_text("")
    assert as_json(capsys, *args, code=4)["problem"]["code"] == "config_conflict"
    assert "would refuse" in command(capsys, *args, code=4)[1]


def test_killed_the_same_command_goes_on_to_the_same_file(base: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    """SIGKILL right before the second chunk is called complete, in a process of its own."""
    args = ("prompts.jsonl", "--model", str(base), "-k", "4", *QUICK)
    killed = program(folder, "sample", *args, "--out", "killed.jsonl", KILL_AT="os.rename:checkpoint.json:2")
    _, err = killed.communicate(timeout=240)
    assert killed.returncode == -signal.SIGKILL, err
    assert not (folder / "killed.jsonl").exists()
    assert "would go on" in command(capsys, *args, "--out", "killed.jsonl", "--dry-run")[0]
    _, err = command(capsys, *args, "--out", "killed.jsonl")
    assert "on from the last chunk" in err
    command(capsys, *args, "--out", "never.jsonl")
    assert (folder / "killed.jsonl").read_bytes() == (folder / "never.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "neither prompts nor a run"),
        (("prompts.jsonl", "--model", "BASE"), 2, "--out is missing"),
        (("prompts.jsonl", "--out", "t.jsonl"), 2, "--model is missing"),
        (("prompts.jsonl", "--model", "BASE", "--out", "t.jsonl", "--run-dir", "x"), 2, "--run-dir goes without"),
        (("prompts.jsonl", "--model", "BASE", "--model", "b", "-k", "1", "--out", "t.jsonl"), 2, "shared out"),
        (("prompts.jsonl", "--model", "BASE", "--out", "."), 2, "directory"),
        (("prompts.jsonl", "--model", "BASE", "--out", "t.jsonl", "--temperature", "0"), 2, "temperature"),
        (("prompts.jsonl", "--model", "BASE", "--out", "prompts.jsonl/t.jsonl"), 9, "refuses"),
        (("prompts.jsonl", "--model", "./nowhere", "--out", "t.jsonl"), 6, "no model directory"),
        (("prompts.jsonl", "--model", "owner/nowhere", "--out", "t.jsonl"), 10, "cannot be downloaded"),
        (("gone.jsonl", "--model", "BASE", "--out", "t.jsonl"), 3, "no such data file"),
        (("--run-dir", "x", "--out", "t.jsonl"), 2, "--out goes with PROMPTS"),
        (("--run-dir", "x", "--limit", "3"), 2, "--limit goes with PROMPTS"),
        (("--run-dir", "x"), 2, "no such run directory"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    base: Path, folder: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: int, words: str
):
    before = sorted(folder.iterdir())
    error = as_json(capsys, *(str(base) if arg == "BASE" else arg for arg in args), code=code)["error"]
    assert words in error["message"]
    assert sorted(folder.iterdir()) == before


def test_a_full_disk_is_said_and_what_is_drawn_is_kept(
    base: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from pipelines.sampling import sample_file

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_file, "write_atomic", full)
    args = ("prompts.jsonl", "--model", str(base), "--as", "demonstrations", "--out", "t.jsonl", *QUICK)
    assert as_json(capsys, *args, code=9)["error"]["code"] == "disk"
    assert not (folder / "t.jsonl").exists()
    monkeypatch.undo()
    os.chdir(folder)
    command(capsys, *args)
    assert len((folder / "t.jsonl").read_text().splitlines()) == 10


def test_with_a_run_it_is_the_stage_of_the_run(base: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "my.yaml").write_text(
        f"model: {{name_or_path: {base}}}\nrun: {{device: cpu, threads: 1}}\nsft: {{enabled: false}}\n"
        "feedback: {source: human, sample: {max_new_tokens: 5}}\n"
        "data: {prompts: prompts.jsonl, comparisons: pairs.jsonl, eval_fraction: 0.3}\n"
    )
    found = as_json(capsys, "--config", "my.yaml", "-k", "3", "--num-prompts", "6")
    assert found["stage"] == "sample"
    assert found["metrics"]["prompts"] == 6
    tasks = read_tasks(folder / "runs/my/sample/tasks.jsonl")
    assert len(tasks.tasks) == 6
    assert len(tasks.questions) == 1
    again = as_json(capsys, "--run-dir", "runs/my")
    assert again["action"] == "skip"
    other = str(outside_base(folder / "other"))
    mixed = as_json(capsys, "--run-dir", "runs/my", "--model", "policy", "--model", other, "-k", "2", "--force")
    assert mixed["metrics"]["drawn"] >= 12
    tasks = read_tasks(folder / "runs/my/sample/tasks.jsonl")
    assert {answer.model for task in tasks.tasks.values() for answer in task.answers} == {"base", other}
    error = as_json(capsys, "--run-dir", "runs/my", "-k", "2", code=2)["error"]
    assert "feedback.sample.models" in error["message"]
