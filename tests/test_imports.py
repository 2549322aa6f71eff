"""The walls between the rooms: what each folder may import and load, and that nothing leads around them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TORCH = ("torch", "transformers", "datasets", "trl", "peft", "accelerate", "bitsandbytes")
HEAVY = (*TORCH, "numpy", "pandas")
STAGES = ("sft", "reward", "ppo", "evaluate", "labels", "sampling")
GROUND = "errors config run report"
ROWS = f"{GROUND} data"
BELOW = f"{ROWS} tasks models scorers trainers"

# Each folder: what it may import beside itself, and the heavy packages that loading all of its modules may load.
# A name is a folder of `pipelines` (or a module of one); a folder with a line of its own is no part of the one above.
WALLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "errors": ("", ()),
    "config": ("errors", ()),
    "run": ("errors config", ()),
    "report": ("errors", ("numpy",)),
    "data": (GROUND, ()),
    "tasks": (ROWS, ()),
    "models": (ROWS, HEAVY),
    "scorers": (f"{ROWS} tasks models", HEAVY),
    "trainers": (f"{ROWS} models", HEAVY),
    "check": (f"{ROWS} tasks models", ()),
    "sft": (BELOW, HEAVY),
    "reward": (BELOW, HEAVY),
    "ppo": (BELOW, HEAVY),
    "evaluate": (BELOW, HEAVY),
    "labels": (BELOW, ("numpy",)),
    "labels/page": (f"{ROWS} labels", ("numpy",)),
    "sampling": (f"{BELOW} labels/label_types labels/questions labels/tasks_file", HEAVY),
    "chain": (f"{BELOW} check", ()),  # it names the stages as text, and loads one when it runs
    "overview": (f"{GROUND} chain evaluate/results_table evaluate/conclusion labels/blind", ("numpy",)),
    "face": (f"{ROWS} check scorers sampling labels labels/page chain overview evaluate/conclusion", ()),
}
# Today's holes. Take a line out as soon as its import is gone: the test asks for it.
HOLES = {
    ("data/prepare", "tasks"),  # a self-made task is a source of rows, and tasks are written with the rows of data
}
STAGE_HOLES = {"face/commands/status", "sampling/sample_file"}
SHARED_NAMES = {"__init__.py", "stage.py", "schema.py", "app.py"}


def short(name: str) -> str:
    """`pipelines.labels.store` as `labels/store`, `rlhf_cli.app` as `face/app`."""
    return name.removeprefix("pipelines.").replace("rlhf_cli", "face").replace(".", "/")


FILES = sorted(path for folder in ("pipelines", "rlhf_cli") for path in (REPOSITORY / folder).rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FILES
    if path != REPOSITORY / "pipelines" / "__init__.py"
}


def imports_of(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    """The modules that nodes import: of `from a.b import c` it is `a.b.c` where that is a module, else `a.b`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module or "" for name in inner)


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
IMPORTS = {name: set(imports_of(ast.walk(tree))) for name, tree in TREES.items()}
AT_LOADING = {name: set(imports_of(tree.body)) for name, tree in TREES.items()}


def room_of(name: str) -> str:
    rooms = [room for room in WALLS if f"{short(name)}/".startswith(f"{room}/")]
    assert rooms, f"{name} is in no folder of the table: give it a line"
    return max(rooms, key=len)


def test_folders_import_what_the_table_allows() -> None:
    holes = set()
    for name, targets in IMPORTS.items():
        for target in targets & MODULES.keys():
            room, allowed = room_of(target), {room_of(name), *WALLS[room_of(name)][0].split()}
            if room not in allowed and short(target) not in allowed:
                holes.add((short(name), room))
    assert holes == HOLES, "an import through a wall, or a line of HOLES that is no longer needed"


