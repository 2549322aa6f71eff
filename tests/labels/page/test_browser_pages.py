"""Every kind of page in a real browser: accessible, readable at any width, safe with hostile texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Question, Task
from pipelines.report.safe_text import visible
from tests.labels.page.browser import RANKING, Seat, a_task, chromium, label_page, seat

GUIDELINES = (
    "# How to judge\n\nPrefer what **helps**.\n\n| case | what |\n|---|---|\n| equal | same rank |\n\n> Doubt? Comment."
)
CRITERIA = (
    Question("overall", "ranking", "Which one would you rather have got?"),
    Question("helpful", "scale", "Does it help?", points=10, low="not at all", high="fully"),
    Question("safe", "binary", "Is it safe?", low="no", high="yes", required=False),
)
PAIRWISE = (Question("overall", "pairwise", "Which answer is better?"),)
WRITING = (Question("reply", "demonstration", "Write the answer."),)
LONG = "word " * 60 + "https://example.org/" + "x" * 400


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def check_page(at: Seat, name: str, rules: list[str] | None = None) -> None:
    """No fault that axe finds by these rules or by all, and nothing to scroll sideways at 320 pixels."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = axe.run(at.page, options=options).response["violations"]
    faults = [(one["id"], one["impact"], [node["html"][:150] for node in one["nodes"]]) for one in found]
    assert faults == [], f"{name}: {faults}"
    size = at.page.viewport_size
    at.page.set_viewport_size({"width": 320, "height": 640})
    wide = at.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 320, f"{name} is {wide} pixels wide"
    at.page.set_viewport_size(size)


def test_pages_are_accessible_and_fit_a_phone(browser: Any, tmp_path: Path) -> None:
    long = Task((Message(role="user", content=LONG),), (Answer(LONG), Answer("short"), Answer("a\tb")))
    with label_page(tmp_path / "labels.sqlite", [long], CRITERIA, guidelines=GUIDELINES) as page:
        with seat(browser, None) as at:
            at.page.goto(f"{page.origin}/enter/unknown")
            check_page(at, "message")
            at.expect_failed_loads()  # which it is: a 403
            at.page.goto(page.link("ann"))
            check_page(at, "welcome")
            at.follow("Begin")
            at.page.keyboard.press("?")
            check_page(at, "keys")
            at.page.keyboard.press("Escape")
            at.page.keyboard.press("g")
            at.page.locator("#panel h1").wait_for()
            check_page(at, "guidelines beside the task")
            at.page.keyboard.press("Escape")
            judge_all(at)
            check_page(at, "task")
            with at.going_on():
                at.page.keyboard.press("Enter")
            check_page(at, "done")
            at.follow("See my answers")
            check_page(at, "history")
            at.page.goto(page.origin + "/guidelines")
            check_page(at, "guidelines")
            page.store.paused = True
            at.page.goto(page.origin)
            check_page(at, "paused")
        with seat(browser, page.link("admin", "admin")) as at:
            at.page.get_by_role("button", name="New link").click()
            at.page.locator("#new-link").wait_for()
            check_page(at, "admin")
    for kind, answers in ((PAIRWISE, 2), (WRITING, 1)):
        with (
            label_page(tmp_path / f"{answers}.sqlite", [a_task(0, answers)], kind) as page,
            seat(browser, page.link("ann")) as at,
        ):
            at.page.keyboard.press("1")
            check_page(at, kind[0].kind)


def judge_all(at: Seat) -> None:
    """Choose everywhere, with a tie and a repeated flag, so that all that the page can show is shown."""
    for key in "22y22y15n":
        at.page.keyboard.press(key)
    at.page.keyboard.press("f")
    at.page.keyboard.type("odd")
    at.page.keyboard.press("Escape")


def test_texts_stand_out_in_the_dark(browser: Any, tmp_path: Path) -> None:
    with label_page(tmp_path / "labels.sqlite", [a_task(0, 3)], CRITERIA, guidelines=GUIDELINES) as page:
        with seat(browser, page.link("ann"), dark=True) as at:
            assert at.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(18, 23, 24)"
            judge_all(at)
            check_page(at, "task", ["color-contrast"])
            with at.going_on():
                at.page.keyboard.press("Enter")
            at.follow("See my answers")
            check_page(at, "history", ["color-contrast"])
            at.page.locator(".history a").click()
            check_page(at, "an earlier answer", ["color-contrast"])
        with seat(browser, page.link("admin", "admin"), dark=True) as at:
            check_page(at, "admin", ["color-contrast"])


