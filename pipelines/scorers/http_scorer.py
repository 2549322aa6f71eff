"""A server as a scorer: it gets prompts and completions as JSON and returns scores."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from queue import Empty, Queue
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from pipelines.config.scorer_section import VARIABLE, ScorerSection
from pipelines.data.rows import as_dict
from pipelines.errors import DataError, HubError, UsageError
from pipelines.scorers.protocol import Completion, Dialogue, Progress, ScoreError, checked_scores

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the first retry of a request, doubled each time, and the maximum."""
LARGEST_ANSWER = 2**24
"""Maximum bytes of an answer."""
_PASSING = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
"""Errors that may be gone when the same request is sent again."""
logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log the whole address of each request


_GRACE = 1.0
"""Seconds beyond the timeout in which the client itself may notice it."""


class HttpScorer:
    """POSTs prompts and completions, and reads ``{"scores": [number]}``.

    The body is ``{"prompts": [[{role, content}]], "completions": [text], "finished": [bool]}``.
    A server error (5xx), a timeout or a lost connection is retried after a growing wait; any other status is final.
    Only scheme, host and path of the address are ever shown: the rest may be a secret.

    Attributes:
        name: its name in tables.
        counts: number of requests, number of retries among them, and seconds spent on them, waits included.
    """

    def __init__(
        self,
        name: str,
        section: ScorerSection,
        *,
        progress: Progress | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make the scorer; nothing is sent yet.

        Raises:
            UsageError: an environment variable that `section` names is not set.
        """
        self.name = name
        self.counts: dict[str, float] = {"requests": 0, "retries": 0, "seconds": 0.0}
        self._url = VARIABLE.sub(lambda name: quote(token_from(name[1]), safe=""), str(section.url))
        self._section = section
        self._progress = progress
        self._sleep = sleep
        self._headers = (
            {} if section.token_env is None else {"Authorization": f"Bearer {token_from(section.token_env)}"}
        )
        self._client = self._new_client()

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """Scores of the server, batch by batch.

        Raises:
            HubError: the server cannot be reached or refuses, after all retries.
            DataError: its answer is not one finite number for each completion.
        """
        scores: list[float] = []
        for start in range(0, len(prompts), self._section.batch_size):
            part = slice(start, start + self._section.batch_size)
            turns = [[as_dict(turn) for turn in prompt] for prompt in prompts[part]]
            texts = [completion.read(thoughts=self._section.read_thoughts) for completion in completions[part]]
            finished = [completion.finished for completion in completions[part]]
            began = time.monotonic()
            try:
                answer = self._post({"prompts": turns, "completions": texts, "finished": finished})
            finally:
                self.counts["seconds"] += time.monotonic() - began
            scores += self._read(answer, len(texts), start)
            if self._progress is not None:
                self._progress(len(texts))
        return scores

    def _new_client(self) -> httpx2.Client:
        return httpx2.Client(timeout=self._section.timeout, headers=self._headers)

    def _post(self, body: dict[str, Any]) -> bytes:
        """Send the body until an answer has status 200, and return that answer."""
        wait, fault = FIRST_WAIT, ""
        for attempt in range(1 + self._section.retries):
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
                raise HubError(
                    f"a request to the reward server {self.name} failed: {type(error).__name__}",
                    where=public_address(self._url),
                ) from error
            if status == HTTPStatus.OK:
                return answer
            fault = f"it answers with status {status} {httpx2.codes.get_reason_phrase(status)}"
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise HubError(
                    f"the reward server {self.name} refuses: {fault}",
                    where=public_address(self._url),
                    hint="check the address, and `token_env` where it needs a token",
                )
        tries = 1 + self._section.retries
        raise HubError(
            f"the reward server {self.name} gave no scores in {tries} {'tries' if tries > 1 else 'try'}: {fault}",
            where=public_address(self._url),
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

        threading.Thread(target=request, daemon=True, name=f"reward server {self.name}").start()
        try:
            answer = answers.get(timeout=self._section.timeout + _GRACE)
        except Empty:
            self._client.close()  # it ends the thread
            self._client = self._new_client()
            raise httpx2.ReadTimeout(f"its answer was not complete after {self._section.timeout:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _request(self, body: dict[str, Any]) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._section.timeout
        with self._client.stream("POST", self._url, json=body) as response:
            if response.status_code != HTTPStatus.OK:
                return response.status_code, b""
            answer = bytearray()
            for chunk in response.iter_bytes():
                answer += chunk
                if len(answer) > LARGEST_ANSWER:
                    raise DataError(
                        f"the reward server {self.name} answers with more than {LARGEST_ANSWER} bytes",
                        where=public_address(self._url),
                        hint='it must answer {"scores": [...]} and little else',
                    )
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout(f"its answer was not complete after {self._section.timeout:g} s")
            return response.status_code, bytes(answer)

    def _read(self, body: bytes, rows: int, start: int) -> list[float]:
        """Parse the scores of `rows` completions from number `start` on."""
        called = f"the reward server {self.name}"
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{called} answers with something that is not JSON", where=public_address(self._url)
            ) from error
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise DataError(
                f"{called} answers without a list of `scores`",
                where=public_address(self._url),
                hint='it must answer {"scores": [...]} with one number for each completion',
            )
        try:
            for row, score in enumerate(scores):
                if isinstance(score, bool):
                    raise ScoreError(
                        f"{called} gave {str(score).lower()} for completion {start + row + 1}; it must be a number",
                        start + row,
                    )
            return checked_scores(called, scores, rows, start=start)
        except DataError as error:
            error.where = public_address(self._url)
            raise


def token_from(variable: str) -> str:
    """Read a token from an environment variable.

    Raises:
        UsageError: the variable is not set.
    """
    token = os.environ.get(variable)
    if not token:
        raise UsageError(f"the environment variable {variable} is not set", hint=f"export {variable}=...")
    return token


def public_address(url: str) -> str:
    """The address without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
