"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from pipelines.config import Config as ResolvedConfig
from pipelines.config.data_section import OnBadRow, Source
from pipelines.config.section import Section
from pipelines.run.directory import RunDir
from rlhf_cli import settings

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML configuration. Default: that of the run directory."),
]
Dir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", "--output-dir", metavar="DIR", help="Run directory. Default: runs/<name of the configuration>."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Value that overrides the configuration, e.g. ppo.kl_coef=0.1. Repeatable."
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", "--model-name-or-path", metavar="NAME", help="Base model: hub id or directory."),
]
RewardModel = Annotated[
    str | None,
    typer.Option(
        "--reward-model",
        metavar="NAME",
        help="Outside reward: hub id or directory of a model, module:function, or http(s) address. The run then trains "
        "no reward model.",
    ),
]
Dataset = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="FILE", help="Data file, directory or hub data set for the stage."),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="N", help="Configuration of a hub data set, or entry of a dataset_info.json."),
]
Format = Annotated[str | None, typer.Option("--format", metavar="F", help="Row format. Default: detected.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="KEY=COL",
        help="Column COL of the file that holds KEY, e.g. prompt=question; KEY= ignores a column. Repeatable.",
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tags", metavar="TAG=TEXT", help="Name of a key or speaker of dialogues, e.g. role_tag=speaker. Repeatable."
    ),
]
Verdicts = Annotated[
    list[str] | None,
    typer.Option(
        "--verdicts",
        metavar="VALUE=NUMBER",
        help="Number of the answer, counted from 1, that a verdict stands for; 0: a tie. Repeatable.",
    ),
]
Split = Annotated[str, typer.Option("--split", metavar="S", help="Split of a hub data set or directory.")]
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="R", help="Commit, branch or tag of a hub data set.")
]
OnBad = Annotated[
    OnBadRow | None,
    typer.Option("--on-bad-row", help="Whether bad rows end the command or are left out. Default: data.on_bad_row."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Maximum number of rows, from the start.")
]
Questions = Annotated[
    list[str] | None,
    typer.Option(
        "--question",
        metavar="NAME:KIND[:TEXT]",
        help="Question to the annotators; KIND is ranking, pairwise, binary, scale (scale7: 1 to 7) or demonstration. "
        "Repeatable.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Run the stage again even if it is complete or has other settings.")
]
UseBest = Annotated[
    bool,
    typer.Option(
        "--use-best",
        help="Train again, as far as the update before the judged score turned down. Needs `rlhf eval` of the run.",
    ),
]
ForceStages = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="STAGE", help="Stage to run again, with all that follow from it. Repeatable."),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="STAGE", help="First stage: data, sft, sample, labels, pairs, reward, ppo or eval."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Last stage.")]
Round = Annotated[int, typer.Option("--round", min=1, metavar="N", help="Number of the round of feedback.")]
Rounds = Annotated[
    int | None,
    typer.Option(
        "--rounds",
        min=1,
        metavar="N",
        help="Number of rounds; each samples answers, collects labels, retrains the reward model and continues PPO.",
    ),
]
Replace = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run and why; read no data and write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, also for an error.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show log messages, and the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show only warnings, errors and results.")]


def examples(*lines: str) -> str:
    """Return an epilog with one example a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@dataclass(frozen=True)
class SourceOptions:
    """Options of the commands that read rows from a file, a directory or a hub data set."""

    name: Name = None
    format: Format = None
    columns: Columns = None
    tags: Tags = None
    verdicts: Verdicts = None
    split: Split = "train"
    revision: Revision = None
    limit: Limit = None

    def source(self, path: str) -> Source:
        """Return the source at `path`, read by these options.

        Raises:
            UsageError: an entry of --columns, --tags or --verdicts has another form, or there is no such column or tag.
        """
        return settings.source_of(path, **vars(self))

    def changed(self) -> list[str]:
        """Return the names of the options that differ from their defaults."""
        return [f"--{field.name}" for field in fields(self) if getattr(self, field.name) != field.default]


DEFAULT_ROWS = SourceOptions()


@dataclass(frozen=True)
class RunOptions:
    """Options that name a run and its settings."""

    config: Config = None
    run_dir: Dir = None
    sets: Sets = None
    model: Model = None
    reward_model: RewardModel = None
    dataset: Dataset = None

    def flags(self, command: str) -> dict[str, Any]:
        """Return the values that the named options set for a command, by dotted key."""
        return settings.named_flags(command, model=self.model, reward_model=self.reward_model, dataset=self.dataset)

    def resolve(self, command: str, **further: Any) -> tuple[ResolvedConfig, RunDir]:
        """Return the configuration of the run and its directory; `further` are more values by dotted key.

        Raises:
            UsageError: see `settings.resolve`.
        """
        return settings.resolve(self.config, self.run_dir, self.sets or (), self.flags(command) | further)


DEFAULT_RUN = RunOptions()


_METAVARS = {int: "N", float: "X", str: "NAME", Path: "FILE"}


@dataclass(frozen=True)
class SectionKeys:
    """Keys of a section of the configuration as options of a command, described as there.

    A parameter of the type ``Annotated[dict[str, Any], SectionKeys(...)]`` holds the values of those that are given.
    """

    section: type[Section]
    names: tuple[str, ...]

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Yield an option for each key, None where it is not given."""
        for name in self.names:
            field = self.section.model_fields[name]
            about = str(field.description).replace("; null: ", ". Default: ")
            about += f" Default: {field.default}." if field.default is not None else ""
            kind: Any = field.annotation
            held = {kind, *get_args(kind)}
            metavar = next((text for part, text in _METAVARS.items() if part in held), None)
            option = typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=about)
            kind = Annotated[kind | None, option]
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every parameter that is a group of options, such as `rows: SourceOptions`."""
    groups: dict[str, type[Any]] = {}
    keys: dict[str, SectionKeys] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if marks := [mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, SectionKeys)]:
            keys[parameter.name] = marks[0]
            parameters += marks[0].parameters()
            continue
        if not is_dataclass(kind) or not isinstance(kind, type):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name], hints = kind, get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
            )
            for field in fields(kind)
        ]

    def grouped(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        for name, some in keys.items():
            told = {key: values.pop(key) for key in some.names}
            values[name] = {key: value for key, value in told.items() if value is not None}
        command(**values)

    grouped.__name__, grouped.__doc__ = command.__name__, command.__doc__
    grouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    grouped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return grouped
