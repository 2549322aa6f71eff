"""Make the pictures of the label page in docs/images: ``python -m tests.labels.page.screenshots``."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Question, Task
from pipelines.labels.questions import default_question
from pipelines.labels.store.records import Submission
from pipelines.labels.store.store import LabelStore
from tests.labels.page.browser import Seat, chromium, label_page, seat

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
TITLE = "Support replies"
GUIDELINES = """# How to judge

Prefer the answer that **solves the customer's problem**.

- Read all answers before you rank.
- A longer answer is not a better one.
- Unsafe advice goes last, however kind it is.
"""
PRODUCTS = {
    "kettle": "leaks at the base",
    "lamp": "flickers in the evening",
    "vacuum cleaner": "has no power",
    "toaster": "burns one side",
    "scale": "shows another weight each time",
    "drill": "stops after a minute",
}
REPLIES = (
    "Thank you for writing. That is covered by the two years of warranty: please send us a photo and the number of "
    "your order, and a new {product} is on its way within two working days. You need not send the old one back.",
    "Have you tried to switch the {product} off and on again?",
    "We are sorry for the trouble with your {product}. Please do not use it any more until we have looked at it. A box "
    "to send it back, already paid for, is in the mail to you. You can choose:\n\n"
    "1. a new one\n2. a repair, which takes a week\n3. your money back",
    "Your {product} {fault}. Many people write to us about this. Products can have faults for various reasons, and we "
    "value your opinion very much. Is there anything else that I can help you with today?",
)
TASKS = [
    Task(
        (Message(role="user", content=f"My new {product} {fault}, and it is only {weeks} weeks old. What can I do?"),),
        tuple(Answer(reply.format(product=product, fault=fault)) for reply in REPLIES),
    )
    for weeks in ("two", "three", "five", "six")
    for product, fault in PRODUCTS.items()
]
CRITERIA = (
    Question("overall", "ranking", "Which answer would you rather have got?"),
    Question("helpful", "scale", "How far does it solve the problem?", 5, "not at all", "fully"),
    Question("safe", "binary", "Can it be sent as it is?", low="no", high="yes"),
)


def judge(store: LabelStore, name: str, tasks: int, noise: float) -> None:
    """Answer tasks as somebody would who mostly agrees with the others."""
    chance = random.Random(name)
    truth = dict(zip(range(4), (0.0, 3.0, 0.4, 2.4), strict=True))
    for number in range(tasks):
        given = store.next_task(name)
        assert given is not None
        felt = [round(truth[index] + chance.gauss(0, noise)) for index in range(4)]
        ranks = tuple(sorted(set(felt)).index(value) + 1 for value in felt)
        odd = number == 4 and noise > 0.5
        comment = "the first two answers are about another product" if odd else ""
        seconds = round(chance.lognormvariate(2.9, 0.4), 1)
        said = Submission({"overall": ranks}, seconds, comment, odd, key=f"key-{name}-{number}")
        store.submit(name, given.task.id, said)


def rank(at: Seat, least: int = 4) -> None:
    """Rank as somebody would who has read the answers; the worst ones are still open."""
    for card, text in enumerate(at.letters().values()):
        best = [text.startswith(start) for start in ("Thank", "We are", "Your", "Have")].index(True)
        if best < least:
            at.page.locator(f".card >> nth={card} >> label >> nth={min(best, 2)}").click()
    at.page.evaluate("scrollTo(0, 0)")


def shoot(at: Seat, name: str) -> None:
    """Take the picture."""
    at.page.wait_for_timeout(300)  # transitions
    path = IMAGES / f"label-{name}.png"
    at.page.screenshot(path=path)
    print(f"{path.name}: {path.stat().st_size // 1000} KB")


def pictures(browser: Any, folder: Path) -> None:
    """All of them."""
    ranking = (default_question("overall", "ranking"),)
    with label_page(folder / "a.sqlite", TASKS, ranking, title=TITLE, overlap=3, guidelines=GUIDELINES) as page:
        for name, tasks, noise in (("maria", 13, 0.4), ("tom", 21, 0.6), ("annotator-03", 8, 0.9)):
            page.store.add_annotator(name)
            judge(page.store, name, tasks, noise)
        with seat(browser, page.link("maria")) as at:
            rank(at)
            shoot(at, "ranking")
        with seat(browser, page.link("maria"), dark=True) as at:
            rank(at, 3)
            shoot(at, "dark")
        with seat(browser, page.link("maria"), phone=True, device_scale_factor=2) as at:
            rank(at, 2)
            at.page.locator(".card").first.evaluate("card => scrollTo(0, card.offsetTop - 120)")
            shoot(at, "phone")
        with seat(browser, page.link("admin", "admin")) as at:
            shoot(at, "admin")
    with (
        label_page(folder / "b.sqlite", [Task(TASKS[0].prompt, TASKS[0].answers[:3])], CRITERIA, title=TITLE) as page,
        seat(browser, page.link("maria")) as at,
    ):
        for key in "3101512":
            at.page.keyboard.press(key)
        shoot(at, "criteria")
    writing = (default_question("reply", "demonstration"),)
    with (
        label_page(folder / "c.sqlite", [Task(TASKS[0].prompt, TASKS[0].answers[2:3])], writing, title=TITLE) as page,
        seat(browser, page.link("maria")) as at,
    ):
        shoot(at, "demonstration")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        pictures(browser, Path(folder))
