"""`rlhf report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import UsageError
from rlhf_cli import options, settings
from rlhf_cli.console import print_json
from rlhf_cli.output_file import make_room

Run = Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run directory. Default: the only run below runs/.")]
RunOption = Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="The same as RUN.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.html", help="File to write. Default: report.html in the run.")
]


def report(
    run: Run = None,
    run_dir: RunOption = None,
    out: Out = None,
    force: options.Replace = False,
    json: options.Json = False,
) -> None:
    """Write a run's report: one HTML file that opens without network or scripts.

    It has the verdict, the results, every stage with its time, memory and hashes, warnings and settings. An
    unfinished run is reported as far as it is. `rlhf all` writes the same file at its end. A report.html in the run
    directory is replaced; another file only with --force.
    """
    if run is not None and run_dir is not None:
        raise UsageError("RUN and --run-dir do not go together", hint="name one of them")
    config, directory = settings.resolve(None, settings.find_run(run if run is not None else run_dir))
    from pipelines.overview.report_page import write_report

    target = directory.report_path if out is None else out
    is_usual = target.absolute() == directory.report_path.absolute()
    make_room(target, replace=force or is_usual)
    path = write_report(config, directory, target)
    if json:
        print_json({"run_dir": str(directory.root), "report": str(path), "bytes": path.stat().st_size})
    else:
        print(path)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=options.examples("rlhf report runs/quickstart", "rlhf report runs/my --out report-of-monday.html")
    )(report)
