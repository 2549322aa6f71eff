"""A program that is a fork of the server ends as one that is not, and with the process that stands for it."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from pathlib import Path

import httpx2
import pytest

from tests.programs import program


@pytest.mark.parametrize(("line", "code"), [("env", 0), ("status --run-dir nowhere", 2), ("label gone.jsonl", 3)])
def test_cold_and_forked_end_alike(tmp_path: Path, line: str, code: int) -> None:
    ends = []
    for cold in (True, False):
        process = program(tmp_path, *line.split(), cold=cold)
        ends.append((*process.communicate(timeout=120), process.returncode))
    assert ends[0] == ends[1]
    assert ends[0][2] == code


def test_a_kill_reaches_the_fork(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    process = program(tmp_path, "label", "pairs.jsonl", "--port", "0", "--json")
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())["address"]
    assert httpx2.get(f"{address}/healthz").text == "ok"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with contextlib.suppress(httpx2.TransportError):
        while httpx2.get(f"{address}/healthz").text:
            time.sleep(0.01)
