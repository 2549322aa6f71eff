"""A label page without a network, and people who use it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Question, Task
from pipelines.labels.page.app import make_app
from pipelines.labels.store.records import Role, Settings
from pipelines.labels.store.store import LabelStore

ORIGIN = "http://127.0.0.1:8765"
POST = {"Origin": ORIGIN, "X-RLHF": "1", "Sec-Fetch-Site": "same-origin"}
RANKING = (Question("overall", "ranking", "Which is best?"),)
_KEYS = itertools.count()


def make_task(name: str, answers: Sequence[str] = ("one", "two", "three"), **more: Any) -> Task:
    prompt = (Message(role="user", content=f"prompt {name}"),)
    return Task(prompt, tuple(Answer(f"{name} {text}", f"secret-model-{text}") for text in answers), **more)


def make_store(path: Path, tasks: Sequence[Task] | None = None, **settings: Any) -> LabelStore:
    given: dict[str, Any] = {"title": "My project", "questions": RANKING, "overlap": 2}
    store = LabelStore.create(path / "labels.sqlite", Settings(**given | settings))
    store.add_tasks(tasks if tasks is not None else [make_task(name) for name in ("first", "second", "third")])
    for name in ("ann", "bo"):
        store.add_annotator(name)
    return store


class Person:
    """A browser of one person, who has come in by a link; without a name nobody has."""

    def __init__(self, store: LabelStore, name: str | None = None, role: Role = "annotator", app: Any = None) -> None:
        self.store = store
        self.name = name
        self.browser = TestClient(app or make_app(store, origins=[ORIGIN]), base_url=ORIGIN, follow_redirects=False)
        if name is not None:
            assert self.browser.get(f"/enter/{store.login_token(name, role)}").status_code == 200

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.browser.get(path, **kwargs)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> Any:
        headers = {**POST, **kwargs.pop("headers", {})}
        return self.browser.post(path, json={} if body is None else body, headers=headers, **kwargs)

    def open_task(self) -> tuple[str, int, list[str]]:
        """Id and version of the task on the screen, and the answers by shown place."""
        page = self.get("/").text
        form = re.search(r'data-task="(\w+)" data-version="(\d+)"', page)
        assert form is not None, page
        texts = re.findall(r'<div class="text" dir="auto">([^<]*)</div>', page)
        return form[1], int(form[2]), texts[-3:]

    def undo(self, key: str | None = None) -> Any:
        return self.post("/api/undo", {"key": key or f"undo-{next(_KEYS):08d}"})

    def submit(self, task: str, version: int = 0, **more: Any) -> Any:
        body = {"task": task, "version": version, "key": f"key-{next(_KEYS):08d}", "values": {"overall": [1, 2, 3]}}
        return self.post("/api/submit", body | more)
