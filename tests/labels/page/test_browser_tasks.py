"""Tasks in a real browser: the controls in sight, what the bar says, times, directions of text, Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Question, Task
from tests.labels.page.browser import Seat, a_task, chromium, label_page, seat
from tests.labels.page.test_browser_pages import check_page

PAIRWISE = (Question("overall", "pairwise", "Which answer is better?"),)
SAFE = Question("safe", "binary", "Is it safe?")
LONG = "\n\n".join(f"Paragraph {number}. " + "word " * 80 for number in range(30))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def task_of(*answers: str, turns: tuple[str, ...] = ("Question?",)) -> Task:
    roles = ("user", "assistant")
    prompt = tuple(Message(role=roles[place % 2], content=text) for place, text in enumerate(turns))  # type: ignore[arg-type]
    return Task(prompt, tuple(Answer(text, "model") for text in answers))


@contextmanager
def opened(browser: Any, path: Path, *page_of: Any, phone: bool = False, **more: Any) -> Iterator[Seat]:
    """A page with these tasks and questions, and an annotator before it."""
    with (
        label_page(path / "labels.sqlite", *page_of, **more) as page,
        seat(browser, page.link("ann"), phone=phone) as at,
    ):
        yield at


def bar(at: Seat) -> str:
    return " ".join(at.page.locator("#order").inner_text().split())


def in_sight(at: Seat, selector: str) -> bool:
    """Whether the whole element is inside the window, and is what a click on it would meet."""
    return bool(
        at.page.locator(selector).first.evaluate(
            """element => {
                const box = element.getBoundingClientRect();
                const hit = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
                return box.top >= 0 && box.bottom <= innerHeight && element.contains(hit);
            }"""
        )
    )


@pytest.mark.parametrize(("key", "word"), [("y", "yes"), ("0", "no")])
def test_the_bar_shows_a_choice_of_a_single_answer(browser: Any, tmp_path: Path, key: str, word: str) -> None:
    with (
        label_page(tmp_path / "l.sqlite", [task_of("Answer.")], (SAFE,)) as page,
        seat(browser, page.link("ann")) as at,
    ):
        assert bar(at) == "no choice yet"
        at.page.keyboard.press(key)
        assert bar(at) == word
        at.page.keyboard.press("Backspace")
        assert bar(at) == "no choice yet"


def test_the_bar_shows_the_choices_of_the_question_answered_last(browser: Any, tmp_path: Path) -> None:
    questions = (SAFE, Question("clear", "scale", "Is it clear?"))
    with (
        label_page(tmp_path / "l.sqlite", [task_of("One.", "Two.")], questions) as page,
        seat(browser, page.link("ann")) as at,
    ):
        at.page.keyboard.press("y")
        assert bar(at) == "Safe A yes 1 of 4 given"
        at.page.keyboard.press("4")
        assert bar(at) == "Clear A 4 2 of 4 given"
        at.page.keyboard.press("n")
        assert bar(at) == "Safe A yes B no 3 of 4 given"
        at.page.reload()
        assert bar(at) == "Safe A yes B no 3 of 4 given"


@pytest.mark.parametrize("phone", [False, True])
@pytest.mark.parametrize(
    ("questions", "answers", "control"),
    [
        (PAIRWISE, 2, ".verdict"),
        ((SAFE,), 1, ".card .controls"),
        ((SAFE, Question("clear", "scale", "Is it clear?")), 2, ".card .controls"),
    ],
)
def test_the_controls_of_a_long_task_stay_in_sight(
    browser: Any, tmp_path: Path, questions: Any, answers: int, control: str, phone: bool
) -> None:
    long = task_of(*(f"{place}: {LONG}" for place in range(answers)))
    with (
        label_page(tmp_path / "l.sqlite", [long], questions) as page,
        seat(browser, page.link("ann"), phone=phone) as at,
    ):
        at.page.locator(".sticks").first.wait_for()
        height = at.page.evaluate("document.documentElement.scrollHeight")
        assert height > 3000
        card = at.page.locator(".card").first.evaluate("card => card.getBoundingClientRect().bottom + scrollY")
        for share in (0.1, 0.3, 0.6):
            at.page.evaluate(f"scrollTo(0, {share * card})")
            assert in_sight(at, control), share
        check_page(at, "long task")


def test_long_earlier_turns_are_collapsed_and_a_key_shows_them(browser: Any, tmp_path: Path) -> None:
    talk = task_of("One.", "Two.", turns=(f"First. {LONG}", f"Second. {LONG}", "Last?"))
    short = task_of("Three.", "Four.", turns=("First.", "Second.", "Last?"))
    with (
        label_page(tmp_path / "l.sqlite", [talk, short], PAIRWISE) as page,
        seat(browser, page.link("ann")) as at,
    ):
        for _ in range(2):
            turns = at.page.locator(".turn .text")
            assert turns.count() == 3
            if not at.page.locator("#earlier").count():
                assert all(turn.is_visible() for turn in turns.all())
            else:
                assert [turn.is_visible() for turn in turns.all()] == [False, False, True]
                assert in_sight(at, ".verdict")
                at.page.keyboard.press("e")
                assert all(turn.is_visible() for turn in turns.all())
                at.page.reload()
                assert turns.first.is_visible(), "it stays as it was left"
                at.page.locator("#earlier summary").click()
                assert not turns.first.is_visible()
            at.page.keyboard.press("1")
            with at.going_on():
                at.page.keyboard.press("Enter")
        assert at.page.locator("h1").inner_text() == "All done, thank you"


def test_flag_and_skip_are_two_keys(browser: Any, tmp_path: Path) -> None:
    with label_page(tmp_path / "l.sqlite", [a_task(1), a_task(2)]) as page:
        with seat(browser, page.link("ann")) as at:
            first = at.task
            at.page.keyboard.press("f")
            assert at.page.locator("#comment").is_visible()
            with at.going_on():
                at.page.keyboard.press("s")
            assert at.page.locator(".figures").inner_text() == "0 done · 1 left · 1 skipped"
            at.page.keyboard.press("f")
            at.page.keyboard.press("c")
            at.page.keyboard.type("fsfs")
            assert at.page.locator("#comment").input_value() == "fsfs"
        (label,) = page.store.snapshot().labels
        assert (label.task, label.flagged, label.skipped, label.comment) == (first, True, True, "")


def test_times_are_in_the_zone_of_the_reader(browser: Any, tmp_path: Path) -> None:
    with label_page(tmp_path / "l.sqlite", [a_task(1, 2)], PAIRWISE) as page:
        with seat(browser, page.link("ann")) as at:
            at.page.keyboard.press("1")
            with at.going_on():
                at.page.keyboard.press("Enter")
        (label,) = page.store.snapshot().labels
        for zone, role in (("Asia/Tokyo", "annotator"), ("America/New_York", "admin")):
            link = page.link("ann" if role == "annotator" else "admin", role)  # type: ignore[arg-type]
            with seat(browser, link, timezone_id=zone, locale="en-GB") as at:
                if role == "annotator":
                    at.page.goto(page.origin + "/history")
                wanted = at.page.evaluate(
                    """([utc, zone]) => new Intl.DateTimeFormat("en-GB", {
                        dateStyle: "medium", timeStyle: "short", timeZone: zone }).format(new Date(utc))""",
                    [label.time, zone],
                )
                time = at.page.locator("time")
                assert (time.inner_text(), time.get_attribute("datetime")) == (wanted, label.time)
                if role == "admin":
                    page.store.add_annotator("bo")
                    at.page.get_by_role("rowheader", name="bo").wait_for()
                    assert time.inner_text() == wanted, "after the figures were fetched anew"


def test_the_table_of_annotators_scrolls_on_a_phone_and_the_names_stay(browser: Any, tmp_path: Path) -> None:
    with label_page(tmp_path / "l.sqlite", [a_task(1)]) as page:
        page.store.add_annotator("somebody with quite a long name")
        with seat(browser, page.link("admin", "admin"), phone=True) as at:
            sign_out = at.page.get_by_role("button", name="Sign out").first
            scroller = at.page.locator(".scroller")
            name = at.page.locator(".people tbody th").first
            before = name.bounding_box()
            assert not in_sight(at, ".people .danger")
            scroller.evaluate("box => box.scrollBy(10000, 0)")
            sign_out.scroll_into_view_if_needed()
            assert in_sight(at, ".people .danger")
            assert (name.bounding_box() or {})["x"] == (before or {})["x"] >= 0
            assert at.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_each_paragraph_has_its_own_direction(browser: Any, tmp_path: Path) -> None:
    hebrew = "שלום עולם"
    talk = task_of(f"{hebrew}\n\nThen English.", "English.", turns=(hebrew,))
    question = Question("overall", "pairwise", hebrew)
    with (
        label_page(tmp_path / "l.sqlite", [talk], (question,), title=hebrew) as page,
        seat(browser, page.link("ann")) as at,
    ):
        start = """element => {
            const range = document.createRange(), text = element.firstChild;
            range.setStart(text, 0); range.setEnd(text, 4);
            const box = element.getBoundingClientRect(), at = range.getBoundingClientRect();
            return at.left - box.left > box.right - at.right ? "rtl" : "ltr";
        }"""
        letters = at.letters()
        for letter, text in letters.items():
            card = at.page.locator(f".card[data-letter={letter}] .text")
            assert card.evaluate(start) == ("rtl" if text.startswith(hebrew) else "ltr")
        assert at.page.locator(".prompt .text").evaluate(start) == "rtl"
        assert at.page.locator("h1").evaluate("h => getComputedStyle(h).direction") == "rtl"
        at.page.keyboard.press("c")
        at.page.keyboard.type(hebrew)
        assert at.page.locator("#comment").evaluate("area => area.matches(':dir(rtl)')")
        check_page(at, "right to left")


HOSTILE = (
    "# Big\n\nSome **bold** text\nand ~~a~~ line.\n\n```python\nprint('<b>')\n```\n\n| a | b |\n|:-:|---|\n| 1 | 2 |\n"
    "\n<script>window.evil = 1</script> <img src=x onerror='window.evil=2'> ![x](http://evil.example/x.png) "
    "[link](javascript:window.evil=3) [site](https://evil.example) <https://evil.example> \u202etxt"
)


@pytest.mark.parametrize("markdown", [False, True])
def test_markdown_is_rendered_only_on_request_and_is_harmless(browser: Any, tmp_path: Path, markdown: bool) -> None:
    hostile = task_of(HOSTILE, "Two.", turns=(HOSTILE,))
    with opened(browser, tmp_path, [hostile], PAIRWISE, markdown=markdown) as at:
        for box in (at.page.locator(".prompt .text"), at.page.locator(".card .text", has_text="Some")):
            counts = {tag: box.locator(tag).count() for tag in ("h4", "strong", "s", "pre code", "table", "br")}
            assert counts == dict.fromkeys(counts, 0) | (
                {"h4": 1, "strong": 1, "s": 1, "pre code": 1, "table": 1, "br": 1} if markdown else {}
            )
            assert box.locator("a, img, script, [style], [onerror]").count() == 0
            words = box.inner_text()
            for part in ("<script>", "<img src=x", "javascript:window.evil=3", "https://evil.example", "⟨U+202E⟩"):
                assert part in words
        assert at.page.evaluate("window.evil") is None
        check_page(at, "markdown")
