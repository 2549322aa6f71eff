"""`rlhf label` as a process of its own."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pipelines.labels.store.store import LabelStore, running_server
from rlhf_cli.app import run
from tests.cli.conftest import Program
from tests.labels.test_blind import evaluated

Told = dict[str, Any]


@pytest.fixture
def folder(program: Program) -> Program:
    rows = [{"prompt": f"q {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(6)]
    (program.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return program


@contextlib.contextmanager
def page(
    program: Program, *args: str, end: int = signal.SIGTERM
) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """The page while it is open; what it said on stdout, and the process."""
    process = program.start("label", *args, "--port", "0", "--json")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line), process
        process.send_signal(end)
        assert process.wait(120) == 128 + end
    finally:
        process.kill()
        process.communicate()


def client(told: Told, name: str) -> httpx2.Client:
    links = {one["name"]: one["link"] for one in (*told["annotators"], told["admin"])}
    headers = {"Origin": told["address"], "X-RLHF": "1", "Content-Type": "application/json"}
    found = httpx2.Client(base_url=told["address"], headers=headers, trust_env=False)
    assert found.get(links[name]).status_code == 200
    return found


def test_from_a_file_to_labels_and_on_again(
    folder: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder.folder)
    guide = folder.folder / "guide.md"
    guide.write_text("# Take your time")
    store_path = folder.folder / "pairs.labels.sqlite"
    args = ("pairs.jsonl", "--annotator", "ann", "--annotator", "bo", "--overlap", "2", "--guidelines", "guide.md")
    with page(folder, *args) as (told, process):
        assert [one["name"] for one in told["annotators"]] == ["ann", "bo"]
        assert running_server(store_path) == told["address"]
        ann = client(told, "ann")
        assert "Take your time" in ann.get("/guidelines").text
        task, version = re.findall(r'data-task="(\w+)" data-version="(\d+)"', ann.get("/").text)[0]
        body = {"task": task, "version": int(version), "key": "key-00000001", "values": {"overall": [2, 1]}}
        assert ann.post("/api/submit", json=body).json()["left"] == 5
        assert run(["label", *args, "--port", "0", "--json"]) == 5
        assert told["address"] in json.loads(capsys.readouterr().out)["error"]["message"]
    assert process.communicate()[0] == ""
    assert running_server(store_path) is None
    assert not list(folder.folder.glob("*.server.json"))
    # Opened again without any option: all is as it was, and so is the session.
    with page(folder, "pairs.jsonl", end=signal.SIGINT) as (told, _):
        assert [one["name"] for one in told["annotators"]] == ["ann", "bo"]
        [cookie] = ann.cookies.jar
        port = told["address"].rpartition(":")[2]
        with httpx2.Client(base_url=told["address"], cookies={f"rlhf_session_{port}": cookie.value}) as again:
            assert "q " in again.get("/").text
    with LabelStore.open(store_path) as store:
        assert (store.settings.overlap, store.settings.guidelines) == (2, "# Take your time")
        assert [label.task for label in store.snapshot().labels] == [task]
        links = [one["link"].rpartition("/")[2] for one in told["annotators"]]
    assert not [link for link in links if link.encode() in store_path.read_bytes()]
    assert store_path.stat().st_mode & 0o777 == 0o600


def test_no_secret_is_logged_and_100_mb_take_no_memory(folder: Program):
    folder.cold = True
    with page(folder, "pairs.jsonl") as (told, process):
        me = client(told, "me")
        me.get("/enter/" + "s" * 43)

        def chunks() -> Iterator[bytes]:
            for _ in range(1600):
                yield bytes(1 << 16)

        before = resident(process.pid)
        for path in ("/api/submit", "/csp-report", "/nowhere", "/enter/x"):
            with contextlib.suppress(httpx2.TransportError):  # the line is cut in the middle of it
                assert me.post(path, content=chunks()).status_code in (413, 404, 405)
            size = {"Content-Length": str(100 << 20)}
            with contextlib.suppress(httpx2.TransportError):
                assert me.post(path, content=bytes(100 << 20), headers=size).status_code in (413, 404, 405)
        assert resident(process.pid) - before < 16 << 20
        assert me.get("/healthz").text == "ok"
        links = [one["link"] for one in (*told["annotators"], told["admin"])]
    _, err = process.communicate()
    assert not [link for link in links if link.rpartition("/")[2] in err]
    assert "sss" not in err
    assert "Traceback" not in err


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_words_and_links_without_json(folder: Program):
    process = folder.start("label", "pairs.jsonl", "--port", "0", "--annotator", "zoë")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.fullmatch(r"zoë    http://127\.0\.0\.1:\d+/enter/\S{43}\n", lines[0])
    assert lines[1].startswith("admin  http://127.0.0.1:")
    assert "6 tasks, 6 answers still wanted" in err
    assert "the page is closed" in err
    assert "error" not in err


def samples(run: Path, places: tuple[str, ...], annotators: str = "eva") -> Path:
    """A run directory with the samples of so many rounds."""
    for number, place in enumerate(places, 1):
        (run / place).mkdir(parents=True)
        rows = [{"rlhf": "tasks", "version": 1}, {"prompt": [{"role": "user", "content": f"round {number}"}]}]
        rows[1]["answers"] = [{"text": text, "model": "sft"} for text in ("a", "b", "c")]  # type: ignore[assignment]
        (run / place / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.yaml").write_text(
        "model: {name_or_path: x}\ndata: {prompts: p.jsonl, comparisons: c.jsonl}\n"
        f"feedback: {{source: human, label: {{annotators: [{annotators}], questions: [{{name: helpful}}]}}}}\n"
    )
    return run


def test_the_newest_samples_of_a_run(folder: Program):
    run = samples(folder.folder / "runs" / "my", ("sample", "rounds/02/sample"))
    with page(folder, "--run-dir", str(run), "--annotator", "bo") as (told, _):
        assert [one["name"] for one in told["annotators"]] == ["eva", "bo"]
        assert "round 2" in client(told, "eva").get("/").text
    with LabelStore.open(run / "labels.sqlite") as store:
        assert [question.name for question in store.settings.questions] == ["helpful"]
        assert len(store.snapshot().tasks) == 1


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("--question", "x:ranking", "feedback.label.questions"),
        ("--guidelines", "guide.md", "feedback.label.guidelines"),
        ("--overlap", "3", "feedback.label.overlap"),
        ("--controls", "pairs.jsonl", "feedback.label.controls"),
        ("--control-share", "0.2", "feedback.label.control_share"),
        ("--seed", "0", "run.seed"),
    ],
)
def test_what_the_configuration_of_a_run_says_is_not_said_again(
    folder: Program, capsys: pytest.CaptureFixture[str], option: str, value: str, key: str
):
    root = samples(folder.folder / "runs" / "my", ("sample",))
    # without the refusal the address would be refused, rather than a page opened
    args = ("--run-dir", str(root), option, value, "--url", "x.org", "--port", "0", "--json")
    assert run(["label", *args]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["where"] == option
    assert key in error["hint"]
    assert not (root / "labels.sqlite").exists()
    if option != "--question":
        assert f"--set {key}={value}`" in error["hint"]


def test_the_page_of_a_run_has_its_own_title_and_names_somebody(folder: Program):
    root = samples(folder.folder / "runs" / "my", ("sample",), annotators="")
    for args, title, names in (
        ((), "my", ["me"]),
        (("--title", "Shop", "--annotator", "bo"), "Shop", ["me", "bo"]),
        ((), "Shop", ["me", "bo"]),
    ):
        with page(folder, "--run-dir", str(root), *args) as (told, _):
            assert [one["name"] for one in told["annotators"]] == names
        with LabelStore.open(root / "labels.sqlite") as store:
            assert store.settings.title == title
    named = samples(folder.folder / "runs" / "named", ("sample",), annotators="eva")
    with page(folder, "--run-dir", str(named)) as (told, _):
        assert [one["name"] for one in told["annotators"]] == ["eva"]


def test_people_compare_the_answers_of_an_evaluation(folder: Program, capsys: pytest.CaptureFixture[str]):
    root = samples(folder.folder / "runs" / "my", ("sample",))
    for args, told in (
        (("--blind",), "--run-dir"),
        (("--blind", "--run-dir", str(root), "--question", "x:ranking"), "of its own"),
        (("--blind", "--run-dir", str(root)), "no answers of PPO"),
    ):
        assert run(["label", *args, "--port", "0", "--json"]) == 2
        assert told in json.loads(capsys.readouterr().out)["error"]["message"]
    evaluated(root)
    # options that the configuration holds for the run's own labels are free here
    args = ("--run-dir", str(root), "--blind", "--annotator", "bo", "--overlap", "1")
    with page(folder, *args) as (told, process):
        assert [one["name"] for one in told["annotators"]] == ["bo"]
        bo = client(told, "bo")
        text = bo.get("/").text
        assert "old " in text
        assert "new " in text
        assert "ppo" not in text.lower()
        task, version = re.findall(r'data-task="(\w+)" data-version="(\d+)"', text)[0]
        body = {"task": task, "version": int(version), "key": "key-00000001", "values": {"overall": [2, 1]}}
        assert bo.post("/api/submit", json=body).json()["left"] == 2
    assert f"rlhf report {root}" in process.communicate()[1]
    assert not (root / "labels.sqlite").exists()
    with LabelStore.open(root / "blind.sqlite") as store:
        assert len(store.snapshot().labels) == 1


def said_by(folder: Program, *args: str) -> str:
    """What the page says on stderr when it opens."""
    with page(folder, *args) as (_, process):
        pass
    assert process.stderr is not None
    return process.communicate()[1]


def test_what_a_store_remembers_is_said(folder: Program):
    args = ("pairs.jsonl", "--annotator", "ann", "--annotator", "bo")
    assert "kept from before" not in said_by(folder, *args, "--overlap", "2", "--title", "Shop")
    again = said_by(folder, "pairs.jsonl", "--annotator", "cy")
    assert "kept from before: annotators ann, bo; title Shop; overlap 2; questions overall (pairwise)\n" in again
    changed = said_by(folder, *args, "--overlap", "1", "--title", "T", "--question", "good:scale7")
    assert "kept from before: annotators cy\n" in changed
    assert "the questions were overall (pairwise) and are now good (scale7)\n" in changed
    words = said_by(folder, "pairs.jsonl", "--question", "good:scale7:How good?")
    assert "How good is this answer?" in words
    assert '"text": "How good?"' in words


def test_more_overlap_than_people_is_a_warning(folder: Program):
    told = said_by(folder, "pairs.jsonl", "--annotator", "ann", "--annotator", "bo", "--overlap", "3")
    assert "warning: overlap 3, but 2 people judge: 6 of 18 labels cannot come; name more with --annotator" in told
    assert "cannot come" not in said_by(folder, "pairs.jsonl", "--annotator", "cy")


def test_somebody_who_was_misspelt_is_taken_off(
    folder: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder.folder)
    monkeypatch.setattr("pipelines.labels.page.serve.serve", lambda *_, **__: pytest.fail("the page was opened"))
    with page(folder, "pairs.jsonl", "--annotator", "ann", "--annotator", "anm") as (told, _):
        client(told, "anm").get("/")  # a task is on their screen
        ann = client(told, "ann")
        task = re.findall(r'data-task="(\w+)"', ann.get("/").text)[0]
        body = {"task": task, "version": 0, "key": "key-00000001", "values": {"overall": [2, 1]}}
        assert ann.post("/api/submit", json=body).status_code == 200
    with page(folder, "pairs.jsonl", "--without", "anm") as (told, _):
        assert [one["name"] for one in told["annotators"]] == ["ann"]
    for args, code, words in (
        (("--without", "ann"), 4, "cannot be removed"),
        (("--without", "anm"), 2, "no annotator"),
        (("--annotator", "cy", "--without", "cy"), 2, "both added and removed"),
    ):
        assert run(["label", "pairs.jsonl", *args, "--port", "0", "--json"]) == code
        assert words in json.loads(capsys.readouterr().out)["error"]["message"]


OTHER_OPTIONS = ("--overlap", "1", "--annotator", "zed", "--question", "helpful:scale7", "--title", "T")


def test_a_page_that_is_refused_changes_nothing_for_the_one_that_is_open(
    folder: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder.folder)
    store_path = folder.folder / "pairs.labels.sqlite"
    with page(folder, "pairs.jsonl", "--annotator", "ann", "--annotator", "bo", "--overlap", "2") as (told, _):
        before = store_path.read_bytes()
        for source in ("pairs.jsonl", f"--store={store_path}"):
            assert run(["label", source, *OTHER_OPTIONS, "--without", "bo", "--port", "0", "--json"]) == 5
            assert "another label page" in json.loads(capsys.readouterr().out)["error"]["message"]
        assert store_path.read_bytes() == before
        bo = client(told, "bo")
        task, version = re.findall(r'data-task="(\w+)" data-version="(\d+)"', bo.get("/").text)[0]
        body = {"task": task, "version": int(version), "key": "key-00000001", "values": {"overall": [2, 1]}}
        assert bo.post("/api/submit", json=body).status_code == 200


def test_what_is_refused_leaves_the_store_as_it_was(folder: Program, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.folder)
    monkeypatch.setattr("pipelines.labels.page.serve.serve", lambda *_, **__: pytest.fail("the page was opened"))
    assert run(["label", "pairs.jsonl", "--question", "x:demonstration", "--title", "T", "--port", "0"]) == 3
    with page(folder, "pairs.jsonl") as (told, process):  # the first refusal did not decide what is asked
        assert 'data-question="overall"' in client(told, "me").get("/").text
    assert process.stderr is not None
    assert "kept from before" not in process.communicate()[1]
    store_path = folder.folder / "pairs.labels.sqlite"
    before = store_path.read_bytes()
    for fault in (
        ("--url", "x.org"),
        ("--without", "nobody"),
        ("--annotator", "admin"),
        ("--controls", "base/config.json"),
    ):
        assert run(["label", "pairs.jsonl", *OTHER_OPTIONS, *fault, "--port", "0"]) in (2, 3)
        assert store_path.read_bytes() == before


def test_controls_that_show_by_their_number_of_answers_are_a_warning(folder: Program):
    rows: list[dict[str, Any]] = [{"rlhf": "tasks", "version": 1}]
    for number in range(3):
        texts = [{"text": f"answer {number} {letter}"} for letter in "abc"]
        rows.append({"prompt": [{"role": "user", "content": f"q {number}"}], "answers": texts})
    write = folder.folder.joinpath
    write("tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = said_by(folder, "tasks.jsonl", "--controls", "pairs.jsonl")
    assert "some control tasks have 2 answers" in told
    assert "use controls with 3 answers" in told
    assert "some control tasks" not in said_by(folder, "tasks.jsonl", "--control-share", "0")
    rows[1] |= {"control": {"overall": [2, 1, 2]}}
    write("controls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    told = said_by(folder, "tasks.jsonl", "--controls", "controls.jsonl", "--control-share", "0.1")
    assert "some control tasks" not in told


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "nothing is named"),
        (("pairs.jsonl", "--run-dir", "x"), 2, "do not go together"),
        (("gone.jsonl",), 3, "gone.jsonl"),
        (("--store", "gone.sqlite"), 3, "no label store"),
        (("--store", "pairs.jsonl"), 3, "no label store"),
        (("--run-dir", "runs/none"), 2, "no such run directory"),
        (("pairs.jsonl", "--host", "0.0.0.0"), 2, "everybody on the network"),
        (("pairs.jsonl", "--host", "0.0.0.0", "--i-know"), 2, "every address"),
        (("pairs.jsonl", "--url", "x.org"), 2, "not the address"),
        (("pairs.jsonl", "--question", "overall"), 2, "kind"),
        (("pairs.jsonl", "--annotator", "admin"), 2, "cannot be called"),
        (("pairs.jsonl", "--guidelines", "gone.md"), 2, "guidelines cannot be read"),
        (("pairs.jsonl", "--controls", "base/config.json"), 3, "config.json"),
        (("pairs.jsonl", "--question", "x:demonstration"), 3, "demonstration"),
        (("--store", "gone.sqlite", "--on-bad-row", "drop"), 2, "goes with SOURCE"),
    ],
)
def test_what_does_not_work_says_why(
    folder: Program,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    code: int,
    words: str,
):
    monkeypatch.chdir(folder.folder)
    assert run(["label", *args, "--port", "0", "--json"]) == code
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in f"{error['message']} {error['where']}"


def test_a_taken_port(folder: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(folder.folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run(["label", "pairs.jsonl", "--port", port, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert port in error["message"]
    assert "--port 0" in error["hint"]
