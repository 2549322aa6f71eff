"""Sockets, addresses, and clients that are too slow."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipelines.errors import LockedError, UsageError
from pipelines.labels.label_types import Task
from pipelines.labels.page import serve
from pipelines.labels.page.app import make_app
from pipelines.labels.store.contents import ADMIN
from pipelines.labels.store.store import LabelStore, announced, running_server
from tests.labels.page.support import make_store, make_task


@contextlib.contextmanager
def served(path: Path, tasks: Sequence[Task] | None = None) -> Iterator[int]:
    """The real server in a thread of this process; gives its port."""
    import uvicorn

    with make_store(path, tasks) as store, serve.bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        app = make_app(store, origins=serve.origins_of("127.0.0.1", port))
        server = uvicorn.Server(serve.configured(app))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join()


def ask(port: int, request: bytes, *, wait: float = 5) -> bytes:
    """What the server says until it closes the line."""
    with socket.create_connection(("127.0.0.1", port), wait) as line, contextlib.suppress(OSError):
        line.sendall(request.replace(b"PORT", str(port).encode()))
        return b"".join(iter(lambda: line.recv(65536), b""))
    return b""


def test_on_the_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve, "REQUEST_SECONDS", 0.3)
    host = b"Host: 127.0.0.1:PORT\r\nConnection: close\r\n"
    with served(tmp_path) as port:
        assert ask(port, b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n").endswith(b"\r\n\r\nok")
        for path in rb"//evil.example /static/../../../etc/passwd /static/%00 /..;/admin /\..\x *".split():
            answer = ask(port, b"GET " + path + b" HTTP/1.1\r\n" + host + b"\r\n")
            assert answer.split(b" ")[1] in (b"404", b"400"), answer
            assert b"root:" not in answer
            assert b"\r\nlocation:" not in answer.lower()
        for broken in (
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nHost: evil\r\n\r\n",  # which of them?
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /" + b"a" * 2_000_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
            b"POST /api/undo HTTP/1.1\r\n" + host + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /api/undo HTTP/1.1\r\n" + host + b"Content-Length: -5\r\n\r\n{}",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ):
            # nothing: the line was cut before the answer was read
            answer = ask(port, broken)
            assert answer[:12] in (b"HTTP/1.1 400", b""), (broken[:60], answer)
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"
        answer = ask(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n" + upgrade + b"\r\n", wait=1)
        assert b"101" not in answer[:20]
        started = time.monotonic()
        assert ask(port, b"") == b""  # who says nothing
        assert ask(port, b"GET / HTTP/1.1\r\nHost: 127.0") == b""  # who does not end
        assert time.monotonic() - started < 4


def test_an_export_that_nobody_reads_is_cut_and_the_page_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve, "UNREAD_SECONDS", 0.5)
    long_tasks = [make_task(f"task-{number}", [f"{side} " + "word " * 20_000 for side in "ab"]) for number in range(60)]
    host = b"Host: 127.0.0.1:PORT\r\nConnection: close\r\n"
    with served(tmp_path, long_tasks) as port:
        with LabelStore.open(tmp_path / "labels.sqlite") as store:
            link = store.login_token(ADMIN, "admin")
        entered = ask(port, b"GET /enter/" + link.encode() + b" HTTP/1.1\r\n" + host + b"\r\n")
        cookie = re.search(rb"(?i)set-cookie: ([^;]+)", entered)
        assert cookie is not None
        asked = b"GET /admin/export HTTP/1.1\r\n" + host + b"Cookie: " + cookie[1] + b"\r\n\r\n"
        whole = ask(port, asked, wait=60)
        assert whole.startswith(b"HTTP/1.1 200")
        assert len(whole) > 10_000_000
        with socket.create_connection(("127.0.0.1", port), 60) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.sendall(asked.replace(b"PORT", str(port).encode()))
            assert line.recv(12) == b"HTTP/1.1 200"
            with contextlib.suppress(OSError):
                wait_until_cut(line)
            assert ask(port, b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n").endswith(b"ok")


def wait_until_cut(line: socket.socket) -> None:
    """Wait, without reading, until the other side is gone: a write then fails."""
    for _ in range(600):
        time.sleep(0.1)
        line.sendall(b"x")
    raise AssertionError("the line was never cut")


def test_a_taken_port_says_what_to_do():
    with serve.bind("127.0.0.1", 0) as taken, pytest.raises(UsageError, match="port") as error:
        serve.bind("127.0.0.1", taken.getsockname()[1])
    assert "--port" in str(error.value.hint)
    with pytest.raises(UsageError, match="there is no address"):
        serve.bind("no-such-host.invalid", 0)


@pytest.mark.parametrize(
    ("host", "url", "origins"),
    [
        ("127.0.0.1", None, ("http://127.0.0.1:80", "http://localhost:80")),
        ("localhost", None, ("http://localhost:80",)),
        ("::1", None, ("http://[::1]:80", "http://localhost:80")),
        ("192.168.1.5", None, ("http://192.168.1.5:80",)),
        ("127.0.0.1", "https://Label.Example.org/", ("https://label.example.org",)),
        ("0.0.0.0", "https://x.org:443", ("https://x.org",)),
        ("0.0.0.0", "http://x.org:8765", ("http://x.org:8765",)),
    ],
)
def test_addresses(host: str, url: str | None, origins: tuple[str, ...]):
    assert serve.origins_of(host, 80, url) == origins


@pytest.mark.parametrize(
    "url", ["x.org", "ftp://x.org", "https://x.org/path", "https://", "http://a@x.org", "http://x:y"]
)
def test_what_is_no_address(url: str):
    with pytest.raises(UsageError):
        serve.origins_of("127.0.0.1", 80, url)


def test_every_address_at_once_needs_one_for_the_links():
    with pytest.raises(UsageError, match="every address") as error:
        serve.origins_of("0.0.0.0", 8765)
    assert "--url" in str(error.value.hint)
    assert [serve.is_loopback(host) for host in ("127.0.0.2", "::1", "localhost", "0.0.0.0", "10.0.0.1", "x.org")] == [
        True
    ] * 3 + [False] * 3


def test_where_the_page_is_can_be_asked(tmp_path: Path):
    with make_store(tmp_path) as store:
        note = tmp_path / "labels.sqlite.server.json"
        assert running_server(store.path) is None
        with announced(store, "http://127.0.0.1:1"):
            assert running_server(store.path) == "http://127.0.0.1:1"
            assert note.stat().st_mode & 0o777 == 0o600
            with (
                pytest.raises(LockedError, match=r"http://127\.0\.0\.1:1"),
                announced(store, "http://127.0.0.1:2"),
            ):
                pass
            assert running_server(store.path) == "http://127.0.0.1:1"
            text = note.read_text()
        assert not note.exists()
        dead = os.spawnv(os.P_NOWAIT, "/bin/true", ["true"])
        os.waitpid(dead, 0)
        note.write_text(text.replace(str(os.getpid()), str(dead)))  # as a killed server leaves it
        assert running_server(store.path) is None
        note.write_text("[]")
        assert running_server(store.path) is None
