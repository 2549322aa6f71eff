"""The SQLite file of the label store: safe opening, whole transactions, faults in plain words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.errors import DataError, DiskError, LockedError, RlhfError
from pipelines.labels.store.schema import APPLICATION, MIGRATIONS, migrate, version_of
from pipelines.run.disk import disk_errors

BUSY_SECONDS = 30.0
"""How long a transaction waits for that of another process."""


class Database:
    """One connection, shared by the threads of a process: they take turns.

    The journal is SQLite's rollback journal with ``synchronous=EXTRA``: what FULL does, and the directory is forced
    to the disk too after the journal is gone. Without that a power cut just after an answer was acknowledged could
    bring the journal back, and with it the state before the answer.

    Raises:
        DataError: the file is missing, damaged, or no label store.
        ConflictError: a newer program wrote it.
        DiskError: it cannot be made or read.
        LockedError: another process has held it for 30 seconds.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        if make:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            _make_private(path)
        elif not path.is_file():
            raise DataError(
                "there is no label store", where=str(path), hint="`rlhf label` with something to judge makes one"
            )
        with _faults(path):
            self._connection = sqlite3.connect(
                path.absolute().as_uri() + "?mode=rw",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            self._prepare(make)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, make: bool) -> None:
        connection = self._connection
        connection.row_factory = sqlite3.Row
        with _faults(self.path):
            connection.execute("PRAGMA trusted_schema = OFF")  # the file may come from somebody else
            self._check_ours(make)
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA foreign_keys = ON")
        if version_of(connection) != len(MIGRATIONS):
            with self.write():
                migrate(connection, str(self.path))

    def _check_ours(self, make: bool) -> None:
        connection = self._connection
        # in this order: somebody else may be making it just now
        empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION and not (make and empty):
            raise DataError(
                "this SQLite file is no label store of rlhf", where=str(self.path), hint="`rlhf label` makes one"
            )
        fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if fault != "ok":
            raise _damaged(self.path, fault)

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes: on the disk when the block is left, or undone whole. Inside another, a part of it.

        It has the file to itself from its beginning on, so that what it reads stays true until it is done.
        """
        with self._lock, _faults(self.path):
            inner = self._connection.in_transaction
            self._connection.execute("SAVEPOINT part" if inner else "BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("RELEASE part" if inner else "COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk can have ended it
                    for statement in ("ROLLBACK TO part", "RELEASE part") if inner else ("ROLLBACK",):
                        self._connection.execute(statement)
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Everything read inside is of one moment."""
        with self._lock, _faults(self.path):
            inner = self._connection.in_transaction
            if not inner:
                self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                if not inner and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()


class StorePart:
    """Part of the label store: its methods work on the one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def path(self) -> Path:
        """Path of the SQLite file."""
        return self._database.path


def only_row(connection: sqlite3.Connection, query: str, *values: Any) -> sqlite3.Row | None:
    """The first row that the query finds."""
    row: sqlite3.Row | None = connection.execute(query, values).fetchone()
    return row


def number_of(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    """The number that the query counts."""
    return int(connection.execute(query, values).fetchone()[0] or 0)


def _make_private(path: Path) -> None:
    """An empty file, if there is none, that nobody but its owner can read at any moment; its journal does likewise."""
    try:
        with disk_errors(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DiskError(
            f"no file can be made here: {error.strerror}", where=str(path), hint="choose another path"
        ) from error


def _damaged(path: Path, fault: str) -> DataError:
    return DataError(
        f"the label store is damaged: {fault}",
        where=str(path),
        hint="put a backup in its place; do not write to it any more",
    )


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into our own."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a mistake of ours, not of the file
    except sqlite3.DatabaseError as error:
        raise _named(error, path) from error


def _named(error: sqlite3.DatabaseError, path: Path) -> RlhfError:
    # The connection itself fails without a code when the file cannot be opened.
    name = getattr(error, "sqlite_errorname", "SQLITE_CANTOPEN")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LockedError("another process holds the label store", where=str(path), hint="wait for it, then try again")
    if name.startswith("SQLITE_FULL"):
        return DiskError("no space left on the disk", where=str(path), hint="free some space and try again")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_AUTH")):
        return DiskError(
            f"the label store cannot be used: {error}", where=str(path), hint="check the path and its permissions"
        )
    if name.startswith("SQLITE_NOTADB"):
        return DataError("this file is no label store of rlhf", where=str(path))
    return _damaged(path, str(error))
