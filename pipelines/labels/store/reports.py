"""What is in the store: own answers, progress, and everything at once."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pipelines.labels.label_types import LabelSet, Question
from pipelines.labels.store.answers import STANDING
from pipelines.labels.store.coding import label_of, task_of
from pipelines.labels.store.database import Database
from pipelines.labels.store.queue import Queue
from pipelines.labels.store.records import AnnotatorProgress, HistoryEntry, Progress


def history(database: Database, me: int, limit: int) -> list[HistoryEntry]:
    """Standing answers of annotator `me`, the newest first."""
    query = f"{STANDING} WHERE a.annotator = ? ORDER BY h.id DESC LIMIT ?"
    found = []
    with database.read() as connection:
        for row in connection.execute(query, (me, limit)).fetchall():
            task = connection.execute("SELECT * FROM tasks WHERE id = ?", (row["task"],)).fetchone()
            found.append(HistoryEntry(task_of(task), label_of(row), row["version"]))
    return found


def snapshot(database: Database, questions: tuple[Question, ...]) -> LabelSet:
    """All tasks, and the labels that stand."""
    with database.read() as connection:
        rows = connection.execute("SELECT * FROM tasks ORDER BY number")
        known = {row["id"]: task_of(row) for row in rows}
        rows = connection.execute(f"{STANDING} ORDER BY a.task, a.annotator")
        labels = [label_of(row) for row in rows]
    return LabelSet(questions, known, labels)


def answer_counts(database: Database, control: bool) -> frozenset[int]:
    """How many answers the tasks in use have; of the control tasks or of the ordinary ones."""
    query = "SELECT DISTINCT json_array_length(answers) FROM tasks WHERE retired = 0 AND (control IS NOT NULL) = ?"
    with database.read() as connection:
        return frozenset(row[0] for row in connection.execute(query, (int(control),)))


def progress(database: Database, queues: Sequence[Queue]) -> Progress:
    """Counts over the tasks, and over the annotators, one for each queue."""
    with database.read() as connection:
        rows = connection.execute(
            "SELECT labels, control IS NOT NULL AS control FROM tasks WHERE retired = 0"
        ).fetchall()
        labels = [row["labels"] for row in rows if not row["control"]]
        overlap = connection.execute("SELECT overlap FROM settings").fetchone()[0]
        annotators = tuple(_annotator(database, queue) for queue in queues)
    return Progress(
        tasks=len(labels),
        controls=len(rows) - len(labels),
        complete=sum(count >= overlap for count in labels),
        wanted=len(labels) * overlap,
        given=sum(labels),
        left=sum(max(overlap - count, 0) for count in labels),
        annotators=annotators,
    )


def _annotator(database: Database, queue: Queue) -> AnnotatorProgress:
    with database.read() as connection:
        rows = connection.execute(f"{STANDING} WHERE a.annotator = ? ORDER BY h.id", (queue.me,)).fetchall()
        simulated = connection.execute("SELECT simulated FROM annotators WHERE id = ?", (queue.me,)).fetchone()[0]
    times = [row["seconds"] for row in rows if not row["skipped"] and row["seconds"] is not None]
    return AnnotatorProgress(
        name=queue.name,
        simulated=bool(simulated),
        done=len(rows),
        skipped=sum(row["skipped"] for row in rows),
        flagged=sum(row["flagged"] for row in rows),
        median_seconds=statistics.median(times) if times else None,
        last=rows[-1]["time"] if rows else None,
        left=queue.counts()[1],
    )
