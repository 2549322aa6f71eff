"""What the version before the rooms (commit 361c8d1) left on disk opens, resumes and goes on.

`made_by_361c8d1.tar.xz` holds two run directories of a model from scratch: `run`, killed in PPO within the save after
its second update, and `people`, which waits for two annotators who have given 5 of their 16 answers.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.labels.store.records import Submission
from pipelines.labels.store.store import LabelStore
from rlhf_cli.app import run as rlhf
from rlhf_cli.settings import resolve


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(Path(__file__).with_name("made_by_361c8d1.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_killed_ppo_goes_on_from_its_checkpoint(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = older / "run"
    before = {path.parent: path.read_bytes() for path in run.rglob("manifest.json")}
    assert rlhf(["ppo", "--run-dir", "run", "--json"]) == 0
    assert {path: (path / "manifest.json").read_bytes() for path in before} == before
    assert json.loads(capsys.readouterr().out)["reason"].endswith("resumes at step 2")
    updates = [json.loads(line)["update"] for line in (run / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert updates == list(range(1, 11))
    assert rlhf(["status", "--run-dir", "run", "--verify", "--json"]) == 0


@pytest.mark.parametrize("named", [False, True])
def test_an_older_run_keeps_its_split(older: Path, capsys: pytest.CaptureFixture[str], named: bool) -> None:
    (older / "mine.yaml").write_text((older / "run" / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    arguments = ["--run-dir", "run", *(["--config", "mine.yaml"] if named else [])]
    assert resolve(Path("mine.yaml") if named else None, Path("run"))[0].data.split_by == "opening"
    assert resolve(Path("mine.yaml"), Path("another"))[0].data.split_by == "question"
    assert rlhf(["ppo", *arguments, "--json"]) == 0  # rewrites config.yaml
    assert load_config(Path("run/config.yaml")).data.split_by == "opening"
    capsys.readouterr()
    assert rlhf(["status", *arguments, "--json"]) == 0
    states = {entry["stage"]: entry["state"] for entry in json.loads(capsys.readouterr().out)["stages"]}
    assert {states["data/demonstrations"], states["data/prompts"], states["reward"]} == {"complete"}
    assert rlhf(["sft", *arguments, "--set", "data.split_by=question", "--json"]) == 4


def test_a_label_store_takes_the_answers_that_are_left(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rlhf(["labels", "show", "people/labels.sqlite", "--json"]) == 0
    with LabelStore.open(older / "people" / "labels.sqlite") as store:
        assert (store.progress().given, store.progress().left) == (5, 11)
        for name in store.annotators():
            while (assignment := store.next_task(name)) is not None:
                values = {question.name: (1, 2) for question in store.settings.questions}
                key = f"{name}-{assignment.task.id}"
                store.submit(
                    name, assignment.task.id, Submission(values, seconds=2.0, key=key, version=assignment.version)
                )
        assert store.progress().left == 0
    assert rlhf(["all", "--run-dir", "people", "--until", "pairs", "--json"]) == 0


def test_older_runs_have_reports(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their manifests name no machine, one run was killed within PPO and the other waits for people."""
    for name, words in (("run", "The road stops at ppo"), ("people", "The road stops at labels")):
        assert rlhf(["report", name]) == 0
        page = (older / name / "report.html").read_text(encoding="utf-8")
        assert words in page
        assert "not recorded" in page
        assert "<svg " in page
    assert rlhf(["compare", "run", "people"]) == 0
    assert "not complete in all" in capsys.readouterr().out
