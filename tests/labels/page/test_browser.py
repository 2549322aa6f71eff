"""People before the label page, in a real browser: what is stored is what they clicked."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines.labels.label_types import Question
from tests.labels.page.browser import LabelPage, Seat, a_task, chromium, label_page, seat

PEOPLE = {"keyboard": {}, "mouse": {}, "phone": {"phone": True}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@dataclass
class Said:
    """What somebody said of a task, as the test saw it on the screen."""

    ranks: dict[str, int] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    comment: str = ""
    flagged: bool = False
    skipped: bool = False


class Hands:
    """How somebody works the page: keys, a mouse, or a thumb."""

    def __init__(self, kind: str, at: Seat) -> None:
        self.kind = kind
        self.at = at
        self.page = at.page

    def choose(self, picks: list[int], start: int = 0) -> None:
        for place, pick in enumerate(picks, start):
            if self.kind == "keyboard":
                full = len(self.at.ranks()) == len(self.at.letters())
                self.page.keyboard.press(str(pick))
                if full:  # the mark goes on by itself only to an answer without a rank
                    self.page.keyboard.press("ArrowRight")
            elif (self.at.page.locator(f".card >> nth={place}").locator(f"input[value='{pick}']")).is_checked():
                continue  # a second click would take it away
            else:
                self.touch(f".card >> nth={place} >> .segments label >> nth={pick - 1}")

    def touch(self, selector: str) -> None:
        spot = self.page.locator(selector)
        spot.tap() if self.kind == "phone" else spot.click()

    def act(self, name: str) -> None:
        keys = {"submit": "Enter", "skip": "s", "undo": "u", "flag": "f", "comment": "c"}
        if self.kind == "keyboard":
            self.page.keyboard.press(keys[name])
        else:
            self.touch("#submit" if name == "submit" else f"[data-act={name}]")

    def write(self, text: str) -> None:
        """A comment; its field is open and has the focus."""
        self.page.keyboard.type(text)
        if self.kind == "keyboard":
            self.page.keyboard.press("Escape")

    def go(self, link: str) -> None:
        """Follow a link."""
        spot = self.page.get_by_role("link", name=link).first
        with self.at.going_on():
            if self.kind == "keyboard":
                spot.press("Enter")
            elif self.kind == "phone":
                spot.tap()
            else:
                spot.click()


def in_words(letters: list[str], picks: list[int]) -> str:
    """The order as the bar shows it."""
    groups = [" = ".join(sorted(a for a, p in zip(letters, picks, strict=True) if p == q)) for q in sorted(set(picks))]
    return " > ".join(groups)


def say(at: Seat, hands: Hands, picks: list[int]) -> Said:
    """Rank what is on the screen, and check that the bar shows it."""
    shown = at.letters()
    hands.choose(picks)
    assert " ".join(at.page.locator("#order").inner_text().split()) == in_words(list(shown), picks)
    distinct = sorted(set(picks))
    ranks = {text: distinct.index(pick) + 1 for text, pick in zip(shown.values(), picks, strict=True)}
    return Said(ranks, list(shown.values()))


def work_through(at: Seat, hands: Hands, tasks: int, chance: random.Random) -> dict[str, Said]:
    """Judge all tasks, with everything that people do on the way."""
    said: dict[str, Said] = {}
    for number in range(tasks):
        assert (
            at.page.locator(".figures")
            .inner_text()
            .startswith(f"{number - (number > 2)} done · {tasks - number} left" + " · 1 skipped" * (number > 2))
        )
        question = at.page.locator(".prompt .text").inner_text()
        picks = [1] * 4 if number == 1 else [chance.randint(1, 4) for _ in range(4)]
        if number == 2:
            said[question] = Said(shown=list(at.letters().values()), skipped=True)
            with at.going_on():
                hands.act("skip")
            continue
        if number == 5:  # the browser is closed and opened again in the middle of it
            hands.choose(picks[:2])
            at.page.reload()
            assert at.ranks() == picks[:2]
            hands.choose(picks[2:], start=2)
            hands.page.locator("#order").get_by_text(f"of {4} given").wait_for(state="detached")
        said[question] = say(at, hands, picks)
        if number == 3:
            hands.act("flag")
            hands.act("comment")
            hands.write(f'odd: <b>"{hands.kind}"')
            said[question].flagged, said[question].comment = True, f'odd: <b>"{hands.kind}"'
        assert at.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing to scroll sideways"
        with at.going_on():
            if number == 0 and hands.kind != "keyboard":
                at.page.locator("#submit").dblclick()
            else:
                hands.act("submit")
        if number == 4:  # too fast: back, where the old choice stands, and another one
            with at.going_on():
                hands.act("undo")
            assert at.page.locator(".prompt .text").inner_text() == question
            assert at.ranks() == picks
            said[question] = say(at, hands, [5 - pick for pick in picks])
            with at.going_on():
                hands.act("submit")
    assert at.page.locator("h1").inner_text() == "No task is left", "one was skipped"
    return said


def edit_an_earlier_one(at: Seat, hands: Hands, said: dict[str, Said]) -> None:
    """Through the list of one's answers to the one where all were tied."""
    question = next(asked for asked, given in said.items() if set(given.ranks.values()) == {1})
    hands.go("See my answers")
    hands.go(question)
    assert at.ranks() == [1, 1, 1, 1]
    assert list(at.letters().values()) == said[question].shown
    said[question] = say(at, hands, [4, 3, 2, 1])
    with at.going_on():
        hands.act("submit")


