"""`rlhf data check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.config import Config, load_config
from pipelines.config.data_section import Source
from pipelines.errors import UsageError
from rlhf_cli import options, settings
from rlhf_cli.console import ConsoleReporter, print_json, styled

Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE...]",
        help="Data files, directories or hub data sets. Default: all sources of --config, each read as the run would.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="YAML configuration with the length limits and the sources to check."
    ),
]
As = Annotated[
    Literal["sft", "reward", "pointwise", "ppo"] | None,
    typer.Option(
        "--as",
        help="Stage whose reading is checked; pointwise: a reward model that is a classifier. Default: the richest "
        "kind of row that the file holds.",
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="ID", help="Model whose tokenizer and chat template count the tokens.")
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=8, metavar="N", help="Length limit of every stage, in tokens.")
]
Examples = Annotated[int, typer.Option("--examples", min=0, metavar="N", help="Number of rows of each file to show.")]


def check(
    files: Files = None,
    as_: As = None,
    model: Model = None,
    config: ConfigFile = None,
    rows: options.SourceOptions = options.DEFAULT_ROWS,
    max_length: MaxLength = None,
    examples: Examples = 3,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check data files before training.

    The report shows formats, bad rows, duplicates and lengths.
    Nothing is written. --name, --format, --columns, --tags, --verdicts, --split, --revision and --limit apply to every
    FILE. Exit code 3 means that there are bad rows or a file cannot be read; the rest of the report is still printed.
    """
    flags = settings.named_flags("all", model=model)
    if max_length is not None:
        flags |= dict.fromkeys(("sft.max_length", "reward.max_length", "ppo.max_prompt_length"), max_length)
    resolved = settings.checked(load_config(config, flags=flags))
    if files:
        sources = [rows.source(path) for path in files]
        stages: list[str] | None = None
    else:
        for option in rows.changed():
            raise UsageError(f"{option} goes with FILE only", hint="set it in the source of the configuration")
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

    for line in lines(report, _mark):
        print(line)
    if problem:
        raise problem


def _configured(config: Config, path: Path | None) -> tuple[list[Source], list[str]]:
    """The sources that the configuration names, and the stage that reads each."""
    data = config.data
    entries = [("sft", one) for one in data.demonstrations]
    entries += [("reward", one) for one in data.comparisons] + [("pointwise", one) for one in data.judgements]
    entries += [("ppo", one) for one in data.prompts]
    if not entries:
        raise UsageError(
            "no data file is named" if path is None else "the configuration names no data files",
            where=str(path) if path else None,
            hint="give FILE, or --config with data.demonstrations, data.comparisons, data.judgements or data.prompts",
        )
    return [source for _, source in entries], [stage for stage, _ in entries]


def _mark(text: str) -> str:
    """Text that the model learns from: green on a terminal, in double brackets elsewhere."""
    shown = styled(text, "32", sys.stdout)
    return shown if shown != text else f"[[{text}]]"


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(help="Check data files.", no_args_is_help=True)
    group.command(
        epilog=options.examples(
            "rlhf data check pairs.jsonl --model org/model",
            "rlhf data check faq.csv --columns prompt=question --as ppo",
            "rlhf data check --config my.yaml",
        )
    )(options.with_groups(check))
    app.add_typer(
        group,
        name="data",
        epilog=options.examples(
            "rlhf data check pairs.jsonl",
            "rlhf data check pairs.jsonl --model org/model",
            "rlhf data check a.jsonl b.csv --as sft --json",
        ),
    )
