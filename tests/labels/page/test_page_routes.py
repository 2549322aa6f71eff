"""What annotators get and send, without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.labels.label_types import Question
from pipelines.labels.page.app import make_app
from pipelines.labels.store.store import LabelStore
from tests.labels.page.support import ORIGIN, Person, make_store, make_task


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return make_store(tmp_path)


@pytest.fixture
def ann(store: LabelStore) -> Person:
    return Person(store, "ann")


def test_what_was_ranked_on_the_screen_is_what_is_stored(store: LabelStore, ann: Person):
    for ranks in ([3, 1, 2], [1, 1, 2], [2, 1, 1]):
        task, version, texts = ann.open_task()
        answer = ann.submit(task, version, values={"overall": ranks}, seconds=12.5, comment="so <b>so</b>")
        assert answer.status_code == 200
        assert answer.json()["version"] == version + 1
        [label] = [given for given in store.snapshot().labels if given.task == task]
        stored = {
            answer.text: rank
            for answer, rank in zip(store.snapshot().tasks[task].answers, label.values["overall"], strict=True)
        }
        assert stored == dict(zip(texts, ranks, strict=True))
        assert (label.seconds, label.comment, label.annotator) == (12.5, "so <b>so</b>", "ann")
    assert answer.json()["left"] == 0
    assert "3 answers are saved" in ann.get("/").text


@pytest.mark.parametrize(
    ("skips", "told"),
    [
        ((False, False, True), "2 answers and 1 skipped task are saved"),
        ((True, False, True), "1 answer and 2 skipped tasks are saved"),
        ((True, True, True), "3 skipped tasks are saved"),
        ((True,), "1 skipped task is saved"),
        ((False,), "1 answer is saved"),
    ],
)
def test_who_is_done_reads_how_much_of_it_was_skipped(tmp_path: Path, skips: tuple[bool, ...], told: str):
    store = make_store(tmp_path, [make_task(str(number)) for number in range(len(skips))])
    ann = Person(store, "ann")
    for skipped in skips:
        task, version, _ = ann.open_task()
        ann.submit(task, version, skipped=skipped)
    assert f"<p>{told}. There is" in " ".join(ann.get("/").text.split())


def test_my_answers_show_my_comments(store: LabelStore, ann: Person):
    task, _, _ = ann.open_task()
    ann.submit(task, comment="so <b>so</b>\u202e")
    assert "so &lt;b&gt;so&lt;/b&gt;⟨U+202E⟩" in ann.get("/history").text


def test_the_list_of_keys_says_in_which_order_several_questions_are_answered(tmp_path: Path):
    several = (Question("overall", "ranking", "?"), Question("to_the_point", "scale", "?"))
    told = "The keys go answer by answer: first overall, to the point of A, then of B, and so on."
    assert told in Person(make_store(tmp_path, questions=several), "ann").get("/").text


def test_the_page_shows_neither_models_nor_controls_nor_other_names(tmp_path: Path):
    control = make_task("known", control={"overall": (1, 2, 3)}, source="control-file")
    ordinary = [make_task(name, source="round-7") for name in "abcdef"]
    store = make_store(tmp_path, [*ordinary, control], control_share=0.5)
    ann, seen = Person(store, "ann"), ""
    for _ in range(6):
        task, version, _ = ann.open_task()
        seen += ann.get("/").text + ann.get(f"/task/{task}").text
        ann.submit(task, version)
    assert "known one" in seen
    assert not [
        word for word in ("secret", "control-file", "round-7", "bo<") if word in seen + ann.get("/history").text
    ]


def test_what_another_process_changes_is_shown_at_the_next_look(store: LabelStore, ann: Person):
    """A run that goes on can change its settings while its page is open."""
    assert ann.get("/guidelines").status_code == 404
    helpful = (Question("helpful", "scale", "How helpful?"),)
    with LabelStore.open(store.path) as other:
        other.settings = replace(other.settings, questions=helpful, title="Renamed", guidelines="# Be fair")
    task, version, _ = ann.open_task()
    shown = ann.get("/").text
    assert 'data-question="helpful"' in shown
    assert "Renamed" in shown
    assert 'href="/guidelines"' in shown
    assert ann.submit(task, version, values={"helpful": [5, 1, 2]}).status_code == 200
    with LabelStore.open(store.path) as other:
        other.settings = replace(other.settings, guidelines="# Be quick")
    assert "<h1>Be quick</h1>" in ann.get("/guidelines").text


def test_the_same_key_is_answered_again_and_written_once(store: LabelStore, ann: Person):
    task, version, _ = ann.open_task()
    first = ann.submit(task, version, key="the-same-key")
    again = ann.submit(task, version, key="the-same-key")
    assert (first.json()["repeated"], again.json()["repeated"]) == (False, True)
    assert first.json()["version"] == again.json()["version"] == 1
    assert len(store.history("ann")) == 1


def test_a_stale_tab_gets_a_conflict_with_what_stands_by_shown_place(store: LabelStore, ann: Person):
    task, version, _ = ann.open_task()
    ann.submit(task, version, values={"overall": [3, 1, 2]})
    stale = ann.submit(task, version, values={"overall": [1, 2, 3]})
    assert stale.status_code == 409
    assert (stale.json()["version"], stale.json()["values"]) == (1, {"overall": [3, 1, 2]})
    assert ann.submit(task, 1, values={"overall": [1, 2, 3]}).status_code == 200
    assert len(store.history("ann")) == 1


def test_undo_opens_the_last_answer_again(store: LabelStore, ann: Person):
    assert ann.undo().status_code == 409
    task, version, _ = ann.open_task()
    ann.submit(task, version)
    withdrawn = {"version": 1, "values": {"overall": [1, 2, 3]}, "comment": "", "flagged": False}
    assert ann.undo().json() == {"task": task, "next": f"/task/{task}", "stands": False, "withdrawn": withdrawn}
    assert store.snapshot().labels == []
    assert ann.open_task()[:2] == (task, 2)


def test_each_undo_tells_which_answer_it_withdrew_and_whether_an_earlier_one_stands(store: LabelStore, ann: Person):
    task, _, _ = ann.open_task()
    ann.submit(task, comment="first")
    ann.submit(task, 1, values={"overall": [2, 1, 1]}, comment="edit", flagged=True)
    edit, again, first = ann.undo("the-same-key").json(), ann.undo("the-same-key").json(), ann.undo().json()
    assert edit["withdrawn"] == {"version": 2, "values": {"overall": [2, 1, 1]}, "comment": "edit", "flagged": True}
    assert edit["stands"] is True
    assert again == edit
    assert first["withdrawn"] == {"version": 3, "values": {"overall": [1, 2, 3]}, "comment": "first", "flagged": False}
    assert first["stands"] is False


def test_an_undo_that_is_repeated_to_a_new_server_does_not_tell_of_another_answer(store: LabelStore, ann: Person):
    task, _, _ = ann.open_task()
    ann.submit(task)
    ann.submit(task, 1, values={"overall": [2, 1, 1]})
    assert ann.undo("the-same-key").json()["stands"] is True
    restarted = Person(store, "ann").undo("the-same-key").json()
    assert (restarted["task"], restarted["stands"], restarted["withdrawn"]) == (task, True, None)


def test_an_undo_whose_reply_was_lost_takes_back_one_answer(store: LabelStore, ann: Person):
    task, version, _ = ann.open_task()
    ann.submit(task, version, values={"overall": [1, 2, 3]})
    ann.submit(task, 1, values={"overall": [3, 2, 1]})
    first, again = ann.undo("the-same-key"), ann.undo("the-same-key")
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert len(store.history("ann")) == 1
    for body in ({}, {"key": 7}, {"key": "short"}, {"key": "a-good-key", "task": task}):
        assert ann.post("/api/undo", body).status_code == 422
    assert len(store.history("ann")) == 1


def test_an_answer_that_was_taken_back_gets_no_receipt(store: LabelStore, ann: Person):
    task, version, _ = ann.open_task()
    ann.submit(task, version, key="the-same-key")
    other = ann.submit(task, version, key="the-same-key", values={"overall": [3, 2, 1]})
    assert (other.status_code, other.json()["values"]) == (409, {"overall": [1, 2, 3]})
    ann.undo()
    late = ann.submit(task, version, key="the-same-key")
    assert (late.status_code, late.json()["version"], late.json()["values"]) == (409, 2, {})
    assert store.snapshot().labels == []


@pytest.mark.parametrize("name", ["x" * 64, "org.Model_1-b", "...a"])
def test_every_id_that_the_store_takes_can_be_submitted_and_undone(tmp_path: Path, name: str):
    store = make_store(tmp_path, [make_task("a", [str(number) for number in range(26)], id=name)])
    ann = Person(store, "ann")
    assert 'id="answer-Z"' in ann.get("/").text
    assert ann.submit(name, values={"overall": [*range(1, 27)]}).status_code == 200
    assert ann.get(ann.undo().json()["next"]).status_code == 200


def test_an_earlier_answer_is_shown_and_edited(store: LabelStore, ann: Person):
    task, version, _ = ann.open_task()
    ann.submit(task, version, values={"overall": [3, 1, 2]}, comment="mine", flagged=True)
    page = ann.get(f"/task/{task}").text
    assert 'value="3" checked' in page.split('data-place="1"')[2]
    assert "mine" in page
    assert "B &gt; C &gt; A" in ann.get("/history").text
    assert ann.submit(task, 1, values={"overall": [1, 1, 1]}).status_code == 200
    assert store.snapshot().labels[0].values == {"overall": (1, 1, 1)}


def test_skip_needs_no_values(store: LabelStore, ann: Person):
    task, version, _ = ann.open_task()
    assert ann.submit(task, version, values={}, skipped=True).status_code == 200
    assert store.snapshot().labels[0].skipped
    assert "skipped" in ann.get("/history").text


def test_a_paused_page_gives_and_takes_nothing(store: LabelStore, ann: Person):
    task, version, _ = ann.open_task()
    store.paused = True
    assert "Paused" in ann.get("/").text
    assert ann.submit(task, version).status_code == 423
    assert ann.undo().status_code == 423
    store.paused = False
    assert ann.submit(task, version).status_code == 200


def test_a_link_works_once_and_its_session_outlives_the_server(store: LabelStore):
    token = store.login_token("ann")
    ann = Person(store)
    assert ann.get("/").status_code == 401
    welcome = ann.get(f"/enter/{token}")
    assert welcome.status_code == 200
    cookie = welcome.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=2592000"))
    assert token not in cookie
    assert ann.get("/").status_code == 200
    assert ann.get(f"/enter/{token}").status_code == 200  # the own link again
    assert "ann" in ann.get("/enter/unknown").text
    assert Person(store).get(f"/enter/{token}").status_code == 403  # in another browser
    again = Person(store, app=make_app(store, origins=[ORIGIN]))
    again.browser.cookies = ann.browser.cookies
    assert again.get("/").status_code == 200
    store.revoke("ann")
    assert ann.get("/").status_code == 401


@pytest.mark.parametrize("headers", [{"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}])
def test_looking_ahead_does_not_use_up_a_link(store: LabelStore, headers: dict[str, str]):
    token = store.login_token("ann")
    assert Person(store).get(f"/enter/{token}", headers=headers).status_code == 503
    assert Person(store).browser.head(f"/enter/{token}").status_code == 503
    assert Person(store).get(f"/enter/{token}").status_code == 200


def test_one_browser_can_be_annotator_and_admin(store: LabelStore, ann: Person):
    ann.get(f"/enter/{store.login_token('admin', 'admin')}")
    assert ann.open_task()
    assert ann.get("/admin").status_code == 200
    admin = Person(store, "admin", "admin")
    assert admin.get("/").headers["location"] == "/admin"
    assert admin.submit(ann.open_task()[0]).status_code == 403


def test_behind_tls_the_cookie_is_secure(store: LabelStore):
    there = Person(store, app=make_app(store, origins=["https://label.example.org"]))
    there.browser.base_url = "https://label.example.org"
    assert "Secure" in there.get(f"/enter/{store.login_token('ann')}").headers["set-cookie"]


@pytest.mark.parametrize(
    ("kind", "answers", "good", "bad"),
    [
        ("pairwise", ("one", "two"), [2, 1], [1, 3]),
        ("binary", ("one",), [1], [2]),
        ("scale", ("one", "two"), [5, 1], [0, 1]),
        ("ranking", ("one", "two"), [1, 1], [1]),
    ],
)
def test_every_kind_of_question(tmp_path: Path, kind: str, answers: tuple[str, ...], good: list[int], bad: list[int]):
    store = make_store(tmp_path, [make_task("a", answers)], questions=(Question("overall", kind, "?"),))  # type: ignore[arg-type]
    ann = Person(store, "ann")
    task, version, _ = ann.open_task()
    refused = ann.submit(task, version, values={"overall": bad})
    assert refused.status_code == 422
    assert "overall" in refused.json()["error"]
    assert ann.submit(task, version, values={"overall": good}).status_code == 200


def test_a_demonstration_is_edited_from_its_draft(tmp_path: Path):
    writing = (Question("answer", "demonstration", "Write it"),)
    store = make_store(tmp_path, [make_task("draft", ("<i>\u202etext</i>",))], questions=writing)
    ann = Person(store, "ann")
    page = ann.get("/").text
    assert "draft &lt;i&gt;\u202etext&lt;/i&gt;</textarea>" in page
    task = page.split('data-task="')[1].split('"')[0]
    text = "ü<script>\n" * 10_000
    assert ann.submit(task, values={"answer": text}).status_code == 200
    assert store.snapshot().labels[0].values == {"answer": text}
    assert ann.submit(task, 1, values={"answer": "x" * 300_000}).status_code == 422
    assert ann.submit(task, 1, values={"answer": "x" * 1_100_000}).status_code == 413


def test_guidelines_are_shown_without_html_of_their_own(tmp_path: Path):
    store = make_store(tmp_path, guidelines="# Be kind\n<script>x</script> [a](javascript:x) [b](https://e.org)")
    page = Person(store, "ann").get("/guidelines").text
    assert "<h1>Be kind</h1>" in page
    assert "&lt;script&gt;x" in page
    assert 'href="javascript' not in page
    assert '<a href="https://e.org" rel="noopener noreferrer nofollow" target="_blank">b</a>' in page
    assert Person(store).get("/guidelines").status_code == 401