@pytest.mark.parametrize("tasks", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_what_the_store_holds_is_what_three_people_clicked(browser: Any, tmp_path: Path, tasks: int) -> None:
    """Keys only, mouse only, and a phone; every answer is known by its text, since each sees another order."""
    said: dict[str, dict[str, Said]] = {}
    with label_page(tmp_path / "labels.sqlite", [a_task(n) for n in range(tasks)], overlap=3) as page:
        for kind, device in PEOPLE.items():
            with seat(browser, page.link(kind), **device) as at:
                hands = Hands(kind, at)
                said[kind] = work_through(at, hands, tasks, random.Random(kind))
                edit_an_earlier_one(at, hands, said[kind])
        found = page.store.snapshot()
        check_admin(browser, page, tasks)
    assert len(found.labels) == 3 * tasks
    for label in found.labels:
        task = found.tasks[label.task]
        texts = [answer.text for answer in task.answers]
        given = said[label.annotator][task.prompt[0].content]
        ranks = dict(zip(texts, label.values["overall"], strict=True)) if label.values else {}
        assert Said(ranks, [texts[i] for i in label.order], label.comment, label.flagged, label.skipped) == given
        assert label.seconds is not None
        assert 0 <= label.seconds < 60
    orders = {label.order for label in found.labels}
    assert len(orders) > 6, "the answers were not shuffled"


def check_admin(browser: Any, page: LabelPage, tasks: int) -> None:
    """The admin page tells the same story."""
    with seat(browser, page.link("admin", "admin")) as at:
        for name in PEOPLE:
            cells = at.page.get_by_role("row", name=name).locator("td").all_inner_texts()
            assert cells[1:5] == [str(tasks - 1), "0", "1", "1"]
        flags = at.page.locator("#live-flagged li")
        assert flags.count() == 3
        assert 'odd: <b>"phone"' in " ".join(flags.all_inner_texts())
        assert at.page.locator(".figure", has_text="Labels").locator("dd").first.inner_text() == (
            f"{3 * tasks - 3} of {3 * tasks}"
        )
        assert at.page.locator(".figure", has_text="Security reports").inner_text().split()[-2:] == ["0", "none"]


def test_two_tabs_on_one_task_lose_nothing(browser: Any, tmp_path: Path) -> None:
    with (
        label_page(tmp_path / "labels.sqlite", [a_task(n) for n in range(3)]) as page,
        seat(browser, page.link("ann")) as at,
    ):
        first = at.task
        keys = at.page.keyboard
        stale = at.page.context.new_page()
        stale.goto(page.origin)
        for key in "1234":
            keys.press(key)
        with at.going_on():
            keys.press("Enter")
        for key in "4321":
            stale.keyboard.press(key)
        stale.keyboard.press("Enter")
        stale.locator("#conflict").wait_for()
        assert stale.locator("#conflict-saved").inner_text() == "A > B > C > D"
        assert stale.locator("#conflict-here").inner_text() == "D > C > B > A"
        assert "Not saved" in stale.locator("#status").inner_text()
        assert ranks_of(page, first) == [1, 2, 3, 4]
        with stale.expect_navigation():
            stale.get_by_role("button", name="Save mine instead").click()
        assert ranks_of(page, first) == [4, 3, 2, 1]

        second = at.task
        stale.goto(page.origin)
        for key in "1122":
            keys.press(key)
        with at.going_on():
            keys.press("Enter")
        for key in "1111":
            stale.keyboard.press(key)
        stale.locator("#submit").click()
        with stale.expect_navigation():
            stale.get_by_role("button", name="Keep what is saved").click()
        assert ranks_of(page, second) == [1, 1, 2, 2]
        assert stale.locator("#task").get_attribute("data-task") not in (first, second)


def ranks_of(page: LabelPage, task: str | None) -> list[int]:
    """What stands for the only annotator, by shown place."""
    label = next(label for label in page.store.snapshot().labels if label.task == task)
    return [int(label.values["overall"][index]) for index in label.order]


class Line:
    """The network between page and server, with what went over it."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.sent: list[Any] = []
        self.answered: list[Any] = []

    def carry(self, route: Any) -> None:
        state = self.state
        self.sent.append(route.request.post_data_json)
        if state == "loses requests":
            route.abort()
            return
        answer = route.fetch()
        self.answered.append(answer.json())
        if state == "works":
            route.fulfill(response=answer)
        else:
            route.abort()


def test_nothing_is_called_saved_before_the_server_has_said_so(browser: Any, tmp_path: Path) -> None:
    with (
        label_page(tmp_path / "labels.sqlite", [a_task(n) for n in range(4)]) as page,
        seat(browser, page.link("ann")) as at,
    ):
        first = at.task
        line = Line("loses requests")
        at.page.route("**/api/submit", line.carry)
        for key in "1234":
            at.page.keyboard.press(key)
        at.page.keyboard.press("Enter")
        at.page.get_by_text("Not saved yet").wait_for()
        at.page.keyboard.press("Enter")  # impatience sends nothing more
        assert page.store.snapshot().labels == []
        line.state = "loses answers"
        at.page.get_by_role("button", name="Try now").click()
        while not line.answered:
            at.page.wait_for_timeout(50)
        at.page.get_by_text("Not saved yet").wait_for()
        assert ranks_of(page, first) == [1, 2, 3, 4]
        line.state = "works"
        at.page.get_by_text("Saved: A > B > C > D").wait_for()
        assert line.answered[0]["repeated"] is False
        assert line.answered[-1]["repeated"] is True
        assert len(line.sent) >= 3
        assert all(body == line.sent[0] for body in line.sent), "it was sent under another key"

        # It is sent again after a reload, too: whoever pressed "submit" has submitted.
        second = at.task
        line.state = "loses requests"
        for key in "2211":
            at.page.keyboard.press(key)
        at.page.keyboard.press("Enter")
        at.page.get_by_text("Not saved yet").wait_for()
        at.page.reload()
        line.state = "works"
        at.page.get_by_text("Saved: C = D > A = B").wait_for()
        assert ranks_of(page, second) == [2, 2, 1, 1]
        at.expect_failed_loads()


def test_an_undo_whose_reply_is_lost_takes_back_one_answer(browser: Any, tmp_path: Path) -> None:
    with (
        label_page(tmp_path / "labels.sqlite", [a_task(n) for n in range(3)]) as page,
        seat(browser, page.link("ann")) as at,
    ):
        tasks = []
        for _ in range(2):
            tasks.append(at.task)
            for key in "1234":
                at.page.keyboard.press(key)
            with at.going_on():
                at.page.keyboard.press("Enter")
        line = Line("loses answers")
        at.page.route("**/api/undo", line.carry)
        at.page.keyboard.press("u")
        at.page.get_by_text("Not taken back yet").wait_for()
        at.page.keyboard.press("u")  # impatience takes nothing more back
        at.page.reload()
        line.state = "works"
        at.page.get_by_text("Taken back: change it").wait_for()
        assert at.task == tasks[1]
        assert [label.task for label in page.store.snapshot().labels] == [tasks[0]]
        assert len(line.sent) >= 2
        assert all(body == line.sent[0] for body in line.sent), "it was sent under another key"
        at.page.reload()
        assert len(page.store.snapshot().labels) == 1, "it is not sent again once it was answered"
        with at.going_on():
            at.page.keyboard.press("u")
        assert at.task == tasks[0]
        assert page.store.snapshot().labels == []
        at.expect_failed_loads()


def test_undoing_an_edit_and_then_the_answer_shows_what_was_withdrawn_last(browser: Any, tmp_path: Path) -> None:
    with (
        label_page(tmp_path / "labels.sqlite", [a_task(n, 3) for n in range(2)]) as page,
        seat(browser, page.link("ann")) as at,
    ):
        first = at.task
        for key in "123":
            at.page.keyboard.press(key)
        at.page.keyboard.press("c")
        at.page.keyboard.type("at first")
        with at.going_on():
            at.page.keyboard.press("Control+Enter")
        at.page.goto(f"{page.origin}/task/{first}")
        Hands("keyboard", at).choose([2, 1, 2])
        with at.going_on():
            at.page.keyboard.press("Enter")
        assert at.status() == "Saved: B > A = C"
        with at.going_on():
            at.page.keyboard.press("u")
        assert at.status() == "The edit is taken back: your earlier answer stands again"
        assert at.ranks() == ranks_of(page, first) == [1, 2, 3]
        with at.going_on():
            at.page.keyboard.press("u")
        assert at.status() == "Taken back: change it and submit it again"
        assert page.store.snapshot().labels == []
        assert at.ranks() == [1, 2, 3]
        assert at.page.locator("#comment").input_value() == "at first"
        # A skip that was a slip of the finger brings back what had been chosen before it.
        at.page.keyboard.press("ArrowLeft")
        at.page.keyboard.press("3")
        chosen = at.ranks()
        for key in "su":
            with at.going_on():
                at.page.keyboard.press(key)
        assert at.ranks() == chosen != [1, 2, 3]


@pytest.mark.parametrize("kind", ["pairwise", "demonstration"])
def test_an_answer_of_another_browser_comes_back_by_undo(browser: Any, tmp_path: Path, kind: Any) -> None:
    task, questions = a_task(0, 2 if kind == "pairwise" else 1), (Question("q", kind, "?"),)
    with label_page(tmp_path / "labels.sqlite", [task], questions) as page:
        with seat(browser, page.link("ann")) as at:
            if kind == "pairwise":
                at.page.keyboard.press("2")
            else:
                at.page.locator("#writing").fill("by hand\n")
            at.page.locator("[data-act=flag]").click()
            with at.going_on():
                at.page.locator("#submit").click()
        with seat(browser, page.link("ann")) as at:
            at.page.goto(f"{page.origin}/task/{page.store.snapshot().labels[0].task}")
            with at.going_on():
                at.page.locator("[data-act=undo]").click()
            assert page.store.snapshot().labels == []
            assert at.page.locator("[data-act=flag]").get_attribute("aria-pressed") == "true"
            if kind == "pairwise":
                assert at.page.locator(".versus input:checked").get_attribute("value") == "2,1"
            else:
                assert at.page.locator("#writing").input_value() == "by hand\n"


def test_an_answer_that_was_taken_back_elsewhere_is_not_called_saved(browser: Any, tmp_path: Path) -> None:
    with (
        label_page(tmp_path / "labels.sqlite", [a_task(n) for n in range(2)]) as page,
        seat(browser, page.link("ann")) as at,
    ):
        line = Line("loses answers")
        at.page.route("**/api/submit", line.carry)
        for key in "2143":
            at.page.keyboard.press(key)
        at.page.wait_for_timeout(1000)
        sent = time.monotonic()
        at.page.keyboard.press("Enter")
        at.page.get_by_text("Not saved yet").wait_for()
        assert page.store.undo("ann") == at.task
        first = line.sent[0]["seconds"]
        line.state = "works"
        at.page.get_by_text("no answer (skipped or taken back)").wait_for()
        assert page.store.snapshot().labels == []
        assert at.ranks() == [2, 1, 4, 3]
        at.page.locator("#keep-mine").click()
        at.page.get_by_text("Saved: B > A > D > C").wait_for()
        assert line.sent[-1]["version"] == 2
        (label,) = page.store.snapshot().labels
        assert label.seconds == pytest.approx(first + line.sent[-1]["seconds"])
        again = line.sent[-1]["seconds"]
        assert again < time.monotonic() - sent, "the time of the answer that had arrived was counted twice"
        at.expect_failed_loads()


def test_a_pause_and_a_lost_session_keep_what_was_entered(browser: Any, tmp_path: Path) -> None:
    with (
        label_page(tmp_path / "labels.sqlite", [a_task(n) for n in range(3)]) as page,
        seat(browser, page.link("ann")) as at,
    ):
        at.page.keyboard.press("2")
        at.page.keyboard.press("Enter")
        assert at.status() == "Answer B: no choice yet"
        for key in "134":
            at.page.keyboard.press(key)
        page.store.paused = True
        at.page.keyboard.press("Enter")
        at.page.get_by_text("the project is paused").wait_for()
        at.page.reload()
        assert at.page.locator("h1").inner_text() == "Paused"
        page.store.paused = False
        at.follow("Try again")
        assert at.ranks() == [2, 1, 3, 4]
        page.store.revoke("ann")
        at.page.keyboard.press("Enter")
        at.page.get_by_text("you are signed out").wait_for()
        at.page.goto(page.link("ann"))
        at.follow("Begin")
        assert at.ranks() == [2, 1, 3, 4]
        at.expect_failed_loads()
        assert page.store.snapshot().labels == []


def test_only_time_on_the_screen_counts(browser: Any, tmp_path: Path) -> None:
    hide = """state => { Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
                         document.dispatchEvent(new Event("visibilitychange")); }"""
    with label_page(tmp_path / "labels.sqlite", [a_task(0), a_task(1)]) as page, seat(browser, None) as at:
        at.page.clock.install()
        at.page.goto(page.link("ann"))
        at.follow("Begin")
        at.page.clock.run_for(7_000)
        at.page.evaluate(hide, "hidden")
        at.page.clock.run_for(600_000)
        at.page.evaluate(hide, "visible")
        at.page.clock.run_for(5_000)
        for key in "1234":
            at.page.keyboard.press(key)
        with at.going_on():
            at.page.keyboard.press("Enter")
        (label,) = page.store.snapshot().labels
        assert label.seconds is not None
        assert 12 <= label.seconds < 60
        # What an edit takes is added to what the answer took.
        first, before = label.task, label.seconds
        at.page.goto(f"{page.origin}/task/{first}")
        at.page.clock.run_for(3_000)
        at.page.keyboard.press("2")
        with at.going_on():
            at.page.keyboard.press("Enter")
        (label,) = page.store.snapshot().labels
        assert label.task == first
        assert label.seconds is not None
        assert before + 3 <= label.seconds < before + 40
