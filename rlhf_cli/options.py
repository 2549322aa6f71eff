"""The options that several commands share, and the help that they show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML file; may be left out on an existing run directory."),
]
Dir = Annotated[
    Path | None,
    typer.Option("--run-dir", "--output-dir", metavar="DIR", help="Run directory. Default: runs/<name of the file>."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value, e.g. ppo.kl_coef=0.1. Repeatable."),
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
        help="Outside reward: a model's hub id or directory, module:function, or an http(s) address; the reward stage "
        "is left out.",
    ),
]
Dataset = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="FILE", help="Data file, directory or hub data set that the stage reads."),
]
Name = Annotated[str | None, typer.Option("--name", metavar="N", help="As `name` of a source.")]
Format = Annotated[str | None, typer.Option("--format", metavar="F", help="Name of the format. Default: detected.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", metavar="KEY=COL", help="The file calls KEY `COL`, e.g. prompt=question. Repeatable."),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tags", metavar="TAG=TEXT", help="As `tags` of a source, e.g. role_tag=speaker. Repeatable."),
]
Split = Annotated[str, typer.Option("--split", metavar="S", help="Split of a hub data set or directory.")]
Revision = Annotated[str | None, typer.Option("--revision", metavar="R", help="Commit, branch or tag of the hub.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N rows.")]
Force = Annotated[bool, typer.Option("--force", help="Run again what is complete, or was made with other settings.")]
ForceStages = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="STAGE", help="Run this stage again, and what follows from it. Repeatable."),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="STAGE", help="First stage: data, sft, sample, labels, pairs, reward, ppo or eval."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Last stage.")]
Round = Annotated[
    int, typer.Option("--round", min=1, metavar="N", help="Which round of feedback; the first one has no other name.")
]
Rounds = Annotated[
    int | None,
    typer.Option(
        "--rounds",
        min=1,
        metavar="N",
        help="Sample, collect labels, retrain the reward model, go on with PPO: N times.",
    ),
]
Replace = Annotated[bool, typer.Option("--force", help="Replace the file if it is there already.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; write nothing, open no data.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, also for errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show log lines, and the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, errors and results.")]


def examples(*lines: str) -> str:
    """An epilog that keeps its lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
