"""Tables of the label store, and the migration of older files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from pipelines.errors import ConflictError

APPLICATION = 0x524C4846
"""`PRAGMA application_id`: the letters RLHF."""

_VERSION_1 = (
    """
    CREATE TABLE settings (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        title TEXT NOT NULL,
        questions TEXT NOT NULL, -- JSON
        guidelines TEXT NOT NULL,
        overlap INTEGER NOT NULL CHECK (overlap >= 1),
        control_share REAL NOT NULL CHECK (control_share BETWEEN 0 AND 0.5),
        seed INTEGER NOT NULL,
        paused INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    """
    CREATE TABLE tasks (
        number INTEGER PRIMARY KEY, -- in the order in which they were added
        id TEXT NOT NULL UNIQUE,
        prompt TEXT NOT NULL, -- JSON
        answers TEXT NOT NULL, -- JSON
        control TEXT, -- JSON; NULL: an ordinary task
        source TEXT,
        place INTEGER NOT NULL, -- in the shuffled queue
        labels INTEGER NOT NULL DEFAULT 0, -- standing answers that are not skipped
        judged INTEGER NOT NULL DEFAULT 0 -- standing answers, skipped ones too
    ) STRICT
    """,
    "CREATE INDEX queue ON tasks (labels DESC, place) WHERE control IS NULL",
    "CREATE INDEX begun ON tasks (labels) WHERE control IS NULL AND judged > 0",
    "CREATE INDEX controls ON tasks (id) WHERE control IS NOT NULL",
    """
    CREATE TABLE annotators (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        folded TEXT NOT NULL UNIQUE, -- the name without the difference of capitals
        simulated INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE history (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        annotator INTEGER NOT NULL REFERENCES annotators,
        task INTEGER NOT NULL REFERENCES tasks,
        version INTEGER NOT NULL,
        key TEXT, -- NULL: an undo
        undoes INTEGER UNIQUE REFERENCES history, -- NULL: an answer
        answer TEXT, -- JSON
        seconds REAL,
        comment TEXT NOT NULL DEFAULT '',
        flagged INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0,
        time TEXT NOT NULL,
        UNIQUE (annotator, key),
        UNIQUE (annotator, task, version),
        CHECK ((key IS NULL) = (answer IS NULL) AND (key IS NULL) = (undoes IS NOT NULL))
    ) STRICT
    """,
    """
    CREATE TRIGGER history_stays BEFORE UPDATE ON history
    BEGIN SELECT RAISE(ABORT, 'history is only ever added to'); END
    """,
    """
    CREATE TRIGGER history_is_kept BEFORE DELETE ON history
    BEGIN SELECT RAISE(ABORT, 'history is only ever added to'); END
    """,
    """
    CREATE TABLE assignments (
        annotator INTEGER NOT NULL REFERENCES annotators,
        task INTEGER NOT NULL REFERENCES tasks,
        number INTEGER NOT NULL, -- how many this one is for the annotator
        control INTEGER NOT NULL,
        shown TEXT NOT NULL, -- JSON: order of the answers
        reserved REAL NOT NULL, -- others wait until then, in seconds since 1970; while there is no standing answer
        version INTEGER NOT NULL DEFAULT 0,
        standing INTEGER REFERENCES history, -- NULL: unanswered or taken back
        PRIMARY KEY (annotator, task),
        UNIQUE (annotator, number)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX open ON assignments (annotator, reserved) WHERE standing IS NULL",
    "CREATE INDEX given_controls ON assignments (annotator) WHERE control = 1",
    """
    CREATE TABLE tokens (
        hash TEXT PRIMARY KEY, -- SHA-256 of the token
        name TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('annotator', 'admin')),
        kind TEXT NOT NULL CHECK (kind IN ('login', 'session')),
        expires REAL NOT NULL -- seconds since 1970
    ) STRICT
    """,
)


def _first(connection: sqlite3.Connection) -> None:
    for statement in _VERSION_1:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")


_VERSION_2 = (
    "ALTER TABLE tasks ADD COLUMN retired INTEGER NOT NULL DEFAULT 0",  # given to nobody any more
    "DROP INDEX queue",
    "CREATE INDEX queue ON tasks (labels DESC, place) WHERE control IS NULL AND retired = 0",
    "DROP INDEX begun",
    "CREATE INDEX begun ON tasks (labels) WHERE control IS NULL AND retired = 0 AND judged > 0",
    "ALTER TABLE history ADD COLUMN undo_key TEXT",  # of an undo, from whoever asked for it; NULL: an answer, or none
    "CREATE UNIQUE INDEX undo_keys ON history (annotator, undo_key) WHERE undo_key IS NOT NULL",
)


def _second(connection: sqlite3.Connection) -> None:
    for statement in _VERSION_2:
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first, _second)
"""Steps of the upgrade: step n, from 0, turns version n (`PRAGMA user_version`) into n + 1. Steps are never changed."""


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0: the file is empty."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, where: str) -> None:
    """Upgrade the tables to the current version, inside the caller's transaction.

    Raises:
        ConflictError: a newer program wrote the file.
    """
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise ConflictError(
            f"the label store has version {version}; this program knows versions up to {len(MIGRATIONS)}",
            where=where,
            hint="use the newer rlhf that wrote it",
        )
    for step in MIGRATIONS[version:]:
        step(connection)
    if version < len(MIGRATIONS):
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
