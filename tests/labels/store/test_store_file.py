"""The file: its mode, its journal, its versions, damage, strangers, copies."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import ConflictError, DataError, DiskError, LockedError
from pipelines.labels.store import schema
from pipelines.labels.store.store import LabelStore
from tests.labels.store.support import answer, give, settings_of, store_of, task_of, walk


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_only_the_owner_reads_the_file_its_journal_and_its_lock(folder: Path) -> None:
    before = os.umask(0)
    try:
        with store_of(folder) as store, store.served():
            journal = store.path.with_name("labels.sqlite-journal")
            with store.batch():
                store.add_annotator("carl")
                assert _mode(journal) == 0o600
            assert not journal.exists(), "it is a rollback journal, and the answer stands once it is gone"
            found = {path.name: _mode(path) for path in folder.iterdir()}
    finally:
        os.umask(before)
    names = ("labels.sqlite", "labels.sqlite.lock")
    assert found == dict.fromkeys(names, 0o600)


def test_the_file_is_private_from_its_first_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    connect = sqlite3.connect

    def watched(*args: object, **more: object) -> sqlite3.Connection:
        modes.append(_mode(folder / "labels.sqlite"))
        return connect(*args, **more)  # type: ignore[arg-type,call-overload,no-any-return]

    before = os.umask(0)
    try:
        monkeypatch.setattr("sqlite3.connect", watched)
        store_of(folder).close()
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_how_the_connection_is_set(folder: Path) -> None:
    with store_of(folder) as store, store._database.read() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "user_version", "application_id", "trusted_schema")
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
        assert found == ["delete", 3, 1, len(schema.MIGRATIONS), 0x524C4846, 0]
        tables = connection.execute("PRAGMA table_list").fetchall()
        assert {row["name"] for row in tables if not row["strict"]} == {
            "sqlite_schema",
            "sqlite_temp_schema",
            "sqlite_sequence",
        }


def test_what_is_no_label_store(folder: Path) -> None:
    foreign = folder / "foreign.sqlite"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    (folder / "words.txt").write_text("not a database, but long enough to be one " * 100)
    (folder / "empty").touch()
    (folder / "directory").mkdir()
    for name in ("foreign.sqlite", "words.txt", "empty", "directory", "missing"):
        with pytest.raises(DataError) as caught:
            LabelStore.open(folder / name)
        assert str(folder / name) in str(caught.value.where)
    assert not (folder / "missing").exists()
    for name in ("foreign.sqlite", "words.txt"):
        content = (folder / name).read_bytes()
        with pytest.raises(DataError):
            LabelStore.create(folder / name, settings_of())
        assert (folder / name).read_bytes() == content
    with pytest.raises(DiskError):
        LabelStore.create(folder / "directory", settings_of())


def test_a_creation_that_was_killed_is_done_anew(folder: Path) -> None:
    (folder / "labels.sqlite").touch()
    store_of(folder).close()
    LabelStore.open(folder / "labels.sqlite").close()


def test_damage_is_found_wherever_it_is(folder: Path) -> None:
    with store_of(folder, tasks=300) as store:
        for _ in range(20):
            give(store, "anna")
    whole = store.path.read_bytes()
    for part in range(8):
        broken = bytearray(whole)
        start = len(whole) * part // 8 + 16 * (part == 0)
        broken[start : start + 6000] = bytes(range(256)) * 24
        store.path.write_bytes(broken[: len(whole)])
        with pytest.raises(DataError):
            _read_all(store.path)
    store.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        LabelStore.open(store.path)


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE tasks SET prompt = \'[{"role": "nobody"}]\'',
        "UPDATE tasks SET answers = '{'",
        "UPDATE tasks SET answers = '[1]'",
        "UPDATE tasks SET control = '[]'",
        'UPDATE settings SET questions = \'[{"name": "x"}]\'',
        "UPDATE settings SET questions = '7'",
        "UPDATE assignments SET shown = '{'",
        "DROP TABLE tokens",
        "DROP TABLE assignments",
    ],
)
def test_content_that_nobody_of_us_wrote(folder: Path, statement: str) -> None:
    with store_of(folder) as store:
        give(store, "anna")
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(statement)
    connection.close()
    with pytest.raises(DataError):
        _read_all(store.path)


def _read_all(path: Path) -> None:
    with LabelStore.open(path) as opened:
        opened.snapshot()
        opened.session("x")


def test_a_newer_file_is_left_alone(folder: Path) -> None:
    with store_of(folder) as store:
        store.add_tasks([task_of("more")])
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    connection.close()
    for opening in (LabelStore.open, lambda path: LabelStore.create(path, settings_of())):
        with pytest.raises(ConflictError, match="knows versions up to"):
            opening(store.path)


def test_an_older_file_is_brought_up_to_date_or_left_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store_of(folder) as store:
        give(store, "anna")
        labels = store.snapshot().labels

    def add(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE tasks ADD COLUMN difficulty REAL")
        connection.execute("UPDATE tasks SET difficulty = labels + 0.5")

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE tasks DROP COLUMN difficulty")
        raise RuntimeError("the machine was switched off")

    before = store.path.read_bytes()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add, fail))
    monkeypatch.setattr("pipelines.labels.store.database.MIGRATIONS", schema.MIGRATIONS)
    with pytest.raises(RuntimeError):
        LabelStore.open(store.path)
    assert store.path.read_bytes() == before
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:-1])
    monkeypatch.setattr("pipelines.labels.store.database.MIGRATIONS", schema.MIGRATIONS)
    with LabelStore.open(store.path) as opened:
        assert opened.snapshot().labels == labels
        with opened._database.read() as connection:
            assert schema.version_of(connection) == len(schema.MIGRATIONS)
            found = [row[0] for row in connection.execute("SELECT difficulty FROM tasks ORDER BY difficulty")]
            assert found == [0.5, 0.5, 0.5, 1.5]


def test_a_store_of_version_1_goes_on(folder: Path) -> None:
    path = folder / "labels.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(Path(__file__).with_name("version_1.sql").read_text())
    assert schema.version_of(connection) == 1
    connection.close()
    with LabelStore.open(path) as store:
        labels = {(label.annotator, label.task): label for label in store.snapshot().labels}
        assert set(labels) == {("anna", "t0"), ("ben", "t0"), ("anna", "t1"), ("ben", "t1"), ("anna", "c0")}
        assert (labels["anna", "t0"].values, labels["anna", "t0"].seconds) == ({"overall": (3, 2, 1)}, 61.0)
        assert (labels["anna", "t1"].seconds, labels["ben", "t0"].skipped, labels["ben", "t1"].flagged) == (
            7,
            True,
            True,
        )
        store.keep_tasks(controls=["c0"])
        assert store.undo("anna", "a-key") == store.undo("anna", "a-key") == "c0"
        assert walk(store, "anna") == ["c0", "t2"]
        assert "c1" not in walk(store, "ben")
    with LabelStore.open(path) as store:
        assert len(store.snapshot().labels) == 8


def test_a_full_disk_loses_the_answer_that_was_not_acknowledged_and_no_other(folder: Path) -> None:
    with store_of(folder) as store:
        give(store, "anna")
        with store._database.read() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
        given = store.next_task("anna")
        assert given is not None
        with pytest.raises(DiskError, match="no space"):
            store.submit("anna", given.task.id, answer(comment="x" * 10_000))
        assert len(store.snapshot().labels) == 1
        store.submit("anna", given.task.id, answer())
        assert len(store.snapshot().labels) == 2


def test_a_store_that_somebody_holds_for_too_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.labels.store.database.BUSY_SECONDS", 0.05)
    with store_of(folder) as store, LabelStore.open(store.path) as other, store.batch():
        store.add_annotator("carl")
        assert "carl" not in other.annotators(), "others read what stood before"
        with pytest.raises(LockedError):
            other.add_annotator("dora")


@pytest.mark.parametrize("removed", [False, True])
def test_one_server_at_a_time(folder: Path, removed: bool) -> None:
    program = (
        "import sys; from pathlib import Path; from pipelines.errors import LockedError\n"
        "from pipelines.labels.store.store import LabelStore\n"
        "try:\n"
        "    with LabelStore.open(Path(sys.argv[1])) as store, store.served(): print('served')\n"
        "except LockedError as error: print(error.message)\n"
    )
    command = [sys.executable, "-c", program, str(folder / "labels.sqlite")]
    with store_of(folder) as store:
        with store.served():
            if removed and sys.platform == "linux":
                (folder / "labels.sqlite.lock").unlink()
            busy = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        free = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (busy, free) == ("another label page serves this store\n", "served\n")


def test_a_batch_is_whole_or_nothing(folder: Path) -> None:
    with store_of(folder) as store:

        def broken_off() -> None:
            with store.batch():
                give(store, "anna")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            broken_off()
        assert store.snapshot().labels == []
        with store.batch():
            give(store, "anna")
            with pytest.raises(DataError):  # undone alone, not with the rest
                store.add_tasks([task_of("new"), task_of("wrong", answers=1)])
            give(store, "anna")
        assert len(store.snapshot().labels) == 2
        assert "new" not in store.snapshot().tasks
