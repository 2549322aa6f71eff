"""The hostile list: every row is blocked, or shown as text."""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import DiskError
from pipelines.labels.page import security
from pipelines.labels.page.app import make_app
from pipelines.labels.store.store import LabelStore
from tests.labels.page.support import ORIGIN, POST, Person, make_store, make_task

HOSTILE = {
    "script": "<script>window.__pwned = 1</script>",
    "handler": '<img src=x onerror="alert(1)"> " onmouseover=alert(1) x="',
    "end of script": "</script></div></textarea><script>alert(1)</script>",
    "template": "{{ 7 * 7 }} {% raw %} ${1+1}",
    "markdown": "[click](javascript:alert(1)) ![](http://evil.example/x.png)",
    "entity": "&lt;b&gt; &#60;script&#62;",
}
HIDDEN = {
    "bidi": ("abc\u202etxt.exe", "abc⟨U+202E⟩txt.exe"),
    "isolate": ("a\u2066b\u2069", "a⟨U+2066⟩b⟨U+2069⟩"),
    "zero width": ("pass\u200bword\ufeff", "pass⟨U+200B⟩word⟨U+FEFF⟩"),
    "joiner": ("a\u200db", "a⟨U+200D⟩b"),
    "ansi": ("\x1b[31mred\x1b[0m \x9b1m", "⟨U+001B⟩[31mred⟨U+001B⟩[0m ⟨U+009B⟩1m"),
    "nul": ("a\x00b", "a⟨U+0000⟩b"),
    "tags": ("a\U000e0041", "a⟨U+E0041⟩"),
    "return": ("safe\rEVIL\r\nend", "safe⟨U+000D⟩EVIL\nend"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    """Of all tests in which nothing may get through."""
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def ann(store: LabelStore) -> Person:
    return Person(store, "ann")


def escaped(text: str) -> str:
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(char, entity)
    return text


def test_model_output_is_shown_as_text(tmp_path: Path):
    everything = " ".join(HOSTILE.values())
    tasks = [make_task(text, [text, "two", "three"]) for text in HOSTILE.values()]
    store = make_store(tmp_path, tasks, title=everything, guidelines=everything)
    app = make_app(store, origins=[ORIGIN])
    ann, pages = Person(store, "ann", app=app), []
    for _ in tasks:
        pages.append(ann.get("/").text)
        task = pages[-1].split('data-task="')[1].split('"')[0]
        ann.submit(task, comment=everything, flagged=True)
        pages.append(ann.get(f"/task/{task}").text)
    pages += [ann.get("/history").text, ann.get("/").text, Person(store, "admin", "admin", app=app).get("/admin").text]
    for text in HOSTILE.values():
        assert escaped(text) in pages[-3]
        assert len([page for page in pages if f"{escaped(text)} {escaped(text)}</div>" in page]) == 2
        assert not [page for page in pages if text != escaped(text) and text in page]


def test_characters_that_hide_something_are_shown(tmp_path: Path):
    hidden = dict(HIDDEN.values())
    page = Person(make_store(tmp_path, [make_task("a", [*hidden])]), "ann").get("/").text
    for text, shown in hidden.items():
        assert f"a {shown}</div>" in page
        assert text not in page


@pytest.mark.parametrize("path", ["/", "/history", "/nowhere", "/static/label.js", "/enter/x", "/healthz", "/admin"])
def test_every_answer_has_the_headers(ann: Person, path: str):
    headers = ann.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'; base-uri 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-cache" if "static" in path else "no-store")
    assert "access-control-allow-origin" not in headers


def test_pages_have_no_inline_script_or_style(ann: Person):
    for path in ("/", "/history", "/nowhere"):
        page = ann.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|https?://", page), path


HOSTS = (
    "evil.example evil.example:8765 127.0.0.1 127.0.0.1:80 127.0.0.1:8765.evil.example 127.0.0.1:87650 localhost:8765 "
    "[::1]:8765 x@127.0.0.1:8765"
)


@pytest.mark.parametrize("host", [*HOSTS.split(), ""])
def test_another_host_is_answered_nothing(store: LabelStore, ann: Person, host: str):
    token = store.login_token("ann")
    for path in ("/", f"/enter/{token}", "/static/label.js", "/healthz"):
        answer = ann.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "set-cookie" not in answer.headers
    assert ann.post("/api/undo", headers={"Host": host}).status_code == 421
    assert store.redeem(token) is not None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Origin": None}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:8766"}, 403),
        ({"Origin": "http://127.0.0.1:8765.evil.example"}, 403),
        ({"Origin": "https://127.0.0.1:8765"}, 403),
        ({"Origin": "http://localhost:8765"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"X-RLHF": None}, 403),
        ({"X-RLHF": "0"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": "application/json-seq"}, 415),
        ({"Content-Type": None}, 415),
        ({"Sec-Fetch-Site": None}, 409),  # an older browser: the rest is checked, and there is nothing to undo
        ({"Content-Type": "application/json; charset=utf-8"}, 409),
    ],
)
def test_what_another_site_could_send_is_refused(ann: Person, changes: dict[str, str | None], status: int):
    headers = {**POST, "Content-Type": "application/json", **changes}
    given = {name: value for name, value in headers.items() if value is not None}
    answer = ann.browser.post("/api/undo", content=b'{"key": "a-good-key"}', headers=given)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert ann.browser.post("/api/admin/pause", content=b"{}", headers=given).status_code in (status, 403)


