"""Many at once, and processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from pipelines.labels.store.store import LabelStore
from tests.labels.store.support import answer, store_of

FORK = multiprocessing.get_context("fork")
PEOPLE = tuple(f"person-{number}" for number in range(20))


def _work(store: LabelStore, name: str) -> Iterator[tuple[str, str, str]]:
    """Answer whatever is open; annotator, task and key of every answer, once it is acknowledged."""
    while (given := store.next_task(name)) is not None:
        key = os.urandom(8).hex()
        store.submit(name, given.task.id, answer(given.version, comment=key, key=key))
        yield name, given.task.id, key


def _check(store: LabelStore, acknowledged: list[tuple[str, str, str]], overlap: int) -> None:
    labels = store.snapshot().labels
    found = {(label.annotator, label.task, label.comment) for label in labels}
    assert found == set(acknowledged)
    assert len(found) == len(acknowledged) == len(labels)
    per_task = Counter(label.task for label in labels if label.task.startswith("t"))
    assert set(per_task.values()) == {overlap}


def test_twenty_people_at_once_get_no_task_too_often(folder: Path) -> None:
    with store_of(folder, tasks=30, annotators=PEOPLE, overlap=3, share=0.1, controls=5) as store:
        with ThreadPoolExecutor(len(PEOPLE)) as pool:
            done = [one for found in pool.map(lambda name: list(_work(store, name)), PEOPLE) for one in found]
        assert store.progress().left == 0
        _check(store, done, overlap=3)


def _in_process(path: Path, name: str, out: Connection) -> None:
    with LabelStore.open(path) as store:
        for done in _work(store, name):
            out.send(done)
    out.close()


def _start(path: Path, name: str) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_in_process, args=(path, name, send))
    process.start()
    send.close()
    return process, receive


def _received(connection: Connection) -> Iterator[tuple[str, str, str]]:
    try:
        while True:
            yield connection.recv()
    except EOFError:
        return


def test_several_processes_at_once(folder: Path) -> None:
    store_of(folder, tasks=40, annotators=PEOPLE, overlap=2).close()
    path = folder / "labels.sqlite"
    workers = [_start(path, name) for name in PEOPLE[:4]]
    done = [one for _, connection in workers for one in _received(connection)]
    for process, _ in workers:
        process.join(30)
        assert process.exitcode == 0
    with LabelStore.open(path) as store:
        _check(store, done, overlap=2)


def test_an_answer_acknowledged_is_an_answer_kept_whenever_the_process_is_killed(folder: Path) -> None:
    store_of(folder, tasks=2000, annotators=("anna",)).close()
    path = folder / "labels.sqlite"
    chance = random.Random(5)
    acknowledged: list[tuple[str, str, str]] = []
    for _ in range(20):
        process, connection = _start(path, "anna")
        acknowledged.append(connection.recv())
        time.sleep(chance.uniform(0, 0.02))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += _received(connection)
        process.join(30)
        assert process.exitcode == -signal.SIGKILL, "it was killed at work"
        with LabelStore.open(path) as store:
            kept = {label.comment for label in store.snapshot().labels}
            lost = [key for _, _, key in acknowledged if key not in kept]
            assert lost == []
            # One answer can be on the disk that the killed process had no time to acknowledge.
            assert len(kept) - len(acknowledged) <= 20
            progress = store.progress()
            assert progress.given == len(kept)
            assert progress.annotators[0].done == len(kept)
