"""Many annotators at once, and a server that is killed under them: is every acknowledged answer kept?

    python -m benchmarks.label_load --annotators 20 --kills 50

`rlhf label` runs as a process of its own, is ended with SIGKILL at random moments and started again at once on the same
port. Every annotator is a thread that reads pages and posts answers by HTTP, and repeats a post that got no answer with
the same idempotency key. In the end the answers that were acknowledged are looked for in the store.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx2

from pipelines.labels.store.store import LabelStore

_TASK = re.compile(r'data-task="(\w+)" data-version="(\d+)"')
_TEXT = re.compile(r'<div class="text" dir="auto">([^<]*)</div>')
_PATIENCE = 60.0


class Server:
    """`rlhf label` on one port, which can be killed."""

    def __init__(self, folder: Path, annotators: list[str], overlap: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        names = [word for name in annotators for word in ("--annotator", name)]
        options = ["--overlap", str(overlap), "--port", str(self._port), "--json", "--quiet"]
        self._command = [sys.executable, "-m", "rlhf_cli", "label", "tasks.jsonl", *names, *options]
        self.links: dict[str, str] = {}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        root = Path(__file__).parents[1]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self.links = {one["name"]: one["link"] for one in told["annotators"]}

    def processor_seconds(self) -> float:
        """What it has used since it was started."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """As the power would: no chance to tidy up."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


@dataclass
class Annotator:
    """One browser. `acknowledged`: by task, the rank that each text got when the server last said that it has it."""

    name: str
    address: str
    link: str
    seed: int
    stop: threading.Event
    acknowledged: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    repeated: int = 0
    retries: int = 0
    fault: str | None = None

    def work(self) -> None:
        """Answer task after task until told to stop, or until there is none."""
        try:
            headers = {"Origin": self.address, "X-RLHF": "1"}
            limits = httpx2.Timeout(10)
            with httpx2.Client(base_url=self.address, headers=headers, trust_env=False, timeout=limits) as browser:
                assert browser.get(self.link).status_code == 200
                while not self.stop.is_set() and self._answer(browser):
                    pass
        except Exception as error:  # a thread's own would be lost
            self.fault = f"{self.name}: {type(error).__name__}: {error}"

    def _answer(self, browser: httpx2.Client) -> bool:
        page = self._send(browser, "GET", "/").text
        found = _TASK.search(page)
        if found is None:
            return False
        task, version = found[1], int(found[2])
        texts = [html.unescape(text) for text in _TEXT.findall(page)[1:]]
        dice = random.Random(f"{self.seed} {self.name} {task}")
        numbers = [dice.randint(1, len(texts)) for _ in texts]
        ranks = [sorted(set(numbers)).index(number) + 1 for number in numbers]
        body = {"task": task, "version": version, "key": str(uuid.uuid4()), "values": {"overall": ranks}}
        started = time.monotonic()
        answer = self._send(browser, "POST", "/api/submit", body)
        assert answer.status_code == 200, answer.text
        self.seconds.append(time.monotonic() - started)
        self.repeated += answer.json()["repeated"]
        self.acknowledged[task] = dict(zip(texts, ranks, strict=True))
        return True

    def _send(self, browser: httpx2.Client, method: str, path: str, body: object = None) -> httpx2.Response:
        """Ask until there is an answer: while the server is down there is none."""
        limit = time.monotonic() + _PATIENCE
        while True:
            try:
                return browser.request(method, path, json=body)
            except httpx2.TransportError:
                if time.monotonic() > limit:
                    raise
                self.retries += 1
                time.sleep(0.15)


