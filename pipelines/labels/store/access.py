"""Login tokens and sessions. The store keeps hashes, never a token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time

from pipelines.errors import UsageError
from pipelines.labels.store.coding import is_text
from pipelines.labels.store.database import StorePart, only_row
from pipelines.labels.store.records import Identity, Role, Session

DAY = 24 * 3600.0
LOGIN_DAYS = 7
SESSION_DAYS = 30


class Access(StorePart):
    """Login tokens and sessions of annotators and the admin."""

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
