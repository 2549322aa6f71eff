"""A data stage runs again when what it was made from has changed: a file, a register, a file of a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.chain import chain
from pipelines.chain.table import named
from pipelines.config import Config, load_config
from pipelines.errors import DataError, UsageError
from pipelines.run.directory import RunDir
from pipelines.run.reporting import SilentReporter

STAGES = named("data/prompts", Config())


def rows(path: Path, count: int = 40) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "".join(json.dumps({"instruction": f"q{i}", "input": "", "output": f"a{i}"}) + "\n" for i in range(count))
    )


def run(root: Path, source: str) -> tuple[str, str]:
    """What became of the stage, and why."""
    config, run_dir = load_config(None, [f"data.prompts={source}"]), RunDir(root / "run")
    run_dir.create()
    (outcome,) = chain.run_chain(STAGES, config, run_dir, SilentReporter())
    return outcome.action, outcome.reason


def test_a_register_and_its_data_file(tmp_path: Path) -> None:
    register, data = tmp_path / "d" / "dataset_info.json", tmp_path / "d" / "rows.jsonl"
    rows(data)
    register.write_text(json.dumps({"mine": {"file_name": "rows.jsonl"}}))
    source = f"{{path: {tmp_path / 'd'}, name: mine}}"
    assert run(tmp_path, source) == ("run", "not run yet")
    assert run(tmp_path, source) == ("skip", "complete")
    rows(data, 50)
    assert run(tmp_path, source) == ("run", "rows.jsonl has changed")
    register.write_text(json.dumps({"mine": {"file_name": "rows.jsonl", "num_samples": 30}}))
    assert run(tmp_path, source) == ("run", "dataset_info.json has changed")
    assert run(tmp_path, source) == ("skip", "complete")


def test_a_directory(tmp_path: Path) -> None:
    rows(tmp_path / "d" / "a.jsonl")
    rows(tmp_path / "d" / "b.jsonl", 60)
    assert run(tmp_path, str(tmp_path / "d"))[0] == "run"
    assert run(tmp_path, str(tmp_path / "d"))[0] == "skip"
    rows(tmp_path / "d" / "b.jsonl", 70)
    assert run(tmp_path, str(tmp_path / "d")) == ("run", "b.jsonl has changed")
    rows(tmp_path / "d" / "c.jsonl", 80)
    assert run(tmp_path, str(tmp_path / "d")) == ("run", "c.jsonl is new")


def test_what_is_wrong_is_said_before_the_stage_begins(tmp_path: Path) -> None:
    rows(tmp_path / "d" / "rows.jsonl")
    (tmp_path / "d" / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "gone.jsonl"}}))
    with pytest.raises(UsageError, match="no entry `mime`"):
        run(tmp_path, f"{{path: {tmp_path / 'd'}, name: mime}}")
    with pytest.raises(DataError, match="no such data file") as caught:
        run(tmp_path, f"{{path: {tmp_path / 'd'}, name: mine}}")
    assert caught.value.where == str(tmp_path / "d" / "gone.jsonl")
    assert not (tmp_path / "run" / "data").exists()
