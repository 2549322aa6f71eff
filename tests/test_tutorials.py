"""Every command of docs/tutorials, in order and character by character, by bash in a folder of its own.

Three things stand in for what a reader has: a tiny model at the relative path that is the hub id of the pages, `rlhf`
on PATH, and programs that answer for the annotators. A comment above a block, ``<!-- file: NAME -->``, writes the block
to a file. ``# exit N`` behind a command, a comment to bash as well, is the exit code that the command must end with.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from filelock import FileLock

from tests.programs import environment
from tests.tiny import save_pair, tiny_llama, tiny_tokenizer

REPOSITORY = Path(__file__).parents[1]
TUTORIALS = sorted((REPOSITORY / "docs" / "tutorials").glob("*.md"))
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PORT = 8765
"""Default port of `rlhf label`: one page at a time can be open on a machine."""
_BLOCK = re.compile(r"((?:^<!--[^\n]*-->\n)*)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"<!-- file: (\S+) -->")
_EXIT = re.compile(r"   # exit (\d+)$")
_LINK = re.compile(rf"(\S+) +(http://127\.0\.0\.1:{PORT})(/\S+)")


@dataclass(frozen=True)
class Step:
    """A thing to do: write a file, or run a command.

    `text` is the content of the file `name`, or the command as it stands on the page.
    """

    text: str
    name: str = ""
    exit_code: int = 0


def steps_of(page: Path) -> Iterator[Step]:
    for notes, language, body in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if file := _FILE.search(notes):
            yield Step(body, name=file[1])
        elif language == "sh":
            for line in re.split(r"(?<!\\)\n", body.rstrip("\n")):
                code = _EXIT.search(line)
                yield Step(line, exit_code=int(code[1]) if code else 0)


class Bench:
    """A folder in which the commands of a page are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tokenizer = tiny_tokenizer()
        save_pair(tiny_llama(tokenizer), tokenizer, folder / HUB_ID)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "rlhf").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rlhf_cli "$@"\n')
        (programs / "rlhf").chmod(0o755)
        self.environment = environment(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")

    def do(self, step: Step) -> None:
        if step.name:
            (self.folder / step.name).write_text(step.text, encoding="utf-8")
        elif step.text.startswith("rlhf label "):
            with FileLock(Path(tempfile.gettempdir()) / f"rlhf-tests-{os.getuid()}-port-{PORT}.lock"):
                self.label(step)
        else:
            self.run(step)

    def run(self, step: Step) -> None:
        assert step.text.startswith("rlhf "), f"the tutorials use rlhf alone: {step.text}"
        with self.start(step) as process:
            output, errors = process.communicate(timeout=240)
        assert process.returncode == step.exit_code, f"{step.text}\n{output[-2000:]}\n{errors[-4000:]}"
        assert "Traceback" not in errors

    def start(self, step: Step) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", step.text],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def label(self, step: Step) -> None:
        """Open the page, let a program answer for every person until nothing is left, and close it by Ctrl-C."""
        with self.start(step) as page:
            assert page.stdout is not None
            try:
                links = dict(read_links(page.stdout))
                assert links.pop("admin", None), page.stderr.read() if page.stderr else ""
                with ThreadPoolExecutor(len(links)) as people:
                    for done in [people.submit(judge_all, *link) for link in links.values()]:
                        done.result(120)
            finally:
                page.send_signal(signal.SIGINT)
            _, errors = page.communicate(timeout=30)
        assert page.returncode == 130, errors
        assert "Traceback" not in errors


def read_links(lines: Iterable[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Name, and address and path of the link, of everybody for whom the label page prints one; the admin is last."""
    for line in lines:
        link = _LINK.fullmatch(line.rstrip())
        assert link, f"no name and link: {line}"
        name, address, path = link.groups()
        yield name, (address, path)
        if name == "admin":
            return


def judge_all(address: str, link: str) -> None:
    """Answer every task of one link: by the length of the answers, shortest first."""
    with httpx2.Client(base_url=address, timeout=30) as browser:
        assert browser.get(link).status_code == 200
        for _ in range(200):
            page = browser.get("/").text
            form = re.search(r'<form id="task" data-task="(\w+)" data-version="(\d+)"', page)
            if form is None:
                return
            fields = re.findall(r'data-question="(\w+)" data-kind="(\w+)" data-place="(\d+)"', page)
            texts = re.findall(r'class="text[^"]*"[^>]*>(.*?)</', page, re.DOTALL)
            values: dict[str, list[int]] = {}
            for name, kind, place in fields:
                length = len(texts[int(place)]) if int(place) < len(texts) else int(place)
                values.setdefault(name, []).append(length if kind == "ranking" else 1 + length % 2)
            ranked = {
                name: [sorted(set(found)).index(value) + 1 for value in found] if name == "overall" else found
                for name, found in values.items()
            }
            answer = {"task": form[1], "version": int(form[2]), "key": str(uuid.uuid4())}
            answer |= {"values": ranked, "comment": "", "flagged": False, "skipped": False, "seconds": 7.5}
            headers = {"X-RLHF": "1", "Origin": address, "Sec-Fetch-Site": "same-origin"}
            sent = browser.post("/api/submit", json=answer, headers=headers)
            assert sent.status_code == 200, sent.text


@pytest.mark.timeout(1200)  # dozens of processes, each of which imports torch
@pytest.mark.parametrize("page", TUTORIALS, ids=[page.stem for page in TUTORIALS])
def test_every_command_of_the_tutorial(page: Path, tmp_path: Path) -> None:
    bench, steps = Bench(tmp_path), list(steps_of(page))
    assert any(step.text.startswith("rlhf ") for step in steps)
    for step in steps:
        bench.do(step)