def measure(
    annotators: int, kills: int, tasks: int, overlap: int, quiet_seconds: float, seed: int = 0
) -> dict[str, object]:
    """Run it, and count.

    Args:
        annotators: at once.
        kills: how often the server is killed.
        tasks: of four answers each.
        overlap: labels of each task.
        quiet_seconds: how long the server is left alone first; the speed is measured then.
        seed: of the answers and of the moments of the kills.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write_tasks(folder / "tasks.jsonl", tasks)
        names = [f"annotator {number}" for number in range(annotators)]
        server = Server(folder, names, overlap)
        server.start()
        stop = threading.Event()
        people = [Annotator(name, server.address, server.links[name], seed, stop) for name in names]
        threads = [threading.Thread(target=person.work) for person in people]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        _wait_for(people, annotators)
        before, begun, used = _given(people), time.monotonic(), server.processor_seconds()
        time.sleep(quiet_seconds)
        quiet_s, count, used = time.monotonic() - begun, _given(people) - before, server.processor_seconds() - used
        quiet = sorted(seconds for person in people for seconds in person.seconds)
        dice = random.Random(seed)
        for _ in range(kills):
            # In the middle of the work: some answers after the last start, and then at any moment.
            _wait_for(people, _given(people) + dice.randint(1, 2 * annotators))
            time.sleep(dice.uniform(0, 0.1))
            server.kill()
            server.start()
        _wait_for(people, _given(people) + annotators)
        stop.set()
        for thread in threads:
            thread.join()
        wall = time.monotonic() - started
        server.kill()
        if faults := [person.fault for person in people if person.fault]:
            raise RuntimeError("; ".join(faults))
        return {
            "annotators": annotators,
            "kills": kills,
            **_compare(folder / "tasks.labels.sqlite", people, overlap),
            "retries": sum(person.retries for person in people),
            "repeated": sum(person.repeated for person in people),
            "wall_s": round(wall, 1),
            "submits_per_s": round(count / quiet_s, 1),
            "server_cpu_ms_per_submit": round(1000 * used / max(count, 1), 1),  # with the page that comes before it
            "submit_ms_median": round(1000 * median(quiet), 1),
            "submit_ms_p95": round(1000 * quiet[int(0.95 * len(quiet))], 1),
        }


def _given(people: list[Annotator]) -> int:
    return sum(len(person.acknowledged) for person in people)


def _wait_for(people: list[Annotator], answers: int) -> None:
    """Until so many answers are acknowledged in all, or nobody works any more."""
    limit = time.monotonic() + _PATIENCE
    while _given(people) < answers and time.monotonic() < limit and not any(person.fault for person in people):
        time.sleep(0.005)


def _write_tasks(path: Path, tasks: int) -> None:
    def lines() -> Iterator[str]:
        yield json.dumps({"rlhf": "tasks", "version": 1})
        for number in range(tasks):
            answers = [{"text": f"answer {letter} to {number} & more"} for letter in "wxyz"]
            yield json.dumps({"prompt": [{"role": "user", "content": f"question {number}"}], "answers": answers})

    path.write_text("".join(line + "\n" for line in lines()), encoding="utf-8")


def _compare(path: Path, people: list[Annotator], overlap: int) -> dict[str, object]:
    """What was acknowledged against what is in the store."""
    with contextlib.closing(LabelStore.open(path)) as store:
        stored = store.snapshot()
    found = {
        (label.annotator, label.task): dict(
            zip((answer.text for answer in stored.tasks[label.task].answers), label.values["overall"], strict=True)
        )
        for label in stored.labels
    }
    acknowledged = {(one.name, task): ranks for one in people for task, ranks in one.acknowledged.items()}
    each = Counter(label.task for label in stored.labels)
    return {
        "acknowledged": len(acknowledged),
        "found": len(found),
        "lost": len([key for key in acknowledged if key not in found]),
        "different": len([key for key in acknowledged if key in found and found[key] != acknowledged[key]]),
        "never_acknowledged": len([key for key in found if key not in acknowledged]),
        "tasks_over_overlap": len([task for task, count in each.items() if count > overlap]),
    }


def main() -> int:
    """Print one JSON object; 0 where nothing is lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=20)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--overlap", type=int, default=3)
    parser.add_argument("--quiet-seconds", type=float, default=10.0, help="without a kill, to measure the speed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    result = measure(given.annotators, given.kills, given.tasks, given.overlap, given.quiet_seconds, given.seed)
    print(json.dumps(result))
    return 1 if result["lost"] or result["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
