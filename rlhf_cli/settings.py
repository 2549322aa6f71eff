"""Resolving options to one configuration and one run directory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pipelines.config import Config, load_config
from pipelines.config.data_section import Source, TagName
from pipelines.errors import UsageError
from pipelines.run.directory import RunDir

_DATA_OF = {
    "sft": ("demonstrations",),
    "reward": ("comparisons",),
    "ppo": ("prompts",),
    "judge": ("comparisons",),
    "eval": ("prompts",),
    "all": ("demonstrations", "comparisons", "prompts"),
}


def named_flags(
    command: str, *, model: str | None = None, reward_model: str | None = None, dataset: Path | None = None
) -> dict[str, Any]:
    """Return the values that named options set, by dotted key."""
    flags: dict[str, Any] = {}
    if model is not None:
        flags |= {"model.name_or_path": model, "model.init": "pretrained"}
    if reward_model is not None:
        flags |= {"ppo.reward": reward_source(reward_model), "reward.enabled": False}
    if dataset is not None:
        flags |= {f"data.{kind}": [{"path": str(dataset)}] for kind in _DATA_OF[command]}
        flags["data.task"] = None
    return flags


def reward_source(name: str) -> dict[str, Any]:
    """The scorer that `--reward-model` names: an http(s) address, module:function, or a model's hub id or directory."""
    if name.startswith(("http://", "https://")):
        return {"kind": "http", "url": name}
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", name) and not Path(name).exists():
        return {"kind": "function", "function": name}
    return {"kind": "classifier", "path": name}


def source_of(
    path: str,
    *,
    columns: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    verdicts: Sequence[str] | None = None,
    **options: Any,
) -> Source:
    """A source of the configuration, from the options that go by the same names.

    Raises:
        UsageError: an entry is not of this form, or there is no such column or tag.
    """
    told = pairs("--tags", "TAG=TEXT", tags or ())
    known = get_args(TagName)
    for tag in told:
        if tag not in known:
            raise UsageError(f"there is no tag `{tag}`", where="--tags", hint=f"the tags are {', '.join(known)}")
    meanings = pairs("--verdicts", "VALUE=NUMBER", verdicts or ())
    for number in meanings.values():
        if not number.isdecimal():
            raise UsageError(
                f"--verdicts wants the number of an answer, counted from 1, or 0 for a tie, not `{number}`"
            )
    renamed = pairs("--columns", "KEY=COLUMN", columns or (), blank=True)
    mapped = {"columns": renamed, "tags": told, "verdicts": {value: int(number) for value, number in meanings.items()}}
    source = Source.model_validate({"path": path, **mapped, **options})
    if source.columns:
        from pipelines.data.read import check_column_names

        check_column_names(source)
    return source


def pairs(option: str, form: str, entries: Sequence[str], *, blank: bool = False) -> dict[str, str]:
    """The entries of a repeatable option, each of the form of ``KEY=VALUE``; `blank`: nothing may stand for VALUE.

    Raises:
        UsageError: an entry is not of this form.
    """
    values = {}
    for entry in entries:
        key, separator, value = entry.partition("=")
        if not (key and separator and (value or blank)):
            raise UsageError(f"{option} wants {form}, not `{entry}`", where=option)
        values[key] = value
    return values


def checked(config: Config) -> Config:
    """The configuration as it is, once its column maps name columns that an accepted format has.

    Raises:
        UsageError: one of them does not.
    """
    data = config.data
    mapped = [source for source in data.sources if source.columns]
    if mapped:
        from pipelines.data.read import check_column_names  # takes a while, and few configurations need it

        for source in mapped:
            check_column_names(source)
    return config


def resolve(
    config_path: Path | None, run_dir: Path | None, sets: Sequence[str] = (), flags: dict[str, Any] | None = None
) -> tuple[Config, RunDir]:
    """Load the configuration and find the run directory.

    Raises:
        UsageError: there is no configuration to be found, or it is wrong.
    """
    if config_path is None:
        if run_dir is None:
            raise UsageError(
                "neither a configuration nor a run directory is named",
                hint="give --config FILE (`rlhf init` writes one to start from) or --run-dir DIR of an existing run",
            )
        recorded = RunDir(run_dir).config_path
        if recorded.is_file():
            return checked(load_config(recorded, sets, flags, recorded=recorded, for_training=True)), RunDir(run_dir)
        if "model.name_or_path" in (flags or {}):  # Enough to go by: the rest has defaults.
            return checked(load_config(None, sets, flags, for_training=True)), RunDir(run_dir)
        raise _no_run(run_dir)
    config = checked(load_config(config_path, sets, flags, for_training=True))
    if run_dir is None:
        run_dir = _own_run(config_path) or Path(config.run.dir or Path("runs") / config_path.stem)
    recorded = RunDir(run_dir).config_path
    if recorded.is_file():
        config = checked(load_config(config_path, sets, flags, recorded=recorded, for_training=True))
    return config, RunDir(run_dir)


def find_run(run_dir: Path | None) -> Path:
    """The run directory that is meant where none is named: the only one below ``runs/``.

    Raises:
        UsageError: there is none, or more than one; or the one that is named is not there.
    """
    if run_dir is not None:
        if not run_dir.is_dir():
            raise _no_run(run_dir)
        return run_dir
    runs = _runs()
    if len(runs) == 1:
        return runs[0]
    raise UsageError(
        f"{len(runs)} runs lie below runs/: {', '.join(map(str, runs))}" if runs else "there is no run below runs/",
        hint="name one with --run-dir",
    )


def _runs() -> list[Path]:
    return sorted(path.parent for path in Path("runs").glob("*/config.yaml"))


def _no_run(run_dir: Path) -> UsageError:
    others = ", ".join(map(str, _runs()))
    return UsageError(
        "this directory holds no run yet" if run_dir.is_dir() else "there is no such run directory",
        where=str(run_dir),
        hint=(f"there are: {others}; " if others else "")
        + "`rlhf all --config FILE` begins a run, `rlhf init` writes such a file",
    )


def _own_run(config_path: Path) -> Path | None:
    """The run whose recorded configuration this is: a moved or copied run is meant itself, not its origin."""
    directory = config_path.parent
    return directory if config_path.name == "config.yaml" and (directory / "events.jsonl").exists() else None
