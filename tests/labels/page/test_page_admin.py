"""What the admin sees and does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.labels.page.app import make_app
from pipelines.labels.store import answers
from pipelines.labels.store.store import LabelStore
from pipelines.labels.tasks_file import read_tasks
from tests.labels.page.support import ORIGIN, Person, make_store, make_task


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return make_store(tmp_path)


@pytest.fixture
def admin(store: LabelStore) -> Person:
    return Person(store, "admin", "admin")


def test_a_new_annotator_gets_a_link_that_works(store: LabelStore, admin: Person):
    found = admin.post("/api/admin/annotators", {"name": " Zoë "}).json()
    assert found["name"] == "Zoë"
    assert found["link"].startswith(f"{ORIGIN}/enter/")
    zoe = Person(store)
    assert "Zoë" in zoe.get(found["link"].removeprefix(ORIGIN)).text
    assert zoe.open_task()
    for name in ("", "ADMIN", "zoë", "a\x00b", "x" * 200, "a\u202eb"):
        refused = admin.post("/api/admin/annotators", {"name": name})
        assert (refused.status_code, list(refused.json())) == (422, ["error"]), name
    assert store.annotators() == ["ann", "bo", "Zoë"]
    with pytest.raises(UsageError):
        store.add_annotator(" Admin")


def test_a_new_link_replaces_an_unused_one_and_leaves_sessions(store: LabelStore, admin: Person):
    ann = Person(store, "ann")
    first = admin.post("/api/admin/link", {"name": "ann"}).json()["link"].removeprefix(ORIGIN)
    second = admin.post("/api/admin/link", {"name": "ann"}).json()["link"].removeprefix(ORIGIN)
    assert ann.get("/").status_code == 200
    assert Person(store).get(first).status_code == 403
    assert Person(store).get(second).status_code == 200
    assert admin.post("/api/admin/link", {"name": "nobody"}).status_code == 422


def test_who_is_revoked_is_out(store: LabelStore, admin: Person):
    ann = Person(store, "ann")
    assert admin.post("/api/admin/revoke", {"name": "ann"}).status_code == 200
    assert ann.get("/").status_code == 401
    assert admin.post("/api/admin/revoke", {"name": "admin"}).status_code == 422
    assert admin.get("/admin").status_code == 200


def test_pause_and_go_on(store: LabelStore, admin: Person):
    assert admin.post("/api/admin/pause", {"paused": True}).json() == {"paused": True}
    assert store.paused
    assert admin.post("/api/admin/pause", {"paused": "no"}).status_code == 422
    admin.post("/api/admin/pause", {"paused": False})
    assert not store.paused


def test_the_overview_shows_progress_agreement_and_flags(store: LabelStore):
    app = make_app(store, origins=[ORIGIN])
    for name, ranks in (("ann", [1, 2, 3]), ("bo", [1, 2, 3])):
        person = Person(store, name, app=app)
        for _ in range(2):
            task, version, texts = person.open_task()
            by_text = dict(zip(sorted(texts), ranks, strict=True))
            values = {"overall": [by_text[text] for text in texts]}
            person.submit(task, version, values=values, flagged=name == "bo", comment="odd prompt")
    page = Person(store, "admin", "admin", app=app).get("/admin")
    assert page.status_code == 200
    assert "odd prompt" in page.text
    assert "ann" in page.text
    assert "alpha" in page.text.lower()


def test_comments_are_shown_the_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path, [make_task(str(number)) for number in range(53)])
    app = make_app(store, origins=[ORIGIN])
    ann = Person(store, "ann", app=app)
    for number in range(53):
        monkeypatch.setattr(answers, "_now", lambda at=number: f"2026-11-21T18:00:{at:02d}Z")
        task, version, _ = ann.open_task()
        ann.submit(task, version, comment=f"remark {number} <i>" if number else "", flagged=number == 1)
    page = Person(store, "admin", "admin", app=app).get("/admin").text
    flagged, comments = page.split('id="live-comments"')
    assert re.findall(r"remark (\d+) &lt;i&gt;", flagged) == ["1"]
    assert re.findall(r"remark (\d+) &lt;i&gt;", comments) == [str(number) for number in range(52, 2, -1)]
    assert "newest 50 of 51" in comments


def test_the_admin_is_never_sent_to_the_tasks(tmp_path: Path):
    store = make_store(tmp_path, guidelines="# How to judge")
    admin = Person(store, "admin", "admin")
    for page in (admin.get(f"/enter/{store.login_token('admin', 'admin')}").text, admin.get("/guidelines").text):
        assert "How to judge" in page
        assert 'href="/"' not in page
        assert "Begin" not in page
        assert re.findall(r'href="/admin">To the admin page', page)


def test_the_export_is_a_tasks_file_with_labels(tmp_path: Path, store: LabelStore, admin: Person):
    for name in ("bo", "ann"):
        person = Person(store, name)
        task, version, _ = person.open_task()
        person.submit(task, version, values={"overall": [2, 1, 3]})
    answer = admin.get("/admin/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="My-project.labels.jsonl"'
    (tmp_path / "out.jsonl").write_bytes(answer.content)
    found = read_tasks(tmp_path / "out.jsonl")
    assert found.labels == store.snapshot().labels
    assert {label.annotator for label in found.labels} == {"ann", "bo"}
    hidden_answer = admin.get("/admin/export?pseudonyms=1")
    without_names = 'attachment; filename="My-project.labels.pseudonyms.jsonl"'
    assert hidden_answer.headers["content-disposition"] == without_names
    hidden = hidden_answer.text
    (tmp_path / "out.jsonl").write_text(hidden)
    assert sorted(label.annotator for label in read_tasks(tmp_path / "out.jsonl").labels) == [
        "annotator-01",
        "annotator-02",
    ]
    assert '"ann"' not in hidden
