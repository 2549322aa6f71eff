"""Where the labels of a run are."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import ArtifactError
from pipelines.rundir import RunDir, split_round

TASKS = "tasks.jsonl"


def labels_file(run: RunDir) -> Path:
    """The labels of a run: of the newest finished round, or what people have answered where a round waits for them.

    Raises:
        ArtifactError: there are none yet.
    """
    published, store = run.newest("labels") / TASKS, run.label_store
    waits = any(split_round(stage)[0] == "labels" for stage in run.waiting())
    for path in (store, published) if waits else (published, store):
        if path.is_file():
            return path
    raise ArtifactError(
        "this run has no labels yet",
        where=str(run.root),
        hint=f"`rlhf label --run-dir {run.root}` opens the page where people give them; or name a file of labels",
    )
