"""`rlhf labels`: contents of a file of labels, and conversion from and to other programs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.errors import UsageError
from pipelines.report.safe_text import visible
from pipelines.run.disk import write_atomic
from rlhf_cli import options, settings
from rlhf_cli.console import print_json
from rlhf_cli.output_file import make_room

if TYPE_CHECKING:
    from pipelines.labels.label_types import LabelSet

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Label store, tasks file, export of Label Studio (JSON, JSON_MIN), records of Argilla, or rows with "
        "answers and verdicts.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="KEY=FIELD",
        help="Field of the file that holds KEY: prompt, system, answers (a list), or answer_1, answer_2 ...; of rows "
        "with verdicts also verdict, verdicts (a list) and strength. Repeatable.",
    ),
]
ValueOf = Annotated[
    list[str] | None,
    typer.Option(
        "--value",
        metavar="TEXT=N",
        help="Number N for the choice TEXT, e.g. toxic=1; of a verdict, the number of the answer. Repeatable.",
    ),
]
TiesFromEmpty = Annotated[
    bool,
    typer.Option("--ties-from-empty", help="Count a pairwise annotation without a result as a tie, not as a skip."),
]
Tasks = Annotated[
    Path | None,
    typer.Option(
        "--tasks", metavar="FILE", help="Tasks file that was sent out, with its models, controls and questions."
    ),
]
Configuration = Annotated[
    Path | None,
    typer.Option(
        "--label-config",
        metavar="FILE",
        help="Label Studio's labeling configuration (XML) of the export, with its controls and the order of buckets.",
    ),
]
Buckets = Annotated[
    str | None,
    typer.Option(
        "--buckets", metavar="BEST,...,WORST", help="Buckets of a Label Studio Ranker in order, e.g. good,fair,bad."
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.")]
To = Annotated[Literal["tasks", "label-studio", "argilla"], typer.Option("--to", help="Format to write.")]
ConfigTo = Annotated[Literal["label-studio", "argilla"], typer.Option("--to", help="Program to configure.")]
Pseudonyms = Annotated[
    bool, typer.Option("--pseudonyms", help="Replace the annotators' names by annotator-01, annotator-02 ...")
]
WithLabels = Annotated[
    bool, typer.Option("--with-labels", help="Write labels as annotations of Label Studio's members, by email.")
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Seed of the order in which the other program shows answers.")
]
Answers = Annotated[
    int | None, typer.Option("--answers", min=1, max=26, metavar="N", help="Number of answers of a task.")
]


@dataclass(frozen=True)
class LabelOptions:
    """Options for reading a file of labels."""

    columns: Columns = None
    value: ValueOf = None
    ties_from_empty: TiesFromEmpty = False
    tasks: Tasks = None
    label_config: Configuration = None
    buckets: Buckets = None

    def read(self, file: Path) -> LabelSet:
        """Read the labels of a file."""
        from pipelines.labels.exchange.gather import ReadingOptions
        from pipelines.labels.exchange.label_config import read_config
        from pipelines.labels.exchange.label_files import read_labels

        reading = ReadingOptions(
            _columns(self.columns),
            self.ties_from_empty,
            _numbers(self.value),
            read_labels(self.tasks) if self.tasks is not None else None,
            read_config(self.label_config) if self.label_config is not None else None,
            _buckets(self.buckets),
        )
        return read_labels(file, reading)


_DEFAULTS = LabelOptions()


def show(file: File, reading: LabelOptions = _DEFAULTS, json: options.Json = False) -> None:
    """Show what a file of labels holds.

    The summary has the questions, tasks, labels and annotators, and counts of what was left out.
    """
    from pipelines.labels.exchange import label_files as summary

    told = summary.summary(reading.read(file))
    if json:
        print_json({"file": str(file), **told})
        return
    print(file)
    for line in summary.lines(told):
        print(visible(line))


def convert(
    file: File,
    to: To,
    out: Out,
    reading: LabelOptions = _DEFAULTS,
    pseudonyms: Pseudonyms = False,
    with_labels: WithLabels = False,
    seed: Seed = 0,
    force: options.Replace = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert labels from other programs, or tasks for them.

    With --to tasks, labels of another program become a tasks file; otherwise tasks are written for another program.
    Tasks that were sent out are recognized when their labels come back, with their order of answers. Whatever the
    format cannot hold, or annotators must not see, is counted.
    """
    if with_labels and to != "label-studio":
        raise UsageError("--with-labels goes with --to label-studio only")
    make_room(out, [path for path in (file, reading.tasks, reading.label_config) if path is not None], replace=force)
    label_set = reading.read(file)
    if pseudonyms:
        from pipelines.labels.label_types import with_pseudonyms

        label_set = with_pseudonyms(label_set)
    lost = _write(label_set, to, out, seed, with_labels)
    skipped = sum(label.skipped for label in label_set.labels)
    counts = {"tasks": len(label_set.tasks), "labels": len(label_set.labels) - skipped, "skipped": skipped}
    told = {**counts, "notes": label_set.notes, "left_out": lost}
    if json:
        print_json({"file": str(file), "to": to, "out": str(out), **told})
        return
    from pipelines.labels.exchange.label_files import counted

    held = counts if to == "tasks" else {"tasks": len(label_set.tasks)}
    print(f"{out}: {', '.join(f'{count} {name}' for name, count in held.items())}")
    if not quiet:
        for line in counted(f"of note in {file}", label_set.notes) + counted("not written", lost):
            print(visible(line), file=sys.stderr)


