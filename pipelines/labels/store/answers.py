"""Answers that annotators submit, edit and take back, every version of them kept; and reports on what is there."""

from __future__ import annotations

import datetime
import json
import sqlite3
import statistics
import time

from pipelines.labels.label_types import LabelSet
from pipelines.labels.store.coding import check_key, check_submission, is_text, label_of, order_of, task_of, values_text
from pipelines.labels.store.contents import Contents
from pipelines.labels.store.database import only_row
from pipelines.labels.store.queue import RESERVED_SECONDS, Queue
from pipelines.labels.store.records import (
    AnnotatorProgress,
    Assignment,
    Conflict,
    HistoryEntry,
    Invalid,
    NotAssigned,
    Paused,
    Progress,
    Receipt,
    Submission,
)

STANDING = """
    SELECT t.id AS task, n.name AS annotator, n.simulated, a.shown, a.version,
        h.answer, h.skipped, h.flagged, h.comment, h.time,
        (
            SELECT CASE WHEN count(s.key) = count(s.seconds) THEN sum(s.seconds) END FROM history AS s
            WHERE s.annotator = h.annotator AND s.task = h.task AND s.version <= h.version
        ) AS seconds
    FROM assignments AS a JOIN history AS h ON h.id = a.standing
        JOIN tasks AS t ON t.number = a.task JOIN annotators AS n ON n.id = a.annotator
"""
"""Query for the current labels, as rows for `label_of`.

The page measures each answer and each edit by itself. So the seconds of a label are the sum over all versions up to it,
those taken back included; NULL if one of them is not known.
"""

_SLOT = """
    SELECT t.number, t.id, a.version, a.standing, json_array_length(t.answers) AS answers
    FROM assignments AS a JOIN tasks AS t ON t.number = a.task WHERE a.annotator = ? AND
"""
_NOT_UNDONE = """
    SELECT h.id, h.task FROM history AS h
    WHERE h.annotator = :me AND h.task = coalesce(:task, h.task) AND h.key IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM history AS u WHERE u.undoes = h.id)
    ORDER BY h.id DESC LIMIT 1
"""
_UNDONE = "SELECT t.id FROM history AS h JOIN tasks AS t ON t.number = h.task WHERE h.annotator = ? AND h.undo_key = ?"


