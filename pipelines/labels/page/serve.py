"""Serving of the label page: bind a socket, and answer until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipelines.errors import UsageError

MOST_CONNECTIONS = 500
"""At once: 50 annotators, each with a browser that opens several, leave room."""
REQUEST_SECONDS = 20.0
"""Seconds in which a client must send the head of a request."""
UNREAD_SECONDS = 30.0
"""Seconds in which a client must read what was sent before more is."""
KEEP_ALIVE_SECONDS = 15
CLOSING_SECONDS = 5
"""Seconds for which pending responses may continue after the signal that stops the server."""


class PatientProtocol(H11Protocol):
    """Uvicorn's own protocol, which waits for the head of a request and for a reader for ever, with limits to that.

    A connection is cut that does not read what was sent within `UNREAD_SECONDS`. One is closed that has not brought a
    whole head `REQUEST_SECONDS` after it was opened or after the first byte of the next request, or that still sends a
    body so long after the answer.
    """

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client came."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        self._forget()
        self._was_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client has not read what was sent."""
        super().pause_writing()
        self._was_read()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read most of it."""
        self._was_read()
        super().resume_writing()

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch(self) -> None:
        ours, theirs = self.conn.our_state, self.conn.their_state
        answered = ours in (h11.DONE, h11.MUST_CLOSE) and theirs is h11.SEND_BODY
        if theirs is not h11.IDLE and not answered:
            self._forget()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def configured(app: Any) -> uvicorn.Config:
    """The settings of uvicorn for the page."""
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,  # the path of a one-time link is a secret
        proxy_headers=False,  # anybody on this machine could send them
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one.

    Raises:
        UsageError: the port is taken or not allowed, or the machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"there is no address {host}: {error.strerror}", where="--host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server just ended does not block the port
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"{host} is no address of this machine", where="--host") from error
        raise UsageError(
            f"the page cannot be opened at {host}, port {port}: {error.strerror}",
            where="--port",
            hint="another program or another label page may use it: give --port another number, or --port 0 for any "
            "free one",
        ) from error
    listener.setblocking(False)
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that host."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def origins_of(host: str, port: int, url: str | None = None) -> tuple[str, ...]:
    """The addresses at which the page answers, that of its links first; of another that people open, `url` alone.

    Raises:
        UsageError: `url` is no address of a whole site, or is needed.
    """
    if url is not None:
        return (_checked(url),)
    if host in ("0.0.0.0", "::"):
        raise UsageError(
            f"{host} is every address of this machine, and a link needs one of them",
            where="--host",
            hint=f"add the one that people open: --url http://NAME:{port}",
        )
    origin = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return (origin, f"http://localhost:{port}") if is_loopback(host) and host != "localhost" else (origin,)


def _checked(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    whole = parts.scheme in ("http", "https") and parts.hostname and port != 0 and "@" not in parts.netloc
    if not whole or parts.path not in ("", "/") or parts.query or parts.fragment or not url.isascii():
        raise UsageError(
            f"{url!r} is not the address of a site", where="--url", hint="such as https://label.example.org"
        )
    name = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    usual = port is None or (parts.scheme, port) in (("http", 80), ("https", 443))  # browsers leave it out
    return f"{parts.scheme}://{name}" + ("" if usual else f":{port}")


def serve(app: Any, listener: socket.socket, *, started: Callable[[], None]) -> None:
    """Answer until SIGINT or SIGTERM, which then does what it would have done without the server.

    `started` is called once, when requests are answered.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

    asyncio.run(Server(configured(app)).serve([listener]))
