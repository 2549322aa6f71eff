"""Every command of docs/tutorials, in order, on tiny models: hub ids stand for models built here, people for programs.

In the pages a comment says what to do beside the commands: ``<!-- file: NAME -->`` writes the next block to a file,
``<!-- demonstrations: NAME -->`` makes one; ``# exit N`` behind a command is the exit code that it must end with.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.programs import environment
from tests.tiny import save_pair, tiny_llama, tiny_tokenizer

REPOSITORY = Path(__file__).parents[1]
TUTORIALS = sorted((REPOSITORY / "docs" / "tutorials").glob("*.md"))
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMALL = {
    "run": {"device": "cpu", "threads": 1},
    "model": {"lora_r": 2},
    "data": {"eval_fraction": 0.3},
    "sft": {"max_steps": 4, "max_length": 192},
    "reward": {"max_steps": 4, "max_length": 192},
    "ppo": {
        "total_episodes": 8,
        "rollout_batch_size": 8,
        "response_length": 12,
        "num_ppo_epochs": 1,
        "num_mini_batches": 2,
        "num_eval_prompts": 2,
        "per_device_train_batch_size": 4,
    },
    "eval": {"num_prompts": 8, "bootstrap_samples": 100},
}
"""Settings that make every stage short; a page does not show them."""
_BLOCK = re.compile(r"((?:^<!--[^\n]*-->\n)*)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"<!-- (\w+): (\S+) -->")


@dataclass(frozen=True)
class Step:
    """A thing to do: write a file, make demonstrations, or run a command."""

    kind: str
    name: str
    text: str = ""


def steps_of(page: Path) -> Iterator[Step]:
    for notes, language, body in _BLOCK.findall(page.read_text(encoding="utf-8")):
        named = dict(_NOTE.findall(notes))
        if "demonstrations" in named:
            yield Step("demonstrations", named["demonstrations"])
        if "file" in named:
            yield Step("file", named["file"], body)
        elif language == "sh":
            for line in body.replace("\\\n", " ").splitlines():
                command, _, expected = line.partition("   # exit ")
                yield Step("run", command.strip(), expected.strip() or "0")


class Bench:
    """A folder in which the commands of a page are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tokenizer = tiny_tokenizer()
        save_pair(tiny_llama(tokenizer), tokenizer, folder / "model")
        self.environment = environment()

    def do(self, step: Step) -> None:
        if step.kind == "file":
            (self.folder / step.name).write_text(step.text.replace(HUB_ID, str(self.folder / "model")))
        elif step.kind == "demonstrations":
            rows = ({"prompt": f"question {index} please", "completion": f"answer {index % 7}"} for index in range(40))
            (self.folder / step.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif shlex.split(step.name)[:2] == ["rlhf", "label"]:
            self.label(step.name)
        else:
            self.run(step.name, int(step.text))

    def command(self, line: str) -> list[str]:
        words = [word.replace(HUB_ID, str(self.folder / "model")) for word in shlex.split(line)]
        assert words[0] == "rlhf", f"the tutorials use rlhf alone: {line}"
        trains = words[1] in ("all", "sft", "reward", "ppo", "eval")
        first = "--config" in words or "--model" in words  # later the run has them in its own configuration
        entries = [f"{section}.{key}={value}" for section, keys in SMALL.items() for key, value in keys.items()]
        small = [part for entry in entries for part in ("--set", entry)] if trains and first else []
        return [sys.executable, "-m", "rlhf_cli", words[1], *small, *words[2:]]

    def run(self, line: str, expected: int) -> None:
        done = subprocess.run(
            self.command(line), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == expected, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert "Traceback" not in done.stderr

    def label(self, line: str) -> None:
        """Open the page, let a program answer for every person until nothing is left, and close it by Ctrl-C."""
        command = [*self.command(line), "--port", "0", "--json"]
        page = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert page.stdout is not None
            opened = read_object(page.stdout)
            assert "error" not in opened, opened
            links = [entry["link"] for entry in opened["annotators"]]
            with ThreadPoolExecutor(len(links)) as people:
                for done in [people.submit(judge_all, opened["address"], link) for link in links]:
                    done.result(120)
        finally:
            page.send_signal(signal.SIGINT)
            _, errors = page.communicate(timeout=30)
        assert page.returncode == 130, errors
        assert "Traceback" not in errors


def read_object(lines: Iterator[str]) -> dict[str, object]:
    """The JSON object that a program prints before it goes on."""
    text = ""
    for line in lines:
        text += line
        try:
            found: dict[str, object] = json.loads(text)
        except ValueError:
            continue
        return found
    raise AssertionError(f"no JSON object: {text}")


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
    assert any(step.kind == "run" for step in steps)
    for step in steps:
        bench.do(step)
