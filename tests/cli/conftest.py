"""The program as a process of its own, with stages that only pretend."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import programs

FAKES = Path(__file__).parent / "fakes"


@dataclass
class Program:
    """Runs `rlhf` in a folder that holds a configuration, rows and a directory that passes for a model."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    cold: bool = False
    """Whether a process imports everything itself, and is no fork behind another: for its number, memory and times."""

    def start(self, *args: str, fake: str = "", **kwargs: Any) -> subprocess.Popen[str]:
        environment = programs.environment(FAKES, cold=self.cold, RLHF_FAKE=fake) | self.environment
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", "rlhf_cli", *args]
        return subprocess.Popen(command, cwd=self.folder, env=environment, **(pipes | kwargs))

    def __call__(self, *args: str, fake: str = "") -> subprocess.CompletedProcess[str]:
        process = self.start(*args, fake=fake)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def json(self, *args: str, fake: str = "", code: int = 0) -> dict[str, Any]:
        """The one JSON object on stdout, after checking the exit code."""
        done = self(*args, "--json", fake=fake)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        found: dict[str, Any] = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        return found


def fill(folder: Path) -> None:
    rows = [
        {"prompt": f"question {index}", "chosen": f"good {index}", "rejected": f"bad {index}"} for index in range(40)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    (folder / "my.yaml").write_text(
        "# A small run\nmodel:\n  name_or_path: ./base\ndata:\n  comparisons: rows.jsonl\n  eval_fraction: 0.3\n"
    )


@pytest.fixture
def program(tmp_path: Path) -> Program:
    fill(tmp_path)
    return Program(tmp_path)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    fill(folder)
    done = Program(folder)("all", "--config", "my.yaml", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Program:
    """A copy of a folder with a finished run."""
    shutil.copytree(_finished, tmp_path / "copy")
    return Program(tmp_path / "copy")