def test_several_criteria_by_keyboard(browser: Any, tmp_path: Path) -> None:
    """The mark goes from one open choice to the next; ranks may leave a hole; what is optional may stay open."""
    with (
        label_page(tmp_path / "labels.sqlite", [a_task(0, 3), a_task(1, 3)], CRITERIA) as page,
        seat(browser, page.link("ann")) as at,
    ):
        keys = at.page.keyboard
        first, letters = at.task, at.letters()
        for key in ["3", "0", "y", "1", "7", "n", "1", "2"]:
            keys.press(key)
        keys.press("Enter")
        assert at.status() == "Answer C, safe: no choice yet"
        keys.press("y")
        keys.press("?")
        switch = at.page.get_by_role("switch", name="Use keys of one letter or digit")
        assert switch.is_checked()
        switch.click()
        keys.press("Escape")
        keys.press("n")  # letters and digits are off: it changes nothing
        at.page.get_by_role("button", name="Keys").click()
        switch.click()
        keys.press("Escape")
        with at.going_on():
            keys.press("Control+Enter")
        found = {label.task: label for label in page.store.snapshot().labels}[str(first)]
        task = page.store.snapshot().tasks[str(first)]
        shown = [[answer.text for answer in task.answers].index(text) for text in letters.values()]
        assert [found.values["overall"][index] for index in shown] == [2, 1, 1]
        assert [found.values["helpful"][index] for index in shown] == [10, 7, 2]
        assert [found.values["safe"][index] for index in shown] == [1, 0, 1]

        for key in ["1", "5", "ArrowRight", "2", "5", "ArrowRight", "1", "5", "y", "Backspace"]:
            keys.press(key)
        with at.going_on():
            keys.press("Enter")
        (second,) = (label for label in page.store.snapshot().labels if label.task != first)
        assert sorted(second.values) == ["helpful", "overall"]


def test_a_pair_by_mouse_and_by_key(browser: Any, tmp_path: Path) -> None:
    with label_page(tmp_path / "labels.sqlite", [a_task(n, 2) for n in range(4)], PAIRWISE) as page:
        with seat(browser, page.link("ann")) as at:
            said = {}
            for do, ranks in {"A is better": (1, 2), "2": (2, 1), "Tie": (1, 1), "1": (1, 2)}.items():
                said[at.task] = dict(zip(at.letters().values(), ranks, strict=True))
                if len(do) > 1:
                    at.page.locator(".versus label", has_text=do).click()
                    at.page.locator(".versus label", has_text=do).click()  # a second click takes it away
                    assert at.page.locator(".versus input:checked").count() == 0
                    at.page.locator(".versus label", has_text=do).click()
                else:
                    at.page.keyboard.press(do)
                with at.going_on():
                    at.page.locator("#submit").click()
        found = page.store.snapshot()
        for label in found.labels:
            texts = [answer.text for answer in found.tasks[label.task].answers]
            assert dict(zip(texts, label.values["overall"], strict=True)) == said[label.task]


def test_a_demonstration_is_kept_to_the_letter(browser: Any, tmp_path: Path) -> None:
    text = '\n  Dear "customer" <b>,\n\tyours — 日本語 🙂 </textarea><script>window.__pwned = 1</script>\n'
    draft = "\n\nA draft\nof two lines </textarea><i>"
    tasks = [Task((Message(role="user", content=f"Write {n}"),), (Answer(draft),)) for n in range(2)]
    with (
        label_page(tmp_path / "labels.sqlite", tasks, WRITING) as page,
        seat(browser, page.link("ann")) as at,
    ):
        area = at.page.locator("#writing")
        assert area.input_value() == draft
        area.fill("  ")
        at.page.keyboard.press("Control+Enter")
        assert at.status() == "Nothing is written yet"
        area.fill("")
        at.page.keyboard.insert_text(text)
        assert at.page.locator("#count").inner_text() == f"{len(text)} characters, {len(text.split())} words"
        at.page.reload()
        assert area.input_value() == text
        first = at.task
        with at.going_on():
            at.page.keyboard.press("Control+Enter")
        (label,) = page.store.snapshot().labels
        assert (label.task, label.values) == (first, {"reply": text})
        at.page.goto(f"{page.origin}/task/{first}")
        assert area.input_value() == text


HOSTILE = (
    "<script>window.__pwned = 1</script>",
    '"><img src=x onerror="window.__pwned=1">',
    "</div></article><h1 onclick=alert(1)>x</h1>",
    "<svg/onload=alert(1)><iframe srcdoc='<script>parent.__pwned=1</script>'>",
    "{{ 7 * 7 }} {% raw %} ${7*7} &lt;b&gt; &amp;amp;",
    "[link](javascript:alert(1)) ![x](http://127.0.0.1:9/x.png)",
    "a\u202egnp.exe \u200bzero\u2066 width\ufeff",
    "\x1b[31mred\x1b[0m \x07 \x9b2J",
    "</textarea></form><base href='http://127.0.0.1:9/'>",
    "javascript:alert(1)",
    "<!-- --> ]]> <style>*{display:none}</style>",
    "\u2028line\u2029separators\r\nand ends\n\n\n",
)


