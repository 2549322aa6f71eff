"""Requests to a server of the user: a JSON body out, an answer back, with retries, and secrets that are never shown."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from queue import Empty, Queue
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from pipelines.config.scorer_section import VARIABLE
from pipelines.errors import DataError, HubError, UsageError

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the first retry of a request, doubled each time, and the maximum."""
LARGEST_ANSWER = 2**24
"""Maximum bytes of an answer."""
_PASSING = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
"""Errors that may be gone when the same request is sent again."""
logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log the whole address of each request


_GRACE = 1.0
"""Seconds beyond the timeout in which the client itself may notice it."""


class HttpPoster:
    """POSTs JSON to one address.

    A server error (5xx), a timeout or a lost connection is retried after a growing wait; any other status is final.
    Only scheme, host and path of the address are ever shown: the rest may be a secret.

    Attributes:
        called: name of the server in errors.
        address: its public address.
        counts: number of requests, number of retries among them, and seconds spent on them, waits included.
    """

    def __init__(
        self,
        called: str,
        url: str,
        *,
        token_env: str | None,
        timeout: float,
        retries: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make the client; nothing is sent yet.

        Args:
            url: its address, in which ${NAME} stands for a variable of the environment.
            token_env: variable whose value is sent as a bearer token; None: none is.
            timeout: seconds to wait for one answer.

        Raises:
            UsageError: an environment variable is not set.
        """
        self.called = called
        self.counts: dict[str, float] = {"requests": 0, "retries": 0, "seconds": 0.0}
        self._url = VARIABLE.sub(lambda name: quote(token_from(name[1]), safe=""), url)
        self.address = public_address(self._url)
        self._timeout, self._retries, self._sleep = timeout, retries, sleep
        self._headers = {} if token_env is None else {"Authorization": f"Bearer {token_from(token_env)}"}
        self._client = self._new_client()

    def post(self, body: dict[str, Any]) -> bytes:
        """Send the body until an answer has status 200, and return that answer.

        Raises:
            HubError: the server cannot be reached or refuses, after all retries.
            DataError: its answer is too large.
        """
        began = time.monotonic()
        try:
            return self._post(body)
        finally:
            self.counts["seconds"] += time.monotonic() - began

    def _new_client(self) -> httpx2.Client:
        return httpx2.Client(timeout=self._timeout, headers=self._headers)

    def _post(self, body: dict[str, Any]) -> bytes:
        """Send the body until an answer has status 200, and return that answer."""
        wait, fault = FIRST_WAIT, ""
        for attempt in range(1 + self._retries):
            if attempt:
                self._sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
                self.counts["retries"] += 1
            self.counts["requests"] += 1
            try:
                status, answer = self._ask(body)
            except _PASSING as error:
                fault = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                continue
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                problem = f"a request to {self.called} failed: {type(error).__name__}"
                raise HubError(problem, where=self.address) from error
            if status == HTTPStatus.OK:
                return answer
            fault = f"it answers with status {status} {httpx2.codes.get_reason_phrase(status)}"
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise HubError(
                    f"{self.called} refuses: {fault}",
                    where=self.address,
                    hint="check the address, and `token_env` where it needs a token",
                )
        tries = 1 + self._retries
        raise HubError(
            f"{self.called} gave no answer in {tries} {'tries' if tries > 1 else 'try'}: {fault}",
            where=self.address,
            hint="check that it runs; raise `timeout` or `retries` of the scorer to give it more time",
        )

    def _ask(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of one answer; the body of a refusal is not read.

        The client's own timeout applies to each read: a server that keeps sending single bytes, or one `102 Processing`
        after another, would never reach it. So the whole request has one, in a thread of its own.
        """
        answers: Queue[tuple[int, bytes] | Exception] = Queue()

        def request() -> None:
            try:
                answers.put(self._request(body))
            except Exception as error:  # it belongs to whoever waits for the answer
                answers.put(error)

        threading.Thread(target=request, daemon=True, name=f"{self.called}").start()
        try:
            answer = answers.get(timeout=self._timeout + _GRACE)
        except Empty:
            self._client.close()  # it ends the thread
            self._client = self._new_client()
            raise httpx2.ReadTimeout(f"its answer was not complete after {self._timeout:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _request(self, body: dict[str, Any]) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._timeout
        with self._client.stream("POST", self._url, json=body) as response:
            if response.status_code != HTTPStatus.OK:
                return response.status_code, b""
            answer = bytearray()
            for chunk in response.iter_bytes():
                answer += chunk
                if len(answer) > LARGEST_ANSWER:
                    raise DataError(
                        f"{self.called} answers with more than {LARGEST_ANSWER} bytes",
                        where=self.address,
                        hint="it must answer with what was asked for and little else",
                    )
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout(f"its answer was not complete after {self._timeout:g} s")
            return response.status_code, bytes(answer)


def token_from(variable: str) -> str:
    """Read a token from an environment variable, which must be set (UsageError)."""
    token = os.environ.get(variable)
    if not token:
        raise UsageError(f"the environment variable {variable} is not set", hint=f"export {variable}=...")
    return token


def public_address(url: str) -> str:
    """The address without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
