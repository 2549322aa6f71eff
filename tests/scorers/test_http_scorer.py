"""A server as a scorer: what is sent, what is tried again, what is final, and what is never shown."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipelines.config.scorer_section import ScorerSection
from pipelines.data.rows import Message
from pipelines.errors import DataError, HubError, UsageError
from pipelines.scorers import Completion
from pipelines.scorers.http_poster import LARGEST_ANSWER
from pipelines.scorers.http_scorer import HttpScorer
from pipelines.scorers.protocol import ScoreError

PROMPTS = [(Message(role="system", content="be kind"), Message(role="user", content=f"q{n}")) for n in range(5)]
COMPLETIONS = [Completion("x" * n, (), True) for n in range(5)]
SECRET = "key=s3cret"
Answer = tuple[int, bytes]


class Server:
    """Answers as `reply` says, called with the number of the request and its body."""

    def __init__(self) -> None:
        self.reply: Callable[[int, dict[str, Any]], Answer] = lambda number, body: scores(map(len, body["completions"]))
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.drips = 0.0
        """Seconds after each byte of an answer."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                server.headers.append(dict(self.headers))
                status, answer = server.reply(len(server.bodies), body)
                if status == 0:  # hang up without an answer
                    self.connection.close()
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                step = 1 if server.drips else len(answer) or 1
                try:
                    for place in range(0, len(answer), step):
                        self.wfile.write(answer[place : place + step])
                        time.sleep(server.drips)
                except OSError:  # the client has had enough
                    pass

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/score"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def scores(values: Any) -> Answer:
    return 200, json.dumps({"scores": list(values)}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SCORER_KEY", "s3cret")
    found = Server()
    yield found
    found.close()


def scorer(server: Server, waits: list[float] | None = None, progress: Any = None, **options: Any) -> HttpScorer:
    sleep = waits.append if waits is not None else lambda seconds: None
    section = ScorerSection(kind="http", url=f"{server.url}?key=${{SCORER_KEY}}", **options)
    return HttpScorer("judge", section, progress=progress, sleep=sleep)


def test_batches_go_out_as_messages_and_texts_and_come_back_in_order(server: Server):
    told: list[int] = []
    judge = scorer(server, batch_size=2, progress=told.append)
    assert judge(PROMPTS, COMPLETIONS) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert told == [2, 2, 1]
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "q4"}]
    assert server.bodies[2] == {"prompts": [turns], "completions": ["xxxx"], "finished": [True]}
    assert (judge.counts["requests"], judge.counts["retries"]) == (3, 0)
    assert judge.counts["seconds"] > 0


@pytest.mark.parametrize("broken", [500, 503, 0], ids=["500", "503", "hangs up"])
def test_what_may_pass_is_tried_again_with_growing_waits(server: Server, broken: int):
    server.reply = lambda number, body: (broken, b"") if number < 4 else scores([7] * len(body["completions"]))
    waits: list[float] = []
    judge = scorer(server, waits)
    assert judge(PROMPTS, COMPLETIONS) == [7.0] * 5
    assert waits == [0.5, 1.0, 2.0]
    assert (judge.counts["requests"], judge.counts["retries"]) == (4, 3)


def test_a_timeout_is_tried_again(server: Server):
    def slow_at_first(number: int, body: dict[str, Any]) -> Answer:
        time.sleep(0.5 if number == 1 else 0)
        return scores([1] * len(body["completions"]))

    server.reply = slow_at_first
    judge = scorer(server, timeout=0.2)
    assert judge(PROMPTS, COMPLETIONS) == [1.0] * 5
    assert judge.counts["retries"] == 1


def test_an_answer_that_drips_is_a_timeout(server: Server):
    server.drips = 0.05  # each byte well within the timeout, the whole answer not
    judge = scorer(server, timeout=0.3, retries=1)
    began = time.monotonic()
    with pytest.raises(HubError, match=r"in 2 tries.*not complete after 0\.3 s"):
        judge(PROMPTS, COMPLETIONS)
    assert time.monotonic() - began < 5
    assert judge.counts["retries"] == 1