def config(
    to: ConfigTo, question: options.Questions = None, answers: Answers = None, json: options.Json = False
) -> None:
    """Print the labeling configuration for another program.

    It is XML for Label Studio, or Python code for Argilla.
    """
    from pipelines.labels.exchange import argilla, label_config
    from pipelines.labels.questions import parse_questions

    asked = parse_questions(question or ["overall:ranking"])
    pairwise = any(one.kind == "pairwise" for one in asked)
    if pairwise and answers not in (None, 2):
        raise UsageError(f"a pairwise question is about 2 answers, not {answers}", where="--answers")
    writing = any(one.kind == "demonstration" for one in asked)
    count = answers or (2 if pairwise else 0 if writing else 4)
    text = (label_config.config if to == "label-studio" else argilla.settings)(asked, count)
    if json:
        print_json({"to": to, "config": text})
    else:
        print(text, end="")


def _buckets(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--buckets wants distinct names, separated by commas, not `{text}`", where="--buckets")
    return names


def _columns(entries: list[str] | None) -> dict[str, str]:
    from pipelines.labels.exchange.label_files import COLUMNS as VERDICT_COLUMNS

    columns = settings.pairs("--columns", "KEY=FIELD", entries or ())
    for key in columns:
        number = key.removeprefix("answer_")
        if key not in ("prompt", "system", "answer", "answers", *VERDICT_COLUMNS) and not number.isdecimal():
            raise UsageError(
                f"there is no `{key}` to be named",
                where="--columns",
                hint=f"prompt, system, answers, answer_1, answer_2; of rows with verdicts {', '.join(VERDICT_COLUMNS)}",
            )
    return columns


def _numbers(entries: list[str] | None) -> dict[str, int]:
    numbers = {}
    for text, number in settings.pairs("--value", "TEXT=NUMBER", entries or ()).items():
        if not number.isdecimal():
            raise UsageError(f"the value of `{text}` must be a whole number, not `{number}`", where="--value")
        numbers[text] = int(number)
    return numbers


def _write(label_set: LabelSet, to: str, out: Path, seed: int, with_labels: bool) -> dict[str, int]:
    """Write the file; what it does not hold, with how often."""
    from pipelines.labels.exchange import argilla, label_studio
    from pipelines.labels.tasks_file import write_tasks

    if to == "tasks":
        write_tasks(out, label_set)
        return {}
    if to == "label-studio":
        text, lost = label_studio.tasks(label_set, seed, with_labels=with_labels)
    else:
        text, lost = argilla.records(label_set, seed)
    write_atomic(out, text)
    return lost


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Show labels, and exchange them with other programs.", no_args_is_help=True)
    commands: list[tuple[Any, tuple[str, str, str]]] = [
        (
            show,
            (
                "rlhf labels show runs/my/labels.sqlite",
                "rlhf labels show export.json --ties-from-empty",
                "rlhf labels show export.json --value toxic=1 --value fine=0 --json",
            ),
        ),
        (
            convert,
            (
                "rlhf labels convert tasks.jsonl --to label-studio --out import.json",
                "rlhf labels convert export.json --to tasks --tasks tasks.jsonl --out labels.jsonl",
                "rlhf labels convert export.json --to tasks --columns prompt=query --out labels.jsonl --pseudonyms",
            ),
        ),
        (
            config,
            (
                "rlhf labels config --to label-studio --question overall:ranking > config.xml",
                "rlhf labels config --to label-studio --question better:pairwise",
                "rlhf labels config --to argilla --question overall:ranking --question honest:scale --answers 3",
            ),
        ),
    ]
    for command, lines in commands:
        group.command(epilog=options.examples(*lines))(options.with_groups(command))
    app.add_typer(
        group,
        name="labels",
        epilog=options.examples(
            "rlhf labels show labels.sqlite",
            "rlhf labels convert export.json --to tasks --out labels.jsonl",
            "rlhf labels config --to label-studio --question better:pairwise",
        ),
    )
