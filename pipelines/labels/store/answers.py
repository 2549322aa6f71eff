"""Answers as they are given, edited and taken back; every version is kept."""

from __future__ import annotations

import datetime
import json
import sqlite3
import time

from pipelines.labels.store.coding import check_key, check_submission, is_text, label_of, values_text
from pipelines.labels.store.contents import Desk
from pipelines.labels.store.database import only_row
from pipelines.labels.store.queue import RESERVED_SECONDS
from pipelines.labels.store.records import Conflict, Invalid, NotAssigned, Paused, Receipt, Submission

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
"""The labels that stand, as `label_of` takes them.

A page measures one answer at a time, an edit from the moment it was begun. So the time of a label is that of all
answers up to it, taken back ones too; not known where one of them is not.
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


def submit(connection: sqlite3.Connection, desk: Desk, task: str, given: Submission) -> Receipt:
    """Write one answer; `LabelStore.submit` says what can be wrong with it."""
    me = desk.me
    slot = only_row(connection, f"{_SLOT} t.id = ?", me, task) if is_text(task) else None
    if slot is None:
        raise NotAssigned("this task was not given to this annotator")
    check_submission(given, desk.settings.questions, slot["answers"])
    before = only_row(connection, "SELECT * FROM history WHERE annotator = ? AND key = ?", me, given.key)
    if before is not None:
        if before["task"] != slot["number"]:
            raise Invalid("this key was used for another task")
        if before["id"] == slot["standing"] and _same(before, given):
            return Receipt(before["version"], repeated=True)
        raise _conflict(connection, me, slot, kept=_same(before, given))
    if desk.paused:
        raise Paused
    if given.version != slot["version"]:
        raise _conflict(connection, me, slot)
    written = connection.execute(
        "INSERT INTO history (annotator, task, version, key, answer, seconds, comment, flagged, skipped, time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            me,
            slot["number"],
            slot["version"] + 1,
            given.key,
            values_text(given),
            given.seconds,
            given.comment,
            int(given.flagged),
            int(given.skipped),
            _now(),
        ),
    )
    _set_standing(connection, me, slot, written.lastrowid)
    return Receipt(slot["version"] + 1, repeated=False)


def undo(connection: sqlite3.Connection, desk: Desk, key: str | None) -> str | None:
    """Take back the last answer of an annotator that was not taken back yet; `LabelStore.undo` says the rest."""
    me = desk.me
    if key is not None:
        check_key(key)
        before = only_row(connection, _UNDONE, me, key)
        if before is not None:
            return str(before["id"])
    if desk.paused:
        raise Paused
    last = connection.execute(_NOT_UNDONE, {"me": me, "task": None}).fetchone()
    if last is None:
        return None
    slot = only_row(connection, f"{_SLOT} t.number = ?", me, last["task"])
    assert slot is not None
    connection.execute(
        "INSERT INTO history (annotator, task, version, undoes, undo_key, time) VALUES (?, ?, ?, ?, ?, ?)",
        (me, last["task"], slot["version"] + 1, last["id"], key, _now()),
    )
    earlier = connection.execute(_NOT_UNDONE, {"me": me, "task": last["task"]}).fetchone()
    _set_standing(connection, me, slot, None if earlier is None else earlier["id"])
    return str(slot["id"])


def _same(before: sqlite3.Row, given: Submission) -> bool:
    """Whether the answer that was kept says what is given now."""
    kept = (json.loads(before["answer"]), before["comment"], bool(before["flagged"]), bool(before["skipped"]))
    return kept == (json.loads(values_text(given)), given.comment, given.flagged, given.skipped)


def _conflict(connection: sqlite3.Connection, me: int, slot: sqlite3.Row, *, kept: bool = False) -> Conflict:
    row = only_row(connection, f"{STANDING} WHERE a.annotator = ? AND t.id = ?", me, slot["id"])
    return Conflict(None if row is None else label_of(row), slot["version"], kept=kept)


def _set_standing(connection: sqlite3.Connection, me: int, slot: sqlite3.Row, standing: int | None) -> None:
    """Put another answer, or none, in the place of the standing one, and count anew."""
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
    """What an answer adds to the counts of its task: 1 as judged, and 1 as a label unless it is skipped."""
    row = only_row(connection, "SELECT skipped FROM history WHERE id = ?", answer)
    return (0, 0) if row is None else (1, 1 - row["skipped"])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
