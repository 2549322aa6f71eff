"""The SQLite file of the label store: safe opening, complete transactions, errors in plain words."""

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
    """One connection, which the threads of a process use in turn.

    The journal is SQLite's rollback journal with ``synchronous=EXTRA``, which also syncs the directory after the
    journal is deleted. With FULL, a power failure just after an answer was acknowledged could bring the journal back,
    and with it the state before the answer.

    Raises:
        DataError: the file is missing, damaged, or not a label store.
        ConflictError: a newer program wrote it.
        DiskError: it cannot be created or read.
        LockedError: another process held it for 30 seconds.
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
        # in this order, because another process may be creating the file now
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
        """Run the block as a transaction that writes: it is on the disk afterwards or, after an error, undone.

        Inside another transaction it is a part of that one. It locks the file from its beginning, so that nothing
        that it reads can change until it ends.
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
        """Run the block as a transaction that reads, and sees one state of the file."""
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
        """Close the file."""
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
    """Return the first row of a query; None: it has none."""
    row: sqlite3.Row | None = connection.execute(query, values).fetchone()
    return row


def number_of(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    """Return the number in the first row of a query."""
    return int(connection.execute(query, values).fetchone()[0] or 0)


def _make_private(path: Path) -> None:
    """Create an empty file that only its owner can read, unless there is a file; SQLite gives the journal its mode."""
    try:
        with disk_errors(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DiskError(
            f"the label store cannot be created here: {error.strerror}", where=str(path), hint="choose another path"
        ) from error


def _damaged(path: Path, fault: str) -> DataError:
    return DataError(
        f"the label store is damaged: {fault}",
        where=str(path),
        hint="replace it with a backup, and do not write to it any more",
    )


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into our own."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a bug, not a fault of the file
    except sqlite3.DatabaseError as error:
        raise _named(error, path) from error


def _named(error: sqlite3.DatabaseError, path: Path) -> RlhfError:
    # sqlite3.connect sets no error name if it cannot open the file.
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