def test_folders_load_what_the_table_allows() -> None:
    """All modules of the light folders, loaded one folder after the other, the lightest first."""
    order = sorted((room for room in WALLS if "torch" not in WALLS[room][1]), key=lambda room: len(WALLS[room][1]))
    modules = {room: [name for name in MODULES if room_of(name) == room] for room in order}
    modules["face"].remove("rlhf_cli.__main__")  # runs the program
    code = (
        "import importlib, json, sys\n"
        f"for room, names in {modules!r}.items():\n"
        "    [importlib.import_module(name) for name in names]\n"
        f"    print(json.dumps([room, [name for name in {HEAVY} if name in sys.modules]]))\n"
    )
    done = loaded_by(code)
    loaded = dict(json.loads(line) for line in done.stdout.splitlines())
    assert loaded.keys() == set(order), done.stderr
    assert not {room: extra for room in order if (extra := set(loaded[room]) - set(WALLS[room][1]))}


def test_the_chain_names_the_stages_and_nobody_imports_one() -> None:
    stages = {f"pipelines.{room}.stage" for room in STAGES}
    assert stages <= MODULES.keys()
    assert {short(name) for name, targets in IMPORTS.items() if targets & stages} == STAGE_HOLES


def test_modules_load_in_one_order() -> None:
    """No circle: `TopologicalSorter` raises with the modules of one."""
    TopologicalSorter({name: AT_LOADING[name] & MODULES.keys() - {name} for name in MODULES}).prepare()


def test_a_file_name_is_given_once() -> None:
    counted = Counter(path.name for path in FILES)
    assert {name for name, count in counted.items() if count > 1} == SHARED_NAMES, "shared, or no longer shared"


def test_nobody_imports_what_may_change_or_shadows_the_face() -> None:
    for name, targets in IMPORTS.items():
        assert not [target for target in targets if target.startswith("trl.experimental")], name
        assert "click" not in targets, name


def test_the_objective_imports_torch_and_the_standard_library_only() -> None:
    roots = {name.split(".")[0] for name in IMPORTS["pipelines.ppo.objective"]}
    assert roots <= {"torch", *sys.stdlib_module_names}


def test_the_face_holds_no_training_code() -> None:
    for name in MODULES:
        if room_of(name) == "face":
            allowed = {"torch"} if name.endswith(".env") else set()  # its version and what it sees of a GPU
            assert not {target.split(".")[0] for target in IMPORTS[name]}.intersection(HEAVY) - allowed, name


def test_checkers_follow_the_folders() -> None:
    """mypy reads both packages whole; the files that mutants are made of, and the tests that must notice, exist."""
    tools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    assert tools["mypy"]["files"] == ["pipelines", "rlhf_cli"]
    assert tools["mypy"]["strict"]
    mutmut = tools["mutmut"]
    assert not [
        pattern
        for pattern in mutmut["only_mutate"] + mutmut["pytest_add_cli_args_test_selection"]
        if not list(REPOSITORY.glob(pattern))
    ]


def loaded_by(code: str, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code, *args], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


INSTANT = {
    "--help": 0,
    "ppo --help": 0,
    "status --run-dir run": 0,
    "status --run-dir run --verify --json": 0,
    "config show --run-dir run": 0,
    "env": 0,
    "init --list": 0,
    "label --help": 0,
    "label nothing.jsonl --host 0.0.0.0": 2,
    "pairs --run-dir run --out pairs.jsonl": 6,
    "all --run-dir run --dry-run": 0,
    "ppo --config bad.yaml": 2,
    "ppo --run-dir run --set ppo.kl_coeff=1": 2,
    "ppo --run-dir run --set run.device=cuda --dry-run": 6,
}
"""Commands and the exit code of each."""
PROBE = """
import json, sys
from rlhf_cli.app import run
lines, heavy = json.loads(sys.argv[1])
told = {line: [run(line.split()), [name for name in heavy if name in sys.modules]] for line in lines}
open("told.json", "w").write(json.dumps(told))
"""


def test_commands_that_must_be_instant_never_import_torch(tmp_path: Path) -> None:
    """One after the other in one process: what the first of them loads is still there after the last."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("data:\n  task: {name: support}\nmodel:\n  name_or_path: org/model\n")
    (tmp_path / "bad.yaml").write_text("ppo:\n  kl_coeff: 1\n")
    done = loaded_by(PROBE, json.dumps([list(INSTANT), HEAVY]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "told.json").read_text()) == {line: [code, []] for line, code in INSTANT.items()}
