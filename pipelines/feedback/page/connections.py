"""How connections are served: quiet, strict, and with patience for slow clients, but not without end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 500
"""At once: 50 annotators, each with a browser that opens several, leave room."""
REQUEST_SECONDS = 20.0
"""How long a client may take to send the head of a request."""
KEEP_ALIVE_SECONDS = 15
CLOSING_SECONDS = 5
"""How long answers that are under way may take after the signal that ends the server."""


class PatientProtocol(H11Protocol):
    """Uvicorn's own protocol, which waits for the head of a request for ever, with a limit to that.

    A connection is closed that has not brought a whole head `REQUEST_SECONDS` after it was opened or after the first
    byte of the next request, or that still sends a body so long after the answer.
    """

    _deadline: asyncio.TimerHandle | None = None

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
        super().connection_lost(exc)

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