def test_the_row_of_a_bad_score_counts_from_the_first_batch(server: Server):
    server.reply = lambda number, body: scores([float("nan") if number == 2 else 1.0] * len(body["completions"]))
    with pytest.raises(ScoreError, match="for completion 3") as caught:
        scorer(server, batch_size=2)(PROMPTS, COMPLETIONS)
    assert caught.value.row == 2


def test_tools_and_calls_reach_the_server(server: Server):
    tool, call = {"name": "weather"}, {"name": "weather", "arguments": {}}
    turns = (
        Message(role="user", content="rain?", tools=(tool,)),
        Message(role="assistant", content="", tool_calls=(call,)),
    )
    scorer(server)([turns], COMPLETIONS[:1])
    assert [turn.get("tools") or turn.get("tool_calls") for turn in server.bodies[0]["prompts"][0]] == [[tool], [call]]


def test_after_the_last_try_it_is_a_network_error_with_the_place_and_without_the_secret(server: Server):
    server.reply = lambda number, body: (502, b"")
    with pytest.raises(HubError, match=r"in 3 tries.*502") as caught:
        scorer(server, retries=2)(PROMPTS, COMPLETIONS)
    assert len(server.bodies) == 3
    assert caught.value.exit_code == 10
    assert caught.value.where == server.url
    assert "s3cret" not in str(caught.value.as_dict())


def test_nobody_there_is_a_network_error(server: Server):
    server.close()
    with pytest.raises(HubError, match="2 tries: ConnectError"):
        scorer(server, retries=1)(PROMPTS, COMPLETIONS)


@pytest.mark.parametrize("status", [404, 401, 429, 302])
def test_a_refusal_is_final(server: Server, status: int):
    server.reply = lambda number, body: (status, b"")
    with pytest.raises(HubError, match=str(status)) as caught:
        scorer(server)(PROMPTS, COMPLETIONS)
    assert len(server.bodies) == 1
    assert "s3cret" not in str(caught.value.as_dict())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"scores": [1, 2]}', "2 scores for 5 completions"),
        (b'{"scores": [1, 2, 3, 4, NaN]}', "must be finite"),
        (b'{"scores": [1, 2, 3, true, 5]}', "gave true for completion 4"),
        (b'{"scores": [1]}' + b" " * LARGEST_ANSWER, "more than 16777216 bytes"),
        (b'{"scores": [1, 2, 3, 4, null]}', "NoneType"),
        (b'{"scores": [1, 2, 3, 4, "5"]}', "text '5'"),
        (b'{"score": 1}', "without a list of `scores`"),
        (b"[1, 2, 3, 4, 5]", "without a list of `scores`"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_an_answer_that_is_no_list_of_scores_is_a_data_error(server: Server, answer: bytes, words: str):
    server.reply = lambda number, body: (200, answer)
    with pytest.raises(DataError, match=words) as caught:
        scorer(server)(PROMPTS, COMPLETIONS)
    assert caught.value.where == server.url
    assert len(server.bodies) == 1


def test_the_token_comes_from_the_environment_and_nowhere_else(server: Server, monkeypatch: pytest.MonkeyPatch):
    section = ScorerSection(kind="http", url=server.url, token_env="JUDGE_TOKEN", batch_size=5)
    monkeypatch.delenv("JUDGE_TOKEN", raising=False)
    with pytest.raises(UsageError, match="JUDGE_TOKEN is not set"):
        HttpScorer("judge", section)
    monkeypatch.setenv("JUDGE_TOKEN", "t0ken")
    HttpScorer("judge", section)(PROMPTS, COMPLETIONS)
    assert server.headers[0]["Authorization"] == "Bearer t0ken"
    assert "t0ken" not in str(section.results_view())


def test_no_log_line_holds_the_query(server: Server, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        scorer(server)(PROMPTS, COMPLETIONS)
    assert "s3cret" not in caplog.text
