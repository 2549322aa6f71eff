"""`rlhf compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import UsageError
from rlhf_cli import options, settings
from rlhf_cli.console import print_json

Runs = Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories; the first is the reference.")]


def compare(runs: Runs, json: options.Json = False) -> None:
    """Compare runs with the first of them.

    Prints the settings that differ, the stages that left other files, the results side by side, and the differences
    from the first run with 95 % intervals, paired by prompt. Scores of different reward models are not compared.
    """
    if len(runs) < 2:
        raise UsageError("there is one run, and it takes two to compare", hint="name two or more: rlhf compare RUN RUN")
    from pipelines.overview.comparison_text import plain
    from pipelines.overview.run_comparison import compare as compared
    from pipelines.overview.run_facts import read_run

    comparison = compared(
        [read_run(*settings.resolve(None, settings.find_run(run))) for run in runs], [str(run) for run in runs]
    )
    if json:
        print_json(comparison.as_dict())
    else:
        sys.stdout.write(plain(comparison))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=options.examples("rlhf compare runs/kl-0.05 runs/kl-0.1", "rlhf compare runs/before runs/after --json")
    )(compare)