def test_an_annotator_is_no_admin_and_a_stranger_nobody(store: LabelStore, ann: Person):
    posts = ["pause", "annotators", "link", "revoke"]
    for person, status in ((ann, 403), (Person(store), 401)):
        assert person.get("/admin").status_code == status
        assert person.get("/admin/export").status_code == status
        for path in posts:
            answer = person.post(f"/api/admin/{path}", {"name": "ann", "paused": True})
            assert (answer.status_code, list(answer.json())) == (status, ["error"])
    stranger = Person(store)
    assert [stranger.get(path).status_code for path in ("/", "/history", "/task/x")] == [401] * 3
    assert stranger.post("/api/undo").status_code == 401
    stranger.browser.cookies.set("rlhf_session_8765", "x" * 43)
    assert stranger.get("/").status_code == 401


def test_the_session_of_an_annotator_does_not_pass_as_the_admins(store: LabelStore, ann: Person):
    [session] = ann.browser.cookies.values()
    thief = Person(store)
    thief.browser.cookies.set("rlhf_admin_8765", session)
    assert thief.get("/admin").status_code == 401


def test_unknown_tasks_and_those_of_others_do_not_exist(tmp_path: Path):
    store = make_store(tmp_path, overlap=1)
    ann, bo = Person(store, "ann"), Person(store, "bo")
    others, version, _ = bo.open_task()
    assert ann.get(f"/task/{others}").status_code == 404
    for task in (others, "nope", "", "' OR 1=1 --", "../../etc/passwd", "é" * 20):
        assert ann.submit(task, version).status_code == 404
    assert ann.submit("\x00", version).status_code == 422
    assert store.snapshot().labels == []


PATHS = (
    "/static/../app.py /static/..%2fapp.py /static/%2e%2e/app.py /static/..%5capp.py /static//etc/passwd /static "
    "/static/ /static/label.js/ /static/label.js%00.css /%2e%2e/%2e%2e/etc/passwd /enter/a/b /task/../admin "
    "/templates/task.html /labels.sqlite /docs /openapi.json /.git/config"
)


@pytest.mark.parametrize("path", PATHS.split())
def test_there_is_no_way_to_files(ann: Person, path: str):
    answer = ann.browser.get(path)
    assert answer.status_code in (404, 403)  # 403: a client that tidied the path up arrived at /admin or /enter
    assert "location" not in answer.headers
    assert "import" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "POST"])
def test_other_methods_change_nothing(ann: Person, method: str):
    for path in ("/", "/history", "/admin/export", "/healthz"):
        answer = ann.browser.request(method, path, headers={**POST, "Content-Type": "application/json"}, content=b"{}")
        assert answer.status_code == 405
    assert ann.get("/api/submit").status_code == 405
    headers = {**POST, "X-HTTP-Method-Override": "POST", "Content-Type": "application/json"}
    assert ann.browser.get("/api/undo", headers=headers).status_code == 405


def deep(levels: int) -> bytes:
    return b'{"task":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON"),
        (b"[]", "must be a JSON object"),
        (b"nul", "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b'{"task": "a", "task": "b"}', "twice"),
        (b'{"values": {"overall": [1], "overall": [2]}}', "twice"),
        (b'{"seconds": NaN}', "NaN"),
        (b'{"seconds": ' + b"9" * 5000 + b"}", "no JSON"),
        (deep(30_000), "too deep"),
        (deep(500), "nested more than"),
        (b'{"admin": true}', "task: missing"),
    ],
)
def test_json_that_is_none_is_refused(ann: Person, body: bytes, words: str):
    answer = ann.browser.post("/api/submit", content=body, headers={**POST, "Content-Type": "application/json"})
    assert answer.status_code == 422
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    "more",
    [
        {"comment": "x" * 4001},
        {"comment": "a\x00b"},
        {"comment": 5},
        {"values": {"overall": [1, 2]}},
        {"values": {"overall": [1, 2, 4]}},
        {"values": {"overall": [1, 2, True]}},
        {"values": {"overall": [1, 2, 3.0]}},
        {"values": {"overall": [1, 2, 10**30]}},
        {"values": {"overall": "1"}},
        {"values": {"other": [1, 2, 3]}},
        {"values": {}},
        {"values": {"overall": [1] * 5000}},
        {"key": ""},
        {"key": "a b c d e f g"},
        {"version": -1},
        {"version": 2**70},
        {"seconds": -1},
        {"seconds": 1e400},
        {"flagged": "yes"},
        {"order": [0, 1, 2]},
        {"annotator": "bo"},
    ],
    ids=str,
)
def test_a_submission_that_is_none_is_refused_in_words(store: LabelStore, ann: Person, more: dict[str, Any]):
    task, version, _ = ann.open_task()
    body = {"task": task, "version": version, "key": "a-good-key", "values": {"overall": [1, 2, 3]}} | more
    headers = {**POST, "Content-Type": "application/json"}
    answer = ann.browser.post("/api/submit", content=json.dumps(body), headers=headers)
    assert answer.status_code == 422, answer.text
    assert 5 < len(answer.json()["error"]) < 300
    assert store.snapshot().labels == []


