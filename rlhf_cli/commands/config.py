"""`rlhf config show` and `rlhf init`."""

from __future__ import annotations

import itertools
import json as json_text
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pipelines.config import Config, explain_config, load_config
from pipelines.config.reference import Key, find_key, keys_of, values_at
from pipelines.errors import UsageError
from pipelines.run.disk import disk_errors
from rlhf_cli import options, settings
from rlhf_cli.console import print_json

Name = Annotated[str, typer.Argument(metavar="[NAME]", help="Name of the configuration; see --list.")]
Explain = Annotated[
    str | None,
    typer.Option(
        "--explain", metavar="KEY", help="Key to explain by its type, default, meaning and value; or a section."
    ),
]
List = Annotated[bool, typer.Option("--list", help="List the shipped configurations.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="File to write. Default: <NAME>.yaml in the current directory."
    ),
]
Overwrite = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


def show(named: options.RunOptions = options.DEFAULT_RUN, explain: Explain = None, json: options.Json = False) -> None:
    """Print the resolved configuration with the meaning of every key.

    Values come from the defaults, the file, --set and named options; the later one wins. Without a file, the defaults
    are printed. With --explain, only one key or section is printed, with its type and default.
    """
    keys = [] if explain is None else _explained_keys(explain)
    if named.config is None and named.run_dir is None:
        loaded = load_config(None, named.sets or (), named.flags("all"), for_training=True)
        resolved: Config = settings.checked(loaded)
    else:
        resolved, _ = named.resolve("all")
    if json:
        print_json({"keys": [_facts(key, resolved) for key in keys]} if keys else resolved.model_dump(mode="json"))
    elif keys:
        print("\n\n".join("\n".join(_explanation(key, resolved)) for key in keys))
    else:
        print(explain_config(resolved), end="")


def _explained_keys(dotted: str) -> list[Key]:
    """The key, and those of its section if it is one."""
    key = find_key(dotted)
    return [key, *(keys_of(key.section, key.key) if key.section else ())]


def _explanation(key: Key, config: Config) -> Iterator[str]:
    yield key.key if key.section else f"{key.key}: {json_text.dumps(values_at(config, key.key), ensure_ascii=False)}"
    yield from textwrap.wrap(key.description, 116, initial_indent="  ", subsequent_indent="  ")
    default = "" if key.section else "; must be given" if key.default is None else f"; default: {key.default}"
    yield f"  type: {key.values}{default}"
    if not key.affects_results:
        yield "  never changes a result: another value is accepted in an existing run"


def _facts(key: Key, config: Config) -> dict[str, object]:
    return {
        "key": key.key,
        "type": key.values,
        "default": key.default,
        "description": key.description,
        "affects_results": key.affects_results,
        "value": values_at(config, key.key),
    }


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
    group = typer.Typer(help="Show the configuration.", no_args_is_help=True)
    group.command(
        epilog=options.examples(
            "rlhf config show --config my.yaml --set ppo.kl_coef=0.1",
            "rlhf config show --explain ppo.kl_coef",
            "rlhf config show --run-dir runs/my --json",
        )
    )(options.with_groups(show))
    app.add_typer(
        group,
        name="config",
        epilog=options.examples(
            "rlhf config show",
            "rlhf config show --explain ppo.kl_coef",
            "rlhf config show --run-dir runs/my --json",
        ),
    )
    app.command(
        epilog=options.examples("rlhf init", "rlhf init --list", "rlhf init quickstart --output my.yaml"),
    )(init)
