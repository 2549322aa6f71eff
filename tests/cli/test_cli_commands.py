"""What the commands hand on and print, in this process."""

from __future__ import annotations

import json
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import rlhf_cli
from pipelines.config import Config, load_config
from pipelines.config.yaml12 import parse_yaml
from pipelines.run.directory import RunDir
from rlhf_cli import app as application
from rlhf_cli.commands import config as config_commands
from rlhf_cli.commands import stages
from rlhf_cli.commands.stages import OutputMode
from rlhf_cli.failures import Terminated, describe

COMMANDS = [
    "",
    "init",
    "sft",
    "reward",
    "ppo",
    "baseline",
    "eval",
    "all",
    "data",
    "data check",
    "score",
    "status",
    "config",
    "config show",
    "env",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("ppo:\n  kl_coef: 0.2\n  gamma: 0.9\n  lam: 0.8\ndata: {task: {name: support}}\n")
    return tmp_path


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a stage command hands on, instead of running it."""
    found: dict[str, Any] = {}

    def take(*args: Any, **kwargs: Any) -> None:
        found.update(kwargs, args=args)

    monkeypatch.setattr(stages, "run_one", take)
    monkeypatch.setattr(stages, "run_all", take)
    return found


def run(*args: str) -> int:
    return application.run(args)


def config_of(handed: dict[str, Any]) -> Config:
    (config,) = [item for item in handed["args"] if isinstance(item, Config)]
    return config


def run_dir_of(handed: dict[str, Any]) -> str:
    (run_dir,) = [item for item in handed["args"] if isinstance(item, RunDir)]
    return str(run_dir.root)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_three_examples(command: str) -> None:
    result = CliRunner().invoke(application.app, [*command.split(), "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    examples = result.stdout.partition("Examples:\n")[2].strip().splitlines()
    assert len(examples) == 3
    assert all(line.strip().startswith(f"rlhf {command}".strip()) for line in examples)
    assert max(map(len, examples)) < 80


def test_examples_parse(handed: dict[str, Any], folder: Path) -> None:
    (folder / "configs").mkdir()
    for name in ("quickstart.yaml", "configs/quickstart.yaml"):
        (folder / name).write_text((folder / "my.yaml").read_text())
    run_dir = RunDir(folder / "runs" / "my")
    run_dir.create()
    run_dir.config_path.write_text((folder / "my.yaml").read_text())
    for name in ("sft", "reward", "ppo", "eval", "all"):
        for line in stages._EXAMPLES[name]:
            handed.clear()
            assert run(*line.split()[1:]) == 0, line
            assert handed, line


def test_all_hands_on_every_option(handed: dict[str, Any]) -> None:
    line = "all -c my.yaml --run-dir x --from sft --until ppo --force sft --force eval --dry-run --json -v -q"
    assert run(*line.split()) == 0
    assert run_dir_of(handed) == "x"
    assert handed["mode"] == OutputMode(dry_run=True, json=True, verbose=True, quiet=True)
    assert (handed["first"], handed["last"], handed["force"]) == ("sft", "ppo", ["sft", "eval"])


def test_precedence_is_file_then_set_then_flag(handed: dict[str, Any]) -> None:
    sets = ["--set", "ppo.gamma=0.7", "--set", "model.name_or_path=set", "--set", "model.init=scratch"]
    assert run("ppo", "-c", "my.yaml", *sets, "--model", "flag") == 0
    config = config_of(handed)
    assert (config.ppo.kl_coef, config.ppo.gamma) == (0.2, 0.7)
    assert (config.model.name_or_path, config.model.init) == ("flag", "pretrained")


@pytest.mark.parametrize("option", ["--run-dir", "--run_dir", "--output-dir", "--output_dir"])
def test_kebab_and_snake_of_the_run_directory(handed: dict[str, Any], option: str) -> None:
    assert run("sft", "-c", "my.yaml", option, "x_y") == 0
    assert run_dir_of(handed) == "x_y"
    assert run("sft", "-c", "my.yaml", f"{option}=x_y") == 0
    assert run_dir_of(handed) == "x_y"


@pytest.mark.parametrize("option", ["--model", "--model-name-or-path", "--model_name_or_path"])
def test_kebab_and_snake_of_the_model(handed: dict[str, Any], option: str) -> None:
    assert run("all", "-c", "my.yaml", option, "org/some_model", "--dry_run") == 0
    assert config_of(handed).model.name_or_path == "org/some_model"
    assert handed["mode"].dry_run


def test_reward_model_replaces_the_stage(handed: dict[str, Any]) -> None:
    assert run("all", "-c", "my.yaml", "--reward_model", "org/judge") == 0
    config = config_of(handed)
    assert (config.ppo.reward.kind, config.ppo.reward.path, config.reward.enabled) == ("classifier", "org/judge", False)


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        ("sft", {"demonstrations"}),
        ("reward", {"comparisons"}),
        ("ppo", {"prompts"}),
        ("eval", {"prompts"}),
        ("all", {"demonstrations", "comparisons", "prompts"}),
    ],
)
def test_dataset_serves_what_the_stage_reads(handed: dict[str, Any], command: str, kinds: set[str]) -> None:
    # Without a self-made task there is no gold scorer; PPO's own reward judges.
    assert run(command, "-c", "my.yaml", "--dataset", "rows.jsonl") == 0
    data = config_of(handed).data
    assert data.task is None
    named = {kind for kind in ("demonstrations", "comparisons", "prompts") if getattr(data, kind)}
    assert named == kinds
    assert all(getattr(data, kind)[0].path == "rows.jsonl" for kind in kinds)


def test_the_run_directory_has_a_default(handed: dict[str, Any], folder: Path) -> None:
    run("sft", "-c", "my.yaml")
    assert run_dir_of(handed) == "runs/my"
    run("sft", "-c", "my.yaml", "--set", "run.dir=there")
    assert run_dir_of(handed) == "there"
    run("sft", "-c", "my.yaml", "--set", "run.dir=there", "--run-dir", "here")
    assert run_dir_of(handed) == "here"
    moved = RunDir(folder / "moved")
    moved.create()
    moved.event("begun")
    moved.config_path.write_text("run:\n  dir: old\n")
    run("sft", "-c", "moved/config.yaml")
    assert run_dir_of(handed) == "moved"


def test_a_model_and_a_directory_are_enough(handed: dict[str, Any]) -> None:
    assert run("all", "--run-dir", "x", "--model", "m", "--dataset", "rows.jsonl") == 0
    assert config_of(handed).model.name_or_path == "m"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sft", "neither a configuration nor a run directory"),
        ("sft --run-dir nowhere", "no such run directory"),
        ("sft --run-dir .", "holds no run yet"),
        ("sft --config none.yaml", "no such configuration file"),
        ("sft --frobnicate", "--frobnicate"),
        ("frobnicate", "frobnicate"),
        ("all --config my.yaml --from nothing", "no stage `nothing`"),
        ("all --config my.yaml --set ppo.kl_coeff=1", "ppo.kl_coeff"),
        ("status", "no run below runs/"),
        ("init nothing", "no configuration `nothing`"),
    ],
)
def test_usage_errors_are_exit_2_in_words_and_in_json(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert run(*line.split(), "--json") == 2
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert (error["code"], error["exit"], captured.err) == ("usage", 2, "")
    assert words in error["message"]


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("Usage: rlhf")
    assert "error:" not in captured.err


def test_config_show_explains_a_key_and_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "show", "-c", "my.yaml", "--explain", "ppo.kl_coef", "--json") == 0
    (key,) = json.loads(capsys.readouterr().out)["keys"]
    assert key["key"] == "ppo.kl_coef"
    assert (key["type"], key["default"], key["value"], key["affects_results"]) == ("number ≥ 0", "0.05", 0.2, True)
    assert run("config", "show", "-c", "my.yaml", "--explain", "ppo.kl_coef") == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "ppo.kl_coef: 0.2"
    assert len(others) == 2
    assert run("config", "show", "--explain", "feedback.pairs", "--json") == 0
    keys = [entry["key"] for entry in json.loads(capsys.readouterr().out)["keys"]]
    assert keys[:2] == ["feedback.pairs", "feedback.pairs.question"]
    assert run("config", "show", "--explain", "ppo.kl_coeff") == 2


def test_config_show_prints_what_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "show", "-c", "my.yaml", "--set", "ppo.lam=0.5") == 0
    data, _ = parse_yaml(capsys.readouterr().out, "shown")
    assert Config.model_validate(data) == load_config(Path("my.yaml"), ["ppo.lam=0.5"], for_training=True)
    assert run("config", "show", "--json") == 0
    assert Config.model_validate(json.loads(capsys.readouterr().out)) == load_config(None, for_training=True)


def test_init_writes_and_never_overwrites(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(config_commands, "shipped_configs", lambda: {"quickstart": folder / "my.yaml"})
    assert run("init") == 0
    assert (folder / "quickstart.yaml").read_text() == (folder / "my.yaml").read_text()
    assert run("init") == 2
    assert "this file exists" in capsys.readouterr().err
    assert run("init", "quickstart", "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"name": "quickstart", "written": "quickstart.yaml"}
    assert run("init", "quickstart", "--output", "new/folder/other.yaml") == 0
    assert (folder / "new" / "folder" / "other.yaml").is_file()
    assert run("init", "--list", "--json") == 0
    assert run("init", "--output", "my.yaml/under/a/file.yaml") == 9


def test_the_list_of_configurations_holds_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.endswith(".") for line in lines)
    assert any("split and num_samples." in line for line in lines)


def test_shipped_configurations_are_found() -> None:
    directory = Path(rlhf_cli.__file__).parents[1] / "configs"
    assert list(config_commands.shipped_configs().values()) == sorted(directory.glob("*.yaml"))


def test_env_tells_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run("env", "--json") == 0
    out = capsys.readouterr().out
    assert "hf_secret" not in out
    facts = json.loads(out)
    assert facts["environment"]["OMP_NUM_THREADS"] == "1"
    assert facts["packages"]["torch"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 8),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 8),
        (ModuleNotFoundError("No module named 'wandb'", name="wandb"), 8),
        (ModuleNotFoundError("No module named 'pipelines.x'", name="pipelines.x"), 1),
        (OSError(28, "No space left on device"), 9),
        (PermissionError(13, "Permission denied"), 9),
        (type("RepositoryNotFoundError", (OSError,), {})("401 Client Error"), 10),
        (Terminated(), 143),
        (KeyboardInterrupt(), 130),
        (ValueError("odd"), 1),
    ],
)
def test_errors_of_libraries_have_their_exit_code(error: BaseException, code: int) -> None:
    entry = describe(error)
    assert entry["exit"] == code
    assert entry["hint"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((Path(rlhf_cli.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert run("--version") == 0
    assert capsys.readouterr().out == f"rlhf {project['version']}\n"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("sft --learning-rate 1e-5", "use --set sft.learning_rate=VALUE"),
        ("ppo --learning_rate=1e-5", "use --set ppo.learning_rate=VALUE"),
        ("reward --num-train-epochs 2", "use --set reward.num_train_epochs=VALUE"),
        ("sft --lora-r 8", "use --set model.lora_r=VALUE"),
        ("all --beta 0.1", "use --set ppo.kl_coef=VALUE or --set baselines.dpo.beta=VALUE"),
        ("all --report_to wandb", "use --set run.report_to=VALUE"),
        (
            "all --learning-rate 1",
            "use --set sft.learning_rate=VALUE or --set reward.learning_rate=VALUE or --set ppo.learning_rate=VALUE",
        ),
        ("sft learning_rate=1e-5 num_train_epochs=2", "use --set sft.learning_rate=VALUE"),
        ("ppo ppo.kl_coef=1", "use --set ppo.kl_coef=VALUE"),
        ("sft somewhere", "see rlhf sft --help"),
        ("sft --nothing-like-it", "see rlhf sft --help"),
        ("data check --learning-rate 1", "see rlhf data check --help"),
    ],
)
def test_an_option_of_another_program_is_told_as_a_setting(
    line: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert application.run([*line.split(), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["hint"] == hint


def test_the_list_of_commands_says_what_they_say_of_themselves() -> None:
    """It is written where nothing need be imported for it."""
    listed = typer.main.get_group(application.app).commands
    told = {name: application.loaded(name).get_short_help_str(500) for name in listed}
    assert told == {name: command.get_short_help_str(500) for name, command in listed.items()}
    modules = {path.stem for path in Path(rlhf_cli.__file__).with_name("commands").glob("*.py")}
    names = {name for module in modules for name in registered_by(module)}
    assert names == set(listed)


def registered_by(module: str) -> set[str]:
    part, register = typer.Typer(), getattr(import_module(f"rlhf_cli.commands.{module}"), "register", None)
    if register is None:  # what commands share
        return set()
    register(part)
    return set(typer.main.get_group(part).commands)
