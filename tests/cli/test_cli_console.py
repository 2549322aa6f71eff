"""Progress and words: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cli import console
from rlhf_cli.console import ConsoleReporter, fields_text, seconds_text, styled

SHOW = """
from rlhf_cli.console import ConsoleReporter
reporter = ConsoleReporter()
with reporter.task("ppo", 3) as task:
    task.advance(kl=0.5)
    reporter.warn("odd \\x1b[5mtext [bold]")
    task.advance(2, kl=0.25)
"""


def test_plain_lines_come_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 6.0, 7.0, 8.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with ConsoleReporter().task("ppo", 4) as task:
        for kl in (0.1, 0.2, 0.3, 0.4):
            task.advance(kl=kl)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["ppo: 2/4 · 0:06 left · kl 0.2", "ppo: 4/4 · done in 0:08 · kl 0.4"]


def test_work_that_goes_on_counts_what_was_done_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with ConsoleReporter().task("training", 8, 4) as task:
        task.advance(1)
    assert capsys.readouterr().err == "training: 5/8 · 5:00 left\n"


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConsoleReporter(quiet=True)
    reporter.info("hidden")
    reporter.warn("shown")
    with reporter.task("ppo", 1) as task:
        task.advance()
    assert capsys.readouterr().err == "warning: shown\n"


def terminal_output(tmp_path: Path, **environment: str) -> str:
    """What SHOW writes when stderr is a terminal."""
    master, slave = pty.openpty()
    repository = str(Path(__file__).parents[2])
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    done = subprocess.Popen(
        [sys.executable, "-c", SHOW],
        stderr=slave,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": repository, "TERM": "xterm", "COLUMNS": "100"} | environment,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:  # Linux ends a closed terminal so.
            break
        if not block:
            break
        shown += block
    os.close(master)
    assert done.communicate()[0] == b""
    assert done.returncode == 0
    return shown.decode()


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    shown = terminal_output(tmp_path)
    assert "3/3" in shown
    assert "kl 0.25" in shown
    assert "\x1b[33mwarning: " in shown
    assert "odd ⟨U+001B⟩[5mtext [bold]" in shown, "text is neither markup nor an escape sequence"


def test_no_color_and_dumb_terminals_are_honored(tmp_path: Path) -> None:
    assert "\x1b[33m" not in terminal_output(tmp_path, NO_COLOR="1")
    assert "\x1b" not in terminal_output(tmp_path, TERM="dumb")


def test_small_helpers() -> None:
    assert [seconds_text(value) for value in (0, 7.4, 754, 3723)] == ["0:00", "0:07", "12:34", "1:02:03"]
    assert fields_text({"kl": 0.01234, "reward": 1.0}) == "kl 0.0123 · reward 1"
    assert styled("x", "1", io.StringIO()) == "x"
