"""`rlhf config show` and `rlhf init`."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Annotated

import typer

from pipelines.config import Config, explain_config, load_config
from pipelines.errors import UsageError
from pipelines.run.disk import disk_errors
from rlhf_cli import options, settings
from rlhf_cli.console import print_json

Name = Annotated[str, typer.Argument(metavar="[NAME]", help="Name of the configuration; see --list.")]
List = Annotated[bool, typer.Option("--list", help="List the shipped configurations.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="File to write. Default: <NAME>.yaml in the current directory."
    ),
]
Overwrite = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


def show(
    config: options.Config = None,
    run_dir: options.Dir = None,
    sets: options.Sets = None,
    model: options.Model = None,
    reward_model: options.RewardModel = None,
    dataset: options.Dataset = None,
    json: options.Json = False,
) -> None:
    """Print the resolved configuration with the meaning of every key.

    Values come from the defaults, the file, --set and named options; the later one wins. Without a file, the defaults
    are printed.
    """
    flags = settings.named_flags("all", model=model, reward_model=reward_model, dataset=dataset)
    if config is None and run_dir is None:
        resolved: Config = settings.checked(load_config(None, sets or (), flags))
    else:
        resolved, _ = settings.resolve(config, run_dir, sets or (), flags)
    if json:
        print_json(resolved.model_dump(mode="json"))
    else:
        print(explain_config(resolved), end="")


def init(
    name: Name = "quickstart",
    list_: List = False,
    output: Output = None,
    force: Overwrite = False,
    json: options.Json = False,
) -> None:
    """Write one of the shipped configurations, to be edited."""
    shipped = shipped_configs()
    if list_:
        if json:
            print_json({"configurations": [{"name": key, "about": _about(path)} for key, path in shipped.items()]})
        else:
            for key, path in shipped.items():
                print(f"{key:20} {_about(path)}")
        return
    if name not in shipped:
        raise UsageError(f"there is no configuration `{name}`", hint=f"there are: {', '.join(shipped) or 'none'}")
    target = output or Path(f"{name}.yaml")
    if target.exists() and not force:
        raise UsageError("this file exists", where=str(target), hint="name another with --output, or give --force")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(shipped[name].read_text(encoding="utf-8"), encoding="utf-8")
    if json:
        print_json({"name": name, "written": str(target)})
    else:
        print(target)


def shipped_configs() -> dict[str, Path]:
    """The shipped configurations by name, from the wheel or from the repository."""
    package = Path(__file__).parents[1]
    directory = next((path for path in (package / "configs", package.parent / "configs") if path.is_dir()), None)
    return {path.stem: path for path in sorted(directory.glob("*.yaml"))} if directory else {}


def _about(path: Path) -> str:
    """The first sentence of the comment that the file begins with."""
    comment = itertools.takewhile(lambda line: line.strip("# "), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in comment if line.startswith("#"))
    return re.split(r"(?<=[^.]\.) (?=[A-Z`])", text, maxsplit=1)[0]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Look at the configuration.", no_args_is_help=True)
    group.command(
        epilog=options.examples(
            "rlhf config show --config my.yaml",
            "rlhf config show --config my.yaml --set ppo.kl_coef=0.1",
            "rlhf config show --run-dir runs/my --json",
        )
    )(show)
    app.add_typer(
        group,
        name="config",
        epilog=options.examples(
            "rlhf config show",
            "rlhf config show --config my.yaml",
            "rlhf config show --run-dir runs/my --json",
        ),
    )
    app.command(
        epilog=options.examples("rlhf init", "rlhf init --list", "rlhf init quickstart --output my.yaml"),
    )(init)
