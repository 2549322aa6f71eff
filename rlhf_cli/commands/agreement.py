"""`rlhf agreement`."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.errors import UsageError
from pipelines.labels.exchange.label_files import labels_file
from pipelines.run.directory import RunDir
from pipelines.run.disk import is_sqlite, write_atomic
from rlhf_cli import options, settings
from rlhf_cli.console import print_json
from rlhf_cli.output_file import make_room

if TYPE_CHECKING:
    from pipelines.labels.agreement.agreement_text import Block
    from pipelines.labels.label_types import LabelSet

Source = Annotated[
    Path | None,
    typer.Argument(
        metavar="[SOURCE]",
        help="Label store, tasks file, export of Label Studio or Argilla, or rows with answers and verdicts. Default: "
        "the labels of --run-dir.",
    ),
]
RunWithLabels = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="DIR", help="Run with the labels. Default: the only run below runs/."),
]
Question = Annotated[
    str | None, typer.Option("--question", metavar="NAME", help="Question to report on. Default: all questions.")
]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option("--leave-out", metavar="NAME", help="Annotator whose labels are ignored. Repeatable."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE.md", help="Markdown file to write the report to.")]
Bootstrap = Annotated[
    int, typer.Option("--bootstrap", min=0, metavar="N", help="Number of bootstrap resamples; 0: no intervals.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the bootstrap.")]


def agreement(
    source: Source = None,
    run_dir: RunWithLabels = None,
    question: Question = None,
    leave_out: LeaveOut = None,
    out: Out = None,
    bootstrap: Bootstrap = 1000,
    seed: Seed = 0,
    force: options.Replace = False,
    json: options.Json = False,
) -> None:
    """Report how well annotators agree, and how each of them works.

    Prints Krippendorff's alpha and pairwise agreement with intervals; for each annotator, agreement with the others,
    accuracy on control tasks, bias for place and length, speed and careless patterns; the tasks with the most
    disagreement, and flagged tasks.
    """
    path, _ = source_of(source, run_dir)
    if out is not None:
        make_room(out, [path], replace=force)
    labels = read(path)
    check_annotators(labels, leave_out or [])
    labels = labels.without(leave_out or [])
    names = [asked.name for asked in labels.questions]
    if question is not None and question not in names:
        raise UsageError(f"no question is named `{question}`", hint=f"there are: {', '.join(names) or 'none at all'}")
    from pipelines.labels.agreement.agreement_text import blocks, markdown, plain
    from pipelines.labels.agreement.measures import agreement as agreement_on

    chosen = names if question is None else [question]
    reports = [agreement_on(labels, name, seed=seed, bootstrap=bootstrap) for name in chosen]
    if out is not None:
        write_atomic(out, markdown(reports))
    if json:
        data = {"source": str(path), "simulated": labels.simulated, "questions": [one.as_dict() for one in reports]}
        print_json(data)
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        for report in reports:
            for block in blocks(report):
                _show(block)
    else:
        sys.stdout.write(plain(reports))


def source_of(source: Path | None, run_dir: Path | None) -> tuple[Path, RunDir | None]:
    """The file of labels that is meant, and the run that it is of; None: it was named by itself.

    Raises:
        UsageError: both are named, or there is no run to be found.
        ArtifactError: the run has no labels.
    """
    if source is not None:
        if run_dir is not None:
            raise UsageError("SOURCE and --run-dir do not go together", hint="name one of them")
        return source, None
    run = RunDir(settings.find_run(run_dir))
    return labels_file(run), run


def read(path: Path) -> LabelSet:
    """The labels of a file of any kind.

    Raises:
        DataError: it cannot be read, or asks nothing.
    """
    from pipelines.errors import DataError
    from pipelines.labels.exchange.label_files import read_labels

    labels = read_labels(path)
    if not labels.labels:
        beside = path.with_name(f"{path.name.split('.')[0]}.labels.sqlite")
        raise DataError(
            "nobody has judged the tasks of this file yet" if labels.tasks else "the file holds no task",
            where=str(path),
            hint=f"the labels are in {beside}"
            if beside.is_file() and beside != path
            else f"`rlhf label {'--store ' * is_sqlite(path)}{path}` opens the page where people do",
        )
    return labels


def check_annotators(labels: LabelSet, names: Collection[str]) -> None:
    """Refuse names that nobody has, as their labels could not be left out.

    Raises:
        UsageError: there is no such annotator.
    """
    known = sorted({label.annotator for label in labels.labels})
    for name in names:
        if name not in known:
            raise UsageError(f"no annotator is named `{name}`", hint=f"there are: {', '.join(known)}")


def _show(whole: Block) -> None:
    """A block on a terminal: a table of figures where it has columns, and notes that wrap."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pipelines.labels.agreement.agreement_text import aligned, fitted

    console = Console(file=sys.stdout, markup=False, highlight=False)
    block = fitted(whole, console.width)
    console.print(Text(block.title, style="bold"))
    if block.header:
        narrow = block is not whole
        table = Table(box=None, padding=(0, 1 if narrow else 2, 0, 0), pad_edge=False)
        for number, name in enumerate(block.header):
            justify: Any = "right" if number else "left"
            table.add_column(Text(name), justify=justify)
        for row in block.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    else:
        for line in aligned(block):
            console.print(Text(line), soft_wrap=True)
    for note in block.notes:
        console.print(Text(note, style="dim" if block.header else ""))
    console.print()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=options.examples(
            "rlhf agreement --run-dir runs/my",
            "rlhf agreement labels.sqlite --question overall --out agreement.md",
            "rlhf agreement export.json --leave-out bo --json",
        )
    )(agreement)
