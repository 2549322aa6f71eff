"""`rlhf pairs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from pipelines.config import load_config
from pipelines.config.feedback_section import PairsSection
from pipelines.data.faults import fault_of
from pipelines.errors import DataError, UsageError
from pipelines.report.safe_text import visible
from pipelines.run.directory import RunDir
from rlhf_cli import options
from rlhf_cli.commands.agreement import LeaveOut, RunWithLabels, Source, check_annotators, read, source_of
from rlhf_cli.console import print_json
from rlhf_cli.output_file import make_room

if TYPE_CHECKING:
    from pipelines.labels.pairs.label_rows import PairsResult

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="File for the rows: .jsonl, or .json for one array.")]
Aggregation = Annotated[
    dict[str, Any],
    options.SectionKeys(
        PairsSection,
        ("question", "method", "ties", "min_annotators", "min_agreement", "min_margin", "weights"),
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="F",
        help="Format of the rows: rlhf, trl, trl-implicit, llama-factory-alpaca, llama-factory-sharegpt, hh, or kto "
        "for 0/1 labels.",
    ),
]


def pairs(
    out: Out,
    source: Source = None,
    run_dir: RunWithLabels = None,
    *,
    aggregation: Aggregation,
    leave_out: LeaveOut = None,
    format_: Format = "rlhf",
    force: options.Replace = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn labels into training rows.

    Rankings become comparisons, 0/1 labels and scales become judgements, written answers become demonstrations.
    Defaults come from `feedback.pairs` of the run in --run-dir. Every pair that is left out is counted by its reason.
    """
    from pipelines.labels.exchange.label_files import counted
    from pipelines.labels.exchange.rows_out import OUT_FORMATS

    if format_ not in OUT_FORMATS:
        raise UsageError(f"there is no format `{format_}`", hint=f"the formats are {', '.join(OUT_FORMATS)}")
    path, run = source_of(source, run_dir)
    make_room(out, [path], replace=force)
    section = _section(run, aggregation | ({"leave_out": leave_out} if leave_out else {}))
    labels = read(path)
    check_annotators(labels, leave_out or [])
    from pipelines.labels.pairs.label_rows import build

    result = build(labels, section)
    if not result.rows:
        left_out = ", ".join(f"{count} {reason}" for reason, count in result.dropped.items())
        raise DataError(f"no row is left: {left_out or 'the file holds no task'}", where=str(path))
    lost = OUT_FORMATS[format_].write(out, result.rows)
    if json:
        settings = section.model_dump(mode="json")
        told = {"out": str(out), "format": format_, "settings": settings, "notes": labels.notes}
        print_json({**told, **result.counts, "lost": lost})
    if not quiet:
        for line in [*_summary(result, out, format_, lost), *counted(f"of note in {path}", labels.notes)]:
            print(visible(line), file=sys.stderr)


def _section(run: RunDir | None, given: Mapping[str, Any]) -> PairsSection:
    """`feedback.pairs` of the run, with what the options say."""
    base = PairsSection()
    if run is not None and run.config_path.is_file():
        base = load_config(run.config_path).feedback.pairs
    try:
        return PairsSection.model_validate(base.model_dump() | dict(given))
    except ValidationError as error:
        raise UsageError(f"the options of pairs: {fault_of(error)}") from error


def _summary(result: PairsResult, out: Path, format_: str, lost: Mapping[str, int]) -> Iterator[str]:
    one = {"binary": "answers", "scale": "answers", "demonstration": "texts"}.get(result.question.kind, "pairs")
    yield f"{result.made} of {result.possible} {one} kept: {len(result.rows)} rows in {out}"
    for reason, count in result.dropped.items():
        yield f"  left out: {count} {reason}"
    for name, number in result.left_out.items():
        yield f"  left out: {number} labels of {name}"
    if result.weights:
        yield "  weights: " + ", ".join(f"{name} {weight:.1f}" for name, weight in result.weights.items())
    if result.simulated_labels:
        yield f"  simulated: no human gave {result.simulated_labels} of the labels"
    for what, count in lost.items():
        yield f"  format {format_} has no place for: {what} ({count})"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=options.examples(
            "rlhf pairs --run-dir runs/my --out pairs.jsonl",
            "rlhf pairs labels.sqlite --out pairs.jsonl --method majority --min-agreement 0.6",
            "rlhf pairs export.json --out pairs.json --format trl --ties half",
        )
    )(options.with_groups(pairs))