def test_half_a_surrogate_pair_is_refused(store: LabelStore, ann: Person):
    task, version, _ = ann.open_task()
    for field in ("comment", "key", "task"):
        body = {"task": task, "version": version, "key": "a-good-key", "values": {"overall": [1, 2, 3]}}
        content = json.dumps(body | {field: "SURROGATE"}).replace("SURROGATE", "\\ud800abcdefg")
        answer = ann.browser.post("/api/submit", content=content, headers={**POST, "Content-Type": "application/json"})
        assert answer.status_code == 422
    assert store.snapshot().labels == []


def test_a_body_that_is_too_large_is_not_read(ann: Person):
    headers = {**POST, "Content-Type": "application/json"}
    tracemalloc.start()
    declared = ann.browser.post("/api/submit", content=b"x", headers={**headers, "Content-Length": str(100 << 20)})
    assert declared.status_code == 413
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert declared.headers["connection"] == "close"
    assert ann.browser.post("/api/submit", content=b" " * (65 << 10), headers=headers).status_code == 413
    assert ann.browser.post("/csp-report", content=b" " * (65 << 10), headers=headers).status_code == 413


def status_of(app: Any, method: str, path: str, headers: list[tuple[str, str]], seconds: float = 0) -> int:
    """The answer to a request that no client would send, and whose body comes so slowly and has no end."""
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": bytes(1 << 16), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"])


def test_a_body_that_never_ends_is_given_up(ann: Person, monkeypatch: pytest.MonkeyPatch):
    cookie = "; ".join(f"{name}={value}" for name, value in ann.browser.cookies.items())
    headers = {"host": "127.0.0.1:8765", "content-type": "application/json", "cookie": cookie, **POST}
    app = make_app(ann.store, origins=[ORIGIN])
    assert status_of(app, "POST", "/api/undo", [*headers.items()]) == 413
    monkeypatch.setattr(security, "BODY_SECONDS", 0.1)
    assert status_of(app, "POST", "/api/undo", [*headers.items()], 0.05) == 408


def test_two_hosts_are_none(store: LabelStore):
    app, own = make_app(store, origins=[ORIGIN]), ("host", "127.0.0.1:8765")
    assert status_of(app, "GET", "/healthz", [own]) == 200
    assert status_of(app, "GET", "/healthz", [own, ("host", "evil.example")]) == 421
    assert status_of(app, "GET", "/healthz", []) == 421


def test_a_mistake_of_ours_tells_nothing(store: LabelStore, monkeypatch: pytest.MonkeyPatch):
    app = make_app(store, origins=[ORIGIN])
    ann = Person(store, "ann", app=app)
    monkeypatch.setattr(type(store), "next_task", lambda self, name: 1 / 0)
    monkeypatch.setattr(type(store), "undo", lambda self, name, key: 1 / 0)
    ann.browser._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    for answer in (ann.get("/"), ann.undo()):
        assert answer.status_code == 500
        assert "ZeroDivision" not in answer.text
        assert "Traceback" not in answer.text
        assert "content-security-policy" in answer.headers


def test_a_full_disk_is_named(store: LabelStore, monkeypatch: pytest.MonkeyPatch):
    def full(self: LabelStore, name: str, key: str) -> None:
        raise DiskError("no space left on the disk", where="/secret/path")

    ann = Person(store, "ann", app=make_app(store, origins=[ORIGIN]))
    monkeypatch.setattr(type(store), "undo", full)
    ann.browser._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    answer = ann.undo()
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("no space left on the disk;")
    assert "/secret" not in answer.text


def test_reports_of_browsers_are_counted(store: LabelStore):
    app = make_app(store, origins=[ORIGIN])
    admin = Person(store, "admin", "admin", app=app)
    body = b'{"csp-report": {"blocked-uri": "inline"}}'
    kind = {"Content-Type": "application/csp-report", "Origin": "null"}
    for site in ("same-origin", "cross-site"):
        admin.browser.post("/csp-report", content=body, headers={**kind, "Sec-Fetch-Site": site})
    assert "1" in admin.get("/admin").text
    assert admin.browser.post("/csp-report", content=body, headers=kind).status_code == 204