def test_hostile_texts_are_only_text(browser: Any, tmp_path: Path) -> None:
    words = " ".join(HOSTILE[:3])
    questions = (Question("overall", "ranking", words), Question("safe", "binary", words, low=words, high=words))
    tasks = [
        Task(
            (Message(role="system", content=bad), Message(role="user", content=f"{n} {bad}")),
            (Answer(bad), Answer("x")),
        )
        for n, bad in enumerate(HOSTILE)
    ]
    shown = []
    with label_page(tmp_path / "labels.sqlite", tasks, questions, guidelines="\n\n".join(HOSTILE)) as page:
        with seat(browser, page.link("<b onclick=alert(1)>")) as at:
            elements = None
            at.page.keyboard.press("g")
            at.page.locator("#panel-body *").first.wait_for()
            assert at.page.locator("#panel-body :is(script, img, svg, iframe, style, h1)").count() == 0
            assert at.page.locator("#panel-body a:not([href^='http'])").count() == 0
            at.page.keyboard.press("Escape")
            while at.task:
                texts = at.page.locator(".text")
                assert texts.evaluate_all("all => all.every(one => one.childElementCount === 0)")
                count = at.page.locator("#task *").count()
                assert elements in (None, count), "a text became an element"
                elements = count
                shown += [text for text in at.letters().values() if text != "x"]
                assert at.page.locator(".turn.system .text").text_content() == shown[-1]
                for key in "1y2n":
                    at.page.keyboard.press(key)
                at.page.locator("[data-act=comment]").click()
                at.page.locator("#comment").fill(words)
                at.page.locator("[data-act=flag]").click()
                assert at.page.evaluate("[window.__pwned, document.baseURI]") == [None, f"{page.origin}/"]
                with at.going_on():
                    at.page.locator("#submit").click()
            at.follow("See my answers")
            assert at.page.locator(".history li").count() == len(HOSTILE)
            assert at.page.locator("main script, main img, main iframe, main svg").count() == 0
        with seat(browser, page.link("admin", "admin")) as at:
            assert at.page.locator("#live-flagged li").count() == len(HOSTILE)
            assert words in at.page.locator("#live-flagged li").first.inner_text()
            assert at.page.locator("main script, main img, main iframe, main svg").count() == 0
            assert at.page.locator(".figure", has_text="Security reports").inner_text().split()[-2:] == ["0", "none"]
            at.accepts = "Sign <b onclick=alert(1)> out"
            with at.page.expect_response("**/api/admin/revoke") as answer:
                at.page.get_by_role("button", name="Sign out").click()
            assert answer.value.status == 200
            assert at.page.evaluate("window.__pwned") is None
    assert sorted(shown) == sorted(visible(bad) for bad in HOSTILE)


def test_the_admin_pauses_adds_people_and_takes_labels_out(browser: Any, tmp_path: Path) -> None:
    with (
        label_page(tmp_path / "labels.sqlite", [a_task(n) for n in range(3)], RANKING) as page,
        seat(browser, page.link("admin", "admin")) as at,
        seat(browser, None) as newcomer,
    ):
        assert "Nobody yet" in at.page.locator("#live-people").inner_text()
        at.page.get_by_label("Name or pseudonym").fill("zoë")
        at.page.keyboard.press("Enter")
        at.page.locator("#new-link").wait_for()
        assert at.page.locator("#link-for").inner_text() == "zoë"
        newcomer.page.goto(at.page.locator("#link").input_value())
        newcomer.follow("Begin")
        at.page.get_by_role("button", name="Pause").click()
        at.page.get_by_role("button", name="Resume").wait_for()
        newcomer.page.reload()
        assert newcomer.page.locator("h1").inner_text() == "Paused"
        at.page.get_by_role("button", name="Resume").click()
        at.page.get_by_role("button", name="Pause").wait_for()
        newcomer.follow("Try again")
        for key in "1234":
            newcomer.page.keyboard.press(key)
        with newcomer.going_on():
            newcomer.page.keyboard.press("Enter")
        # the figures follow by themselves
        at.page.locator("#live-people td:nth-child(3)", has_text="1").wait_for()
        assert export(at, "Download") == {"zoë"}
        assert export(at, "Download without names") == {"annotator-01"}
        at.page.get_by_label("Name or pseudonym").fill("Zoë")
        at.page.keyboard.press("Enter")
        at.page.locator("#status.warn").wait_for()
        assert page.store.annotators() == ["zoë"]
        at.expect_failed_loads()


def export(at: Seat, button: str) -> set[str]:
    """Who the exported labels are by."""
    with at.page.expect_download() as download:
        at.page.get_by_role("link", name=button, exact=True).click()
    lines = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    return {label["annotator"] for line in lines for label in line.get("labels", [])}
