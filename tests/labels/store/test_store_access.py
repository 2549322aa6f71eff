"""One-time links and sessions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.labels.store.records import Identity
from pipelines.labels.store.store import LabelStore
from tests.labels.store.support import store_of

DAY = 24 * 3600


def test_a_link_opens_one_session_which_outlives_the_process(folder: Path) -> None:
    with store_of(folder) as store:
        token = store.login_token("anna")
        session = store.redeem(token)
        assert session is not None
        assert (session.name, session.role) == ("anna", "annotator")
        assert len(session.token) >= 43  # 256 bits
        assert session.token != token
        assert store.redeem(token) is None
    with LabelStore.open(store.path) as store:
        assert store.session(session.token) == Identity("anna", "annotator")


def test_what_opens_nothing(folder: Path) -> None:
    with store_of(folder) as store:
        token = store.login_token("anna")
        session = store.redeem(store.login_token("ben"))
        assert session is not None
        for wrong in ("", "x", "\ud800", "\x00", token[:-1], token + " ", session.token):
            assert store.redeem(wrong) is None
        for wrong in ("", "x", "\ud800", token):
            assert store.session(wrong) is None
        assert store.redeem(token) is not None


def test_a_newer_link_replaces_the_older_one_of_that_name_and_role(folder: Path) -> None:
    with store_of(folder) as store:
        session = store.redeem(store.login_token("anna"))
        first, others, admin = store.login_token("anna"), store.login_token("ben"), store.login_token("anna", "admin")
        second = store.login_token("anna")
        assert store.redeem(first) is None
        assert all(store.redeem(token) for token in (second, others))
        opened = store.redeem(admin)
        assert opened is not None
        assert opened.role == "admin"
        assert session is not None
        assert store.session(session.token), "sessions that are open stay open"


def test_only_people_of_the_store_get_links(folder: Path) -> None:
    with store_of(folder) as store:
        store.add_annotator("robot", simulated=True)
        for name in ("carl", "robot"):
            with pytest.raises(UsageError, match="no human annotator"):
                store.login_token(name)
        assert store.redeem(store.login_token("carl", "admin")) is not None


def test_revoking_ends_links_and_sessions_of_one_person(folder: Path) -> None:
    with store_of(folder) as store:
        session, other = store.redeem(store.login_token("anna")), store.redeem(store.login_token("ben"))
        assert session is not None
        assert other is not None
        token = store.login_token("anna")
        store.revoke("anna")
        assert store.session(session.token) is None
        assert store.redeem(token) is None
        assert store.session(other.token) == Identity("ben", "annotator")
        assert store.redeem(store.login_token("anna")) is not None


def test_links_and_sessions_grow_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store_of(folder) as store:
        start = time.time()
        session, late = store.redeem(store.login_token("anna")), store.login_token("anna")
        assert session is not None
        monkeypatch.setattr("time.time", lambda: start + 8 * DAY)
        assert store.redeem(late) is None
        monkeypatch.setattr("time.time", lambda: start + 29.9 * DAY)
        assert store.session(session.token) is not None
        monkeypatch.setattr("time.time", lambda: start + 30.1 * DAY)
        assert store.session(session.token) is None


def test_no_token_is_in_the_file(folder: Path) -> None:
    with store_of(folder) as store:
        session, unused = store.redeem(store.login_token("anna")), store.login_token("ben")
        assert session is not None
    content = store.path.read_bytes()
    assert b"anna" in content
    assert session.token.encode() not in content
    assert unused.encode() not in content
