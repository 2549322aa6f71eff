"""`rlhf data check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipelines.config import Config, load_config
from pipelines.config.data_section import Source
from pipelines.errors import UsageError
from rlhf_cli import options, settings
from rlhf_cli.console import ConsoleReporter, harmless, print_json, styled

Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE...]",
        help="Data files: whatever `path` of a source may be. Left out: all sources of --config, each read as the run "
        "would.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML file with the limits, and with the sources to check."),
]
As = Annotated[
    Literal["sft", "reward", "pointwise", "ppo"] | None,
    typer.Option(
        "--as",
        help="Read them as this stage would; pointwise: as a reward model that is a classifier. Default: as the "
        "richest rows that they hold.",
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="ID", help="Count tokens with this model's tokenizer and template.")
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=8, metavar="N", help="Limit of every stage, in tokens.")
]
Examples = Annotated[int, typer.Option("--examples", min=0, metavar="N", help="Rows of each file to show.")]


def check(
    files: Files = None,
    as_: As = None,
    model: Model = None,
    config: ConfigFile = None,
    name: options.Name = None,
    format_: options.Format = None,
    columns: options.Columns = None,
    tags: options.Tags = None,
    split: options.Split = "train",
    revision: options.Revision = None,
    limit: options.Limit = None,
    max_length: MaxLength = None,
    examples: Examples = 3,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Look at data files before training: what they hold, what is wrong, what repeats, what is too long.

    Nothing is written. --name, --format, --columns, --tags, --split, --revision and --limit count for every FILE. Exit
    code 3 where there are bad rows or a file cannot be read; all else is still printed.
    """
    flags = settings.named_flags("all", model=model)
    if max_length is not None:
        flags |= dict.fromkeys(("sft.max_length", "reward.max_length", "ppo.max_prompt_length"), max_length)
    resolved = settings.checked(load_config(config, flags=flags))
    given: dict[str, Any] = {"name": name, "format": format_, "columns": columns, "tags": tags, "limit": limit}
    given |= {"split": split, "revision": revision}
    if files:
        sources = [settings.source_of(path, **given) for path in files]
        stages: list[str] | None = None
    else:
        set_ = [key for key, value in given.items() if value and (key, value) != ("split", "train")]
        if set_:
            raise UsageError(f"--{set_[0]} goes with FILE only", hint="a source of a configuration says it itself")
        sources, stages = _configured(resolved, config)
    from pipelines.check.check import check as check_files  # Numpy takes a while: not before it is needed.

    report = check_files(
        sources,
        resolved,
        ConsoleReporter(quiet=quiet),
        stage=as_ or stages,
        with_model=model is not None,
        examples=examples,
    )
    problem = report.problem()
    if json:
        print_json({**report.as_dict(), "problem": problem.as_dict() if problem else None})
        if problem:
            raise typer.Exit(problem.exit_code)
        return
    from pipelines.check.check_text import lines

    for line in lines(report, _mark, harmless):
        print(line)
    if problem:
        raise problem


def _configured(config: Config, path: Path | None) -> tuple[list[Source], list[str]]:
    """The sources that the configuration names, and the stage that reads each."""
    data = config.data
    found = [("sft", one) for one in data.demonstrations]
    found += [("reward", one) for one in data.comparisons] + [("pointwise", one) for one in data.judgements]
    found += [("ppo", one) for one in data.prompts]
    if not found:
        raise UsageError(
            "no data file is named" if path is None else "the configuration names no data files",
            where=str(path) if path else None,
            hint="give FILE, or --config with data.demonstrations, data.comparisons, data.judgements or data.prompts",
        )
    return [source for _, source in found], [stage for stage, _ in found]


def _mark(text: str) -> str:
    """Text that the model learns from: green on a terminal, in double brackets elsewhere."""
    shown = styled(text, "32", sys.stdout)
    return shown if shown != text else f"[[{text}]]"


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(help="Look at data.", no_args_is_help=True)
    group.command(
        epilog=options.examples(
            "rlhf data check pairs.jsonl --model org/model",
            "rlhf data check faq.csv --columns prompt=question --as ppo",
            "rlhf data check --config my.yaml",
        )
    )(check)
    app.add_typer(
        group,
        name="data",
        epilog=options.examples(
            "rlhf data check pairs.jsonl",
            "rlhf data check pairs.jsonl --model org/model",
            "rlhf data check a.jsonl b.csv --as sft --json",
        ),
    )
