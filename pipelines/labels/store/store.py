"""The label store: one SQLite file with questions, tasks, annotators and every answer that was ever given."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import os
import secrets
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from pipelines.errors import LockedError, UsageError
from pipelines.labels.store.answers import Answers
from pipelines.labels.store.coding import is_text
from pipelines.labels.store.database import Database, StorePart, only_row
from pipelines.labels.store.records import Identity, Role, Session, Settings
from pipelines.run.disk import disk_errors, read_json
from pipelines.run.processes import is_alive

DAY = 24 * 3600.0
LOGIN_DAYS = 7
SESSION_DAYS = 30


class Access(StorePart):
    """Login tokens and sessions of annotators and the admin. The store keeps hashes, never a token."""

    def login_token(self, name: str, role: Role = "annotator") -> str:
        """Return a token of 256 bits that opens one session within 7 days.

        An earlier unused token of that name and role stops working.

        Raises:
            UsageError: there is no human annotator of that name. An admin need not be one.
        """
        with self._database.write() as connection:
            if role == "annotator":
                known = only_row(connection, "SELECT simulated FROM annotators WHERE name = ?", name)
                if known is None or known["simulated"]:
                    raise UsageError(
                        f"no human annotator of this label store is called {name!r}", hint="add them first"
                    )
            connection.execute("DELETE FROM tokens WHERE name = ? AND role = ? AND kind = 'login'", (name, role))
            return _issue(connection, name, role, "login", LOGIN_DAYS)

    def redeem(self, token: str) -> Session | None:
        """Open a session of 30 days with a login token, which is used up; None: it is unknown, used or expired."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM tokens WHERE expires <= ?", (time.time(),))
            row = _find(connection, token, "login")
            if row is None:
                return None
            connection.execute("DELETE FROM tokens WHERE hash = ?", (row["hash"],))
            token = _issue(connection, row["name"], row["role"], "session", SESSION_DAYS)
            return Session(row["name"], row["role"], token)

    def session(self, session_token: str) -> Identity | None:
        """Return the identity behind a session token; None: it is unknown, expired or revoked."""
        with self._database.read() as connection:
            row = _find(connection, session_token, "session")
        return None if row is None else Identity(row["name"], row["role"])

    def revoke(self, name: str) -> None:
        """End all sessions of a person, in both roles, and delete their unused links; their answers stay."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM tokens WHERE name = ?", (name,))


def _issue(connection: sqlite3.Connection, name: str, role: Role, kind: str, days: float) -> str:
    token = secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO tokens (hash, name, role, kind, expires) VALUES (?, ?, ?, ?, ?)",
        (_hash(token), name, role, kind, time.time() + days * DAY),
    )
    return token


def _find(connection: sqlite3.Connection, token: str, kind: str) -> sqlite3.Row | None:
    # The lookup is by hash, so its duration reveals nothing about the token.
    digest = _hash(token) if is_text(token) else ""
    row = only_row(connection, "SELECT * FROM tokens WHERE hash = ? AND kind = ?", digest, kind)
    if row is None or not hmac.compare_digest(row["hash"], digest) or row["expires"] <= time.time():
        return None
    return row


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class LabelStore(Access, Answers):
    """One SQLite file. Threads may share it; a call that writes is on the disk when it returns.

    Nothing is cached: what another process wrote, such as tasks of a new round, is there at the next call. Every
    call can raise DiskError, DataError where the file turns out to be damaged, and LockedError where another process
    holds it for 30 seconds.
    """

    @classmethod
    def create(cls, path: Path, settings: Settings) -> LabelStore:
        """Create a store, or open an existing one and change its settings.

        Raises:
            ConflictError: there are answers to other questions, or a newer program wrote the file.
            DataError: the file is damaged or not a label store, or the settings are invalid.
        """
        store = cls.open(path, make=True)
        try:
            store.settings = settings
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, path: Path, *, make: bool = False) -> LabelStore:
        """Open a store.

        Args:
            path: the SQLite file.
            make: create the file if it is missing; the new store has no `settings` yet.

        Raises:
            DataError: the file is missing, damaged, or not a label store.
            ConflictError: a newer program wrote it.
        """
        return cls(Database(path, make=make))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Hold the store as its only server. Other processes can still read it and add tasks.

        Raises:
            LockedError: another server holds it.
        """
        held = LockedError(
            "another label page serves this store", where=str(self.path), hint="use that page, or end it"
        )
        lock = FileLock(self.path.with_name(f"{self.path.name}.lock"), mode=0o600)
        try:
            with disk_errors(self.path):
                lock.acquire(blocking=False)
        except Timeout:
            raise held from None
        try:
            with _name_of(self.path, held):
                yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Run all calls inside in one transaction, which is on the disk when the block is left and undone by an error.

        Faster for many calls (simulated annotators, imports). Other threads and processes wait until it ends.
        """
        with self._database.write():
            yield


@contextlib.contextmanager
def announced(store: LabelStore, address: str) -> Iterator[None]:
    """Hold the store as its only server, and write the address of its page to ``<store>.server.json``.

    Raises:
        LockedError: another server holds it.
        DiskError: no permission to write beside the store.
    """
    note = _note_of(store.path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(store.served())
        except LockedError as error:
            other = running_server(store.path)
            words = error.message if other is None else f"{error.message}: {other}"
            raise LockedError(words, where=error.where, hint=error.hint) from None
        with disk_errors(note):
            _write_private(note, {"address": address, "pid": os.getpid(), "host": socket.gethostname()})
        stack.callback(note.unlink, missing_ok=True)
        yield


def running_server(store: Path) -> str | None:
    """Return the address of the label page that serves this store now; None: no page of this machine does."""
    note = read_json(_note_of(store))
    pid, address = note.get("pid"), note.get("address")
    if not isinstance(pid, int) or pid <= 0 or not isinstance(address, str) or note.get("host") != socket.gethostname():
        return None
    return address if is_alive(pid) else None  # a server that was killed leaves its note behind


def _note_of(store: Path) -> Path:
    return store.with_name(f"{store.name}.server.json")


def _write_private(path: Path, content: dict[str, Any]) -> None:
    """Write a file that nobody but its owner can read at any moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)


@contextlib.contextmanager
def _name_of(path: Path, held: LockedError) -> Iterator[None]:
    """Hold a name of the kernel for a file: unlike a lock file nobody can remove it. Only Linux has such names."""
    if sys.platform != "linux":
        yield
        return
    stat = path.stat()
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0rlhf-labels-{stat.st_dev}-{stat.st_ino}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise held from None
        yield
