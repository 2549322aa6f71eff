"""`rlhf data check`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from pipelines.config import load_config
from pipelines.config.data import Source
from pipelines.errors import UsageError
from rlhf_cli import options, settings
from rlhf_cli.console import ConsoleReporter, harmless, print_json, styled

Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Data files: whatever `path` of a source may be.")]
As = Annotated[
    Literal["sft", "reward", "ppo"] | None,
    typer.Option("--as", help="Read them as this stage would. Default: as the richest rows that they hold."),
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="ID", help="Count tokens with this model's tokenizer and template.")
]
Name = Annotated[str | None, typer.Option("--name", metavar="N", help="As `name` of a source.")]
Format = Annotated[str | None, typer.Option("--format", metavar="F", help="Name of the format. Default: detected.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", metavar="KEY=COL", help="The file calls KEY `COL`, e.g. prompt=question. Repeatable."),
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=8, metavar="N", help="Limit of every stage, in tokens.")
]
Examples = Annotated[int, typer.Option("--examples", min=0, metavar="N", help="Rows of each file to show.")]


def check(
    files: Files,
    as_: As = None,
    model: Model = None,
    config: options.Config = None,
    name: Name = None,
    format_: Format = None,
    columns: Columns = None,
    max_length: MaxLength = None,
    examples: Examples = 3,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Look at data files before training: what they hold, what is wrong, what repeats, what is too long.

    Nothing is written. Exit code 3 where there are bad rows or a file cannot be read; all else is still printed.
    """
    flags = settings.named_flags("all", model=model)
    if max_length is not None:
        flags |= dict.fromkeys(("sft.max_length", "reward.max_length", "ppo.max_prompt_length"), max_length)
    resolved = load_config(config, flags=flags)
    mapped = _column_map(columns or [])
    sources = [Source(path=path, name=name, format=format_, columns=mapped) for path in files]
    from pipelines.data.check.run import check as check_files  # Numpy takes a while: not before it is needed.

    report = check_files(
        sources,
        resolved,
        ConsoleReporter(quiet=quiet),
        stage=as_,
        with_model=model is not None,
        examples=examples,
    )
    problem = report.problem()
    if json:
        print_json({**report.as_dict(), "problem": problem.as_dict() if problem else None})
        if problem:
            raise typer.Exit(problem.exit_code)
        return
    from pipelines.data.check.text import lines

    for line in lines(report, _mark, harmless):
        print(line)
    if problem:
        raise problem


def _mark(text: str) -> str:
    """Text that the model learns from: green on a terminal, in double brackets elsewhere."""
    shown = styled(text, "32", sys.stdout)
    return shown if shown != text else f"[[{text}]]"


def _column_map(entries: list[str]) -> dict[str, str]:
    found = {}
    for entry in entries:
        key, separator, column = entry.partition("=")
        if not (key and separator and column):
            raise UsageError(f"--columns wants KEY=COLUMN, not `{entry}`", where="--columns")
        found[key] = column
    return found


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(help="Look at data.", no_args_is_help=True)
    group.command(
        epilog=options.examples(
            "rlhf data check pairs.jsonl --model org/model",
            "rlhf data check faq.csv --columns prompt=question --as ppo",
            "rlhf data check train.jsonl test.jsonl --config my.yaml --json",
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
