"""Hostile input: nothing hangs, nothing eats the machine, and each is an error with its exit code."""

from __future__ import annotations

import json
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from peft import LoraConfig

from pipelines.config import load_config
from pipelines.config.data_section import Source
from pipelines.config.model_section import ModelSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.read import SourceReader
from pipelines.data.rows import Message
from pipelines.errors import ArtifactError, DataError, HubError, UsageError
from pipelines.models.adapters import add_adapter
from pipelines.models.base_model import load_causal
from pipelines.run.directory import RunDir
from pipelines.scorers.http_scorer import HttpScorer
from pipelines.scorers.protocol import Completion
from rlhf_cli.app import run as rlhf
from tests.models.helpers import outside_base
from tests.models.test_adapters import CPU
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
        "sft: &a {trainer: *a}\n",
        "[" * 5000,
    ],
    ids=["alias bomb", "cycle", "depth"],
)
def test_yaml_that_stands_for_more_than_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    began = time.monotonic()
    with pytest.raises(UsageError):
        load_config(tmp_path / "c.yaml")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("setting", ["run.seed=4294967296", "run.threads=100000", "sft.num_train_epochs=1e308"])
def test_numbers_that_no_machine_takes(setting: str) -> None:
    with pytest.raises(UsageError):
        load_config(None, [setting])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "c.yaml"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    if name.endswith(".yaml"):
        with pytest.raises(UsageError, match="regular file"):
            load_config(tmp_path / name)
        return
    with pytest.raises(DataError, match="no regular file"):
        list(SourceReader(Source(path=str(tmp_path / name))))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def scorer(listener: socket.socket, monkeypatch: pytest.MonkeyPatch, timeout: float = 0.5) -> HttpScorer:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    section = ScorerSection(
        kind="http", url=f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=timeout, retries=0
    )
    return HttpScorer("judge", section)


def score(judge: HttpScorer) -> list[float]:
    return judge([(Message(role="user", content="q"),)], [Completion("a", (1,), True)])


def answering(listener: socket.socket, *parts: bytes, again: bool = False) -> None:
    """Answer one connection with these parts; with `again` the last one until the client has gone."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            try:
                for part in parts:
                    connection.sendall(part)
                while again:
                    connection.sendall(parts[-1])
                    time.sleep(0.05)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()


@pytest.mark.parametrize("part", [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_the_timeout_of_a_server_holds_for_headers_too(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    answering(listener, part, again=True)
    with pytest.raises(HubError, match=r"gave no answer in 1 try|failed"):
        score(scorer(listener, monkeypatch))


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"scores": ' + b"[" * 200_000, b'{"scores": [' + b"9" * 4000 + b"]}", b'{"scores": [1e999]}'],
)
def test_an_answer_that_is_no_number_is_bad_data(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    answering(listener, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    with pytest.raises(DataError):
        score(scorer(listener, monkeypatch, timeout=30))


def test_a_model_of_a_million_layers(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1_000_000}))
    with pytest.raises(UsageError, match="1,000,000 layers"):
        load_causal(ModelSection(name_or_path=str(base)), base, CPU)


def test_pickled_weights_run_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (os.mkdir, (str(tmp_path / "ran"),))

    base = outside_base(tmp_path / "base")
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ArtifactError) as refused:
        load_causal(ModelSection(name_or_path=str(base)), base, CPU)
    assert "weights_only" not in refused.value.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 100_000, b'{"event": "stage_waiting", "stage": []}\n', b"{}\n[]\n"]
)
@pytest.mark.parametrize("name", ["events.jsonl", ".lock.json"])
def test_a_damaged_note_never_stops_the_status(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "config.yaml").write_text("model: {name_or_path: x}\n")
    (tmp_path / name).write_bytes(content)
    RunDir(tmp_path).waiting()
    RunDir(tmp_path).holder()
    assert rlhf(["status", "--run-dir", str(tmp_path), "--json"]) == 0


@pytest.mark.timeout(120, method="thread")  # the alarm is ours
def test_a_template_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.chat._MOST_SECONDS", 0.5)
    loop = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    encoder = ChatEncoder(tiny_tokenizer(template=loop + "{{ messages[0].content }}"))
    with pytest.raises(DataError, match=r"takes more than 0\.5 seconds"):
        encoder.prompt((Message(role="user", content="hello"),))


@pytest.mark.timeout(120, method="thread")  # the alarm is ours
def test_a_pattern_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.models.adapters.MOST_SECONDS", 0.5)
    model = tiny_llama(tiny_tokenizer())
    with pytest.raises(ArtifactError, match="patterns of the adapter take too long"):
        add_adapter(model, "default", LoraConfig(target_modules=r"(([a-z.0-9_]+)+)+!", r=2), trainable=True)
