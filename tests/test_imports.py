"""Imports point one way, and what must be instant never imports torch."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "datasets", "trl", "peft", "accelerate", "numpy", "pandas")
SOURCES = sorted((REPOSITORY / "pipelines").rglob("*.py"))
PROBE = """
import json, sys
from rlhf_cli.app import run
code = run(sys.argv[1:])
sys.stdout.flush()
print(json.dumps([code, [name for name in {heavy} if name in sys.modules]]), file=sys.stderr)
"""


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_the_work_never_imports_the_face(path: Path) -> None:
    names = set(imports_of(path))
    assert not [name for name in names if name.split(".")[0] == "rlhf_cli"]
    assert not [name for name in names if name.startswith("trl.experimental")]


def test_the_objective_imports_torch_and_the_standard_library_only() -> None:
    path = REPOSITORY / "pipelines" / "ppo" / "objective.py"
    if not path.exists():
        pytest.skip("not written yet")
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert roots <= {"torch", *sys.stdlib_module_names}


def test_the_face_holds_no_training_code() -> None:
    for path in (REPOSITORY / "rlhf_cli").rglob("*.py"):
        allowed = {"torch"} if path.name == "env.py" else set()
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots.intersection({*HEAVY, "click"}) - allowed, path


def loaded_by(code: str, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code, *args], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_the_spine_never_imports_torch() -> None:
    modules = "pipelines.config pipelines.run.directory pipelines.run.stage pipelines.errors pipelines.chain.table"
    modules += " pipelines.chain.chain pipelines.chain.preflight"
    code = f"import sys, {', '.join(modules.split())}; print([name for name in {HEAVY} if name in sys.modules])"
    done = loaded_by(code)
    assert done.stdout == "[]\n", done.stderr


def test_labels_are_given_and_judged_without_torch() -> None:
    """The label page and all that is done with labels: on a machine of annotators there may be no room for torch."""
    modules = (
        "store page.app page.serve agreement.measures agreement.agreement_text pairs.label_rows exchange.rows_out "
        "exchange.label_files label_types task_sources"
    )
    names = [f"pipelines.labels.{module}" for module in modules.split()]
    code = f"import sys, {', '.join(names)}; print([name for name in {HEAVY[:6]} if name in sys.modules])"
    done = loaded_by(code)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", 0),
        ("ppo --help", 0),
        ("status --run-dir run", 0),
        ("status --run-dir run --verify --json", 0),
        ("config show --run-dir run", 0),
        ("env", 0),
        ("init --list", 0),
        ("label --help", 0),
        ("label nothing.jsonl --host 0.0.0.0", 2),
        ("pairs --run-dir run --out pairs.jsonl", 6),
        ("all --run-dir run --dry-run", 0),
        ("ppo --config bad.yaml", 2),
        ("ppo --run-dir run --set ppo.kl_coeff=1", 2),
        ("ppo --run-dir run --set run.device=cuda --dry-run", 6),
    ],
)
def test_commands_that_must_be_instant_never_import_torch(tmp_path: Path, line: str, code: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("data:\n  task: {name: support}\nmodel:\n  name_or_path: org/model\n")
    (tmp_path / "bad.yaml").write_text("ppo:\n  kl_coeff: 1\n")
    done = loaded_by(PROBE.replace("{heavy}", repr(HEAVY)), *line.split(), cwd=tmp_path)
    assert json.loads(done.stderr.splitlines()[-1]) == [code, []], done.stderr
