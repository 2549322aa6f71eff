"""Where the labels of a run are."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import ArtifactError
from pipelines.rundir import RunDir

TASKS = "tasks.jsonl"
STORE = "labels.sqlite"


def labels_file(run: RunDir) -> Path:
    """The labels of a run: those of the newest finished round, or what people have answered so far.

    Raises:
        ArtifactError: there are none yet.
    """
    for path in (run.newest("labels") / TASKS, run.root / STORE):
        if path.is_file():
            return path
    raise ArtifactError(
        "this run has no labels yet",
        where=str(run.root),
        hint="`rlhf label --run-dir` opens the page where people give them; or name a file of labels",
    )