class Answers(Contents):
    """Tasks handed out, answers submitted, edited and taken back, progress, and the labels as a whole."""

    def next_task(self, annotator: str) -> Assignment | None:
        """Return the next task of this annotator, begun or new (see `Queue`).

        Returns:
            The task; None: no task is open. Tasks on the screens of others may become open later.

        Raises:
            Paused: labeling is paused.
            NotAssigned: there is no such annotator.
        """
        with self._database.write() as connection:
            state = self._annotator(annotator)
            if state.paused:
                raise Paused
            queue = Queue(connection, annotator, state)
            number = queue.next()
            return None if number is None else self._assignment(queue, number)

    def assignment(self, annotator: str, task: str) -> Assignment | None:
        """Return a task that was handed out to this annotator, to answer it or edit the answer; None: it never was.

        Raises:
            NotAssigned: there is no such annotator.
        """
        with self._database.read() as connection:
            queue = Queue(connection, annotator, self._annotator(annotator))
            row = only_row(connection, "SELECT number FROM tasks WHERE id = ?", task) if is_text(task) else None
            return None if row is None else self._assignment(queue, row["number"])

    def submit(self, annotator: str, task: str, submission: Submission) -> Receipt:
        """Save an answer. It is on the disk when this returns (inside `batch`: when the batch ends).

        Raises:
            Invalid: the answer does not fit the questions.
            Conflict: the label has another version than `submission.version`; or the key belongs to an answer that is
                no longer the current one, or that differs.
            Paused: labeling is paused. A repetition of the current answer gets its receipt even then.
            NotAssigned: the task was never handed out to this annotator, or there is no such annotator.
        """
        with self._database.write() as connection:
            state = self._annotator(annotator)
            slot = only_row(connection, f"{_SLOT} t.id = ?", state.me, task) if is_text(task) else None
            if slot is None:
                raise NotAssigned("this task was not handed out to this annotator")
            check_submission(submission, state.settings.questions, slot["answers"])
            before = only_row(
                connection, "SELECT * FROM history WHERE annotator = ? AND key = ?", state.me, submission.key
            )
            if before is not None:
                if before["task"] != slot["number"]:
                    raise Invalid("this key was used for another task")
                if before["id"] == slot["standing"] and _same(before, submission):
                    return Receipt(before["version"], repeated=True)
                raise _conflict(connection, state.me, slot, kept=_same(before, submission))
            if state.paused:
                raise Paused
            if submission.version != slot["version"]:
                raise _conflict(connection, state.me, slot)
            written = connection.execute(
                "INSERT INTO history (annotator, task, version, key, answer, seconds, comment, flagged, skipped, time)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    state.me,
                    slot["number"],
                    slot["version"] + 1,
                    submission.key,
                    values_text(submission),
                    submission.seconds,
                    submission.comment,
                    int(submission.flagged),
                    int(submission.skipped),
                    _now(),
                ),
            )
            _set_standing(connection, state.me, slot, written.lastrowid)
            return Receipt(slot["version"] + 1, repeated=False)

    def undo(self, annotator: str, key: str | None = None) -> str | None:
        """Take back the last answer of this annotator; called again, the one before.

        After the undo of a first answer its task is open and comes next; after the undo of an edit the answer before
        the edit is current again. Every version stays in the history.

        Args:
            annotator: name of the annotator.
            key: made by the sender, a new one for every undo; a repeated key takes nothing more back and gets the same
                result, even while labeling is paused. None: a repeated request cannot be recognized.

        Returns:
            Id of the task; None: there is nothing to take back.

        Raises:
            Paused: labeling is paused, so the task could not be answered again.
            Invalid: the key is not valid.
            NotAssigned: there is no such annotator.
        """
        with self._database.write() as connection:
            state = self._annotator(annotator)
            if key is not None:
                check_key(key)
                before = only_row(connection, _UNDONE, state.me, key)
                if before is not None:
                    return str(before["id"])
            if state.paused:
                raise Paused
            last = connection.execute(_NOT_UNDONE, {"me": state.me, "task": None}).fetchone()
            if last is None:
                return None
            slot = only_row(connection, f"{_SLOT} t.number = ?", state.me, last["task"])
            assert slot is not None
            connection.execute(
                "INSERT INTO history (annotator, task, version, undoes, undo_key, time) VALUES (?, ?, ?, ?, ?, ?)",
                (state.me, last["task"], slot["version"] + 1, last["id"], key, _now()),
            )
            earlier = connection.execute(_NOT_UNDONE, {"me": state.me, "task": last["task"]}).fetchone()
            _set_standing(connection, state.me, slot, None if earlier is None else earlier["id"])
            return str(slot["id"])

    def _assignment(self, queue: Queue, number: int) -> Assignment | None:
        with self._database.read() as connection:
            row = only_row(
                connection,
                "SELECT t.*, a.shown, a.version, a.number AS mine FROM assignments AS a"
                " JOIN tasks AS t ON t.number = a.task WHERE a.annotator = ? AND a.task = ?",
                queue.me,
                number,
            )
            if row is None:
                return None
            stands = only_row(connection, f"{STANDING} WHERE a.annotator = ? AND a.task = ?", queue.me, number)
            done, skipped, left = queue.counts()
        earlier = None if stands is None else label_of(stands)
        order = order_of(row["shown"])
        return Assignment(task_of(row), order, row["version"], earlier, row["mine"], done, skipped, left)

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
            query = "SELECT labels, control IS NOT NULL AS control FROM tasks WHERE retired = 0"
            rows = connection.execute(query).fetchall()
            labels = [row["labels"] for row in rows if not row["control"]]
            overlap = connection.execute("SELECT overlap FROM settings").fetchone()[0]
            annotators = tuple(self._progress_of(Queue(connection, name, state)) for name, state in states.items())
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


def _same(before: sqlite3.Row, submission: Submission) -> bool:
    """Whether the stored answer is the same as `submission`."""
    stored = (json.loads(before["answer"]), before["comment"], bool(before["flagged"]), bool(before["skipped"]))
    return stored == (json.loads(values_text(submission)), submission.comment, submission.flagged, submission.skipped)


def _conflict(connection: sqlite3.Connection, me: int, slot: sqlite3.Row, *, kept: bool = False) -> Conflict:
    row = only_row(connection, f"{STANDING} WHERE a.annotator = ? AND t.id = ?", me, slot["id"])
    return Conflict(None if row is None else label_of(row), slot["version"], kept=kept)


def _set_standing(connection: sqlite3.Connection, me: int, slot: sqlite3.Row, standing: int | None) -> None:
    """Make another answer, or none, the current one, and update the counts of the task."""
    connection.execute(
        "UPDATE assignments SET version = version + 1, standing = ?, reserved = ? WHERE annotator = ? AND task = ?",
        (standing, time.time() + RESERVED_SECONDS, me, slot["number"]),
    )
    was, now = _counts(connection, slot["standing"]), _counts(connection, standing)
    if was != now:
        connection.execute(
            "UPDATE tasks SET judged = judged + ?, labels = labels + ? WHERE number = ?",
            (now[0] - was[0], now[1] - was[1], slot["number"]),
        )


def _counts(connection: sqlite3.Connection, answer: int | None) -> tuple[int, int]:
    """Return what an answer adds to its task: 1 to the judged count, and 1 to the labels unless it is skipped."""
    row = only_row(connection, "SELECT skipped FROM history WHERE id = ?", answer)
    return (0, 0) if row is None else (1, 1 - row["skipped"])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
