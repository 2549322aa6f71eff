"""Who may come in: one-time links, sessions, and their end. The store keeps hashes, never a token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time

from pipelines.errors import UsageError
from pipelines.labels.store.coding import is_text
from pipelines.labels.store.database import Database, only_row
from pipelines.labels.store.records import Identity, Role, Session

DAY = 24 * 3600.0
LOGIN_DAYS = 7
SESSION_DAYS = 30


def login_token(database: Database, name: str, role: Role) -> str:
    """A token of 256 bits that opens one session, within 7 days; an earlier unused one stops working.

    Raises:
        UsageError: there is no human annotator of that name. An admin need not be one.
    """
    with database.write() as connection:
        if role == "annotator":
            known = only_row(connection, "SELECT simulated FROM annotators WHERE name = ?", name)
            if known is None or known["simulated"]:
                raise UsageError(f"no human annotator of this label store is called {name!r}", hint="add them first")
        connection.execute("DELETE FROM tokens WHERE name = ? AND role = ? AND kind = 'login'", (name, role))
        return _issue(connection, name, role, "login", LOGIN_DAYS)


def redeem(database: Database, token: str) -> Session | None:
    """Open a session with a login token, which is used up by it; None: it is unknown, used or old."""
    with database.write() as connection:
        connection.execute("DELETE FROM tokens WHERE expires <= ?", (time.time(),))
        row = _find(connection, token, "login")
        if row is None:
            return None
        connection.execute("DELETE FROM tokens WHERE hash = ?", (row["hash"],))
        name, role = row["name"], row["role"]
        return Session(_issue(connection, name, role, "session", SESSION_DAYS), name, role)


def session(database: Database, token: str) -> Identity | None:
    """Whose session it is; None: it is unknown, older than 30 days, or was revoked."""
    with database.read() as connection:
        row = _find(connection, token, "session")
    return None if row is None else Identity(row["name"], row["role"])


def revoke(database: Database, name: str) -> None:
    """End all sessions of a person and forget their unused links."""
    with database.write() as connection:
        connection.execute("DELETE FROM tokens WHERE name = ?", (name,))


def _issue(connection: sqlite3.Connection, name: str, role: Role, kind: str, days: float) -> str:
    token = secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO tokens (hash, name, role, kind, expires) VALUES (?, ?, ?, ?, ?)",
        (_hash(token), name, role, kind, time.time() + days * DAY),
    )
    return token


def _find(connection: sqlite3.Connection, token: str, kind: str) -> sqlite3.Row | None:
    # The index is searched for a hash, of which nobody can choose the first letters, so its time tells nothing.
    wanted = _hash(token) if is_text(token) else ""
    row = only_row(connection, "SELECT * FROM tokens WHERE hash = ? AND kind = ?", wanted, kind)
    if row is None or not hmac.compare_digest(row["hash"], wanted) or row["expires"] <= time.time():
        return None
    return row


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
