"""A label page that is really served, and somebody who sits before it, for the tests in a browser."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Question, Task
from pipelines.labels.page.app import make_app
from pipelines.labels.page.serve import bind, origins_of
from pipelines.labels.store.records import Role, Settings
from pipelines.labels.store.store import LabelStore

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)
RANKING = (Question("overall", "ranking", "Rank the answers from best to worst."),)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; the test is skipped where none is installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with sync_api.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def a_task(number: int, answers: int = 4) -> Task:
    """A task whose texts say by themselves which they are."""
    texts = [f"Answer {letter} to question {number}." for letter in "klmnop"[:answers]]
    return Task((Message(role="user", content=f"Question {number}?"),), tuple(Answer(text, "model") for text in texts))


@dataclass
class LabelPage:
    """A store and its server."""

    store: LabelStore
    origin: str

    def link(self, name: str, role: Role = "annotator") -> str:
        """A fresh one-time link."""
        if role == "annotator" and name not in self.store.annotators():
            self.store.add_annotator(name)
        return f"{self.origin}/enter/{self.store.login_token(name, role)}"


@contextmanager
def label_page(
    path: Path,
    tasks: Sequence[Task],
    questions: tuple[Question, ...] = RANKING,
    *,
    title: str = "Test <project>",
    markdown: bool = False,
    **settings: Any,
) -> Iterator[LabelPage]:
    """Serve a new store on a free port, in a thread."""
    import uvicorn

    store = LabelStore.create(path, Settings(title, questions, **settings))
    store.add_tasks(tasks)
    listener = bind("127.0.0.1", 0)
    origins = origins_of("127.0.0.1", listener.getsockname()[1])
    app = make_app(store, origins=origins, markdown=markdown)
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield LabelPage(store, origins[0])
    finally:
        server.should_exit = True
        thread.join()
        store.close()


@dataclass
class Seat:
    """One annotator before one browser window.

    Attributes:
        page: playwright's page.
        faults: what the browser complained about: errors of scripts, refused content, dialogs.
        accepts: what dialogs are expected; they are answered with yes.
    """

    page: Any
    faults: list[str] = field(default_factory=list)
    accepts: str = "nothing"

    def __post_init__(self) -> None:
        def tell(message: Any) -> None:
            if message.type in ("error", "warning"):
                self.faults.append(message.text)

        def answer(dialog: Any) -> None:
            if self.accepts in dialog.message:
                dialog.accept()
            else:
                self.faults.append(f"dialog: {dialog.message}")
                dialog.dismiss()

        self.page.on("console", tell)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", answer)

    def letters(self) -> dict[str, str]:
        """Text of each answer by its letter, as they are to be read on the screen."""
        cards = self.page.locator(".card")
        pairs = cards.evaluate_all("all => all.map(c => [c.dataset.letter, c.querySelector('.text').textContent])")
        return dict(pairs)

    @property
    def task(self) -> str | None:
        """Id of the task on the screen."""
        form = self.page.locator("#task")
        return str(form.get_attribute("data-task")) if form.count() else None

    def ranks(self) -> list[int]:
        """The rank that is chosen for each card."""
        chosen = self.page.locator(".card input:checked")
        return [int(value) for value in chosen.evaluate_all("all => all.map(one => one.value)")]

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """What is done inside leads to another page."""
        with self.page.expect_navigation(wait_until="load"):
            yield

    def follow(self, link: str) -> None:
        """Click a link by its words."""
        with self.going_on():
            self.page.get_by_role("link", name=link).first.click()

    def expect_failed_loads(self) -> None:
        """The browser complained of requests that were refused or never answered, and of nothing else."""
        assert all(fault.startswith("Failed to load resource") for fault in self.faults), self.faults
        self.faults.clear()

    def status(self) -> str:
        """The words in the bar."""
        return str(self.page.locator("#status").inner_text())


@contextmanager
def seat(browser: Any, link: str | None, *, phone: bool = False, dark: bool = False, **more: Any) -> Iterator[Seat]:
    """A browser of its own, which has followed the link and begun.

    Raises:
        AssertionError: at the end, where the browser complained about anything.
    """
    context = browser.new_context(
        viewport={"width": 360, "height": 740} if phone else {"width": 1280, "height": 960},
        has_touch=phone,
        is_mobile=phone,
        color_scheme="dark" if dark else "light",
        **more,
    )
    context.set_default_timeout(30_000)
    found = Seat(context.new_page())
    if link:
        found.page.goto(link)
        found.follow("To the admin page" if found.page.get_by_text("signed in as the admin").count() else "Begin")
    yield found
    context.close()
    assert found.faults == []
