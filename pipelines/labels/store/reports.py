"""Reports on a label store: own answers, progress, and a snapshot of everything."""

from __future__ import annotations

import statistics

from pipelines.labels.label_types import LabelSet
from pipelines.labels.store.answers import STANDING, Answers
from pipelines.labels.store.coding import label_of, task_of
from pipelines.labels.store.queue import Queue
from pipelines.labels.store.records import AnnotatorProgress, HistoryEntry, Progress


class Reports(Answers):
    """Answers of one annotator, progress, and the labels as a whole."""

    def history(self, annotator: str, limit: int = 50) -> list[HistoryEntry]:
        """Return this annotator's standing answers, the newest first.

        Raises:
            NotAssigned: there is no such annotator.
        """
        query = f"{STANDING} WHERE a.annotator = ? ORDER BY h.id DESC LIMIT ?"
        entries = []
        with self._database.read() as connection:
            for row in connection.execute(query, (self._annotator(annotator).me, limit)).fetchall():
                task = connection.execute("SELECT * FROM tasks WHERE id = ?", (row["task"],)).fetchone()
                entries.append(HistoryEntry(task_of(task), label_of(row), row["version"]))
        return entries

    def progress(self) -> Progress:
        """Count tasks and answers, in all and for each annotator."""
        with self._database.read() as connection:
            states = {name: self._annotator(name) for name in self.annotators()}
            rows = connection.execute(
                "SELECT labels, control IS NOT NULL AS control FROM tasks WHERE retired = 0"
            ).fetchall()
            labels = [row["labels"] for row in rows if not row["control"]]
            overlap = connection.execute("SELECT overlap FROM settings").fetchone()[0]
            queues = [Queue.of(connection, name, state) for name, state in states.items()]
            annotators = tuple(self._progress_of(queue) for queue in queues)
        return Progress(
            tasks=len(labels),
            controls=len(rows) - len(labels),
            complete=sum(count >= overlap for count in labels),
            wanted=len(labels) * overlap,
            given=sum(labels),
            left=sum(max(overlap - count, 0) for count in labels),
            annotators=annotators,
        )

    def answer_counts(self, *, control: bool = False) -> frozenset[int]:
        """Return the numbers of answers that the tasks in use have; of the control tasks or of all others."""
        query = "SELECT DISTINCT json_array_length(answers) FROM tasks WHERE retired = 0 AND (control IS NOT NULL) = ?"
        with self._database.read() as connection:
            return frozenset(row[0] for row in connection.execute(query, (int(control),)))

    def snapshot(self) -> LabelSet:
        """Return questions, tasks with their models and known values, and the standing labels, all of one moment.

        Tasks come in the order in which they were added, labels by task and then by annotator.
        """
        with self._database.read() as connection:
            questions = self.settings.questions
            rows = connection.execute("SELECT * FROM tasks ORDER BY number")
            tasks = {row["id"]: task_of(row) for row in rows}
            rows = connection.execute(f"{STANDING} ORDER BY a.task, a.annotator")
            labels = [label_of(row) for row in rows]
        return LabelSet(questions, tasks, labels)

    def _progress_of(self, queue: Queue) -> AnnotatorProgress:
        with self._database.read() as connection:
            rows = connection.execute(f"{STANDING} WHERE a.annotator = ? ORDER BY h.id", (queue.me,)).fetchall()
            simulated = connection.execute("SELECT simulated FROM annotators WHERE id = ?", (queue.me,)).fetchone()[0]
        times = [row["seconds"] for row in rows if not row["skipped"] and row["seconds"] is not None]
        return AnnotatorProgress(
            name=queue.name,
            simulated=bool(simulated),
            done=sum(not row["skipped"] for row in rows),
            skipped=sum(row["skipped"] for row in rows),
            flagged=sum(row["flagged"] for row in rows),
            median_seconds=statistics.median(times) if times else None,
            last=rows[-1]["time"] if rows else None,
            left=queue.counts()[2],
        )
