"""`rlhf` as a process: runs, exit codes, signals, JSON."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Program

ALL = ["data/demonstrations", "data/comparisons", "data/prompts", "sft", "reward", "ppo", "judge", "eval"]


def wait_for(path: Path, seconds: float = 120) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_runs_then_skips_then_finds_itself_after_a_move(program: Program) -> None:
    program.cold = True
    done = program("all", "--config", "my.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "policy  score\nppo     1.00\n"
    for name in ALL:
        assert f"{name}: runs, not run yet" in done.stderr
    assert "\x1b" not in done.stderr, "escape sequences in model text are not for the terminal"
    assert "the run is in runs/my" in done.stderr
    run = program.folder / "runs" / "my"
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock",
        "base.json",
        "config.yaml",
        "data",
        "eval",
        "events.jsonl",
        "judge",
        "ppo",
        "report.html",
        "reward",
        "rlhf.log",
        "sft",
    ]
    assert (run / "eval/answers.jsonl").read_text() == "false", "the libraries' defaults are set"

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = program("all", "--config", "my.yaml")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert worked < 2  # processor seconds: a busy machine is not the program's fault
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "skipped" in line] == [
        f"{name}: skipped, complete" for name in ALL
    ]
    assert done.stdout.startswith("policy")

    run.rename(program.folder / "moved")
    result = program.json("all", "--config", "moved/config.yaml")
    assert result["run_dir"] == "moved"
    assert {stage["action"] for stage in result["stages"]} == {"skip"}
    shutil.rmtree(program.folder / "moved" / "ppo")
    result = program.json("all", "--run-dir", "moved")
    assert [stage["stage"] for stage in result["stages"] if stage["action"] == "run"] == ["ppo"]


def test_a_single_stage_runs_its_data_first(program: Program) -> None:
    result = program.json("sft", "--config", "my.yaml", fake="sft=noise")
    assert result == {
        "stage": "sft",
        "action": "run",
        "reason": "not run yet",
        "metrics": {"score": 1.0, "odd": None},
        "wall_seconds": result["wall_seconds"],
        "directory": "runs/my/sft",
    }
    assert program.json("sft", "--run-dir", "runs/my")["action"] == "skip"
    assert program.json("sft", "--run-dir", "runs/my", "--force")["reason"] == "forced"
    error = program.json("ppo", "--run-dir", "runs/my", code=6)["error"]
    assert error["code"] == "artifact"
    assert "needs stage reward" in error["message"]


def test_changed_settings_are_exit_4_and_shown(finished: Program) -> None:
    done = finished("all", "--run-dir", "runs/my", "--set", "ppo.kl_coef=0.1")
    assert done.returncode == 4
    assert "ppo.kl_coef: 0.05 -> 0.1" in done.stderr
    assert "--force ppo" in done.stderr
    assert "kl_coef: 0.05" in (finished.folder / "runs/my/config.yaml").read_text(), "the record is untouched"
    result = finished.json("all", "--run-dir", "runs/my", "--set", "ppo.kl_coef=0.1", "--force", "ppo")
    assert [stage["stage"] for stage in result["stages"] if stage["action"] == "run"] == ["ppo", "eval"]


def turned(update: int | None) -> str:
    """Content of results.json whose judge's score turned down after `update`; None: it did not."""
    turn = None if update is None else {"update": update}
    return json.dumps({"verdict": {"scorer": "judge", "opinions": [{"scorer": "judge", "turn": turn}]}})


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (None, "goes by the evaluation, which has not run"),
        (turned(None), "no judge's score turned down"),
        (turned(0), "liked the answers best before PPO"),
    ],
)
def test_without_a_better_update_there_is_none_to_use(finished: Program, results: str | None, words: str) -> None:
    path = finished.folder / "runs/my/eval/results.json"
    path.unlink() if results is None else path.write_text(results)
    done = finished("ppo", "--run-dir", "runs/my", "--use-best")
    assert done.returncode == 2
    assert words in done.stderr


def test_ppo_goes_as_far_as_the_best_update(finished: Program) -> None:
    (finished.folder / "runs/my/eval/results.json").write_text(turned(2))
    assert finished.json("ppo", "--run-dir", "runs/my", "--use-best")["action"] == "run"
    assert "last_update: 2" in (finished.folder / "runs/my/config.yaml").read_text()


@pytest.mark.parametrize(
    ("fake", "code", "kind", "words"),
    [
        ("oom", 8, "environment", "out of memory"),
        ("diverge", 7, "training", "not finite"),
        ("bug", 1, "bug", "this is a bug: ValueError: something odd"),
        ("killed", 137, "killed", "stage sft was killed, probably out of memory"),
        ("exit", 23, "child", "exit code 23"),
    ],
)
def test_a_failing_child_is_told_once_with_its_exit_code(
    program: Program, fake: str, code: int, kind: str, words: str
) -> None:
    error = program.json("all", "--config", "my.yaml", fake=f"sft={fake}", code=code)["error"]
    assert (error["code"], error["exit"]) == (kind, code)
    assert words in error["message"]
    assert error["hint"]


def test_a_baseline_that_the_evaluation_compares_is_a_child_of_its_own(program: Program) -> None:
    compared = ("--set", "eval.policies=[sft, ppo, grpo]")
    result = program.json("all", "--config", "my.yaml", *compared)
    assert [stage["stage"] for stage in result["stages"][-4:]] == ["ppo", "baselines/grpo", "judge", "eval"]
    assert {stage["action"] for stage in result["stages"]} == {"run"}
    assert (program.folder / "runs/my/baselines/grpo/manifest.json").is_file()
    assert program.json("baseline", "grpo", "--run-dir", "runs/my")["action"] == "skip"


def test_a_failing_child_for_a_person(program: Program) -> None:
    done = program("all", "--config", "my.yaml", fake="sft=bug")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("this is a bug") == 1
    assert "Traceback" not in done.stderr
    assert "runs/my/rlhf.log" in done.stderr
    log = (program.folder / "runs/my/rlhf.log").read_text()
    assert "Traceback" in log
    assert "ValueError: something odd" in log
    done = program("sft", "--run-dir", "runs/my", "-v", fake="sft=bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_bad_data_is_exit_3(program: Program) -> None:
    (program.folder / "rows.jsonl").write_text('{"prompt": "p", "chosen": 3, "rejected": "r"}\n')
    error = program.json("all", "--config", "my.yaml", code=3)["error"]
    assert error["code"] == "bad_data"
    assert "rows.jsonl:1" in json.dumps(error)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("command", ["all", "sft"])
def test_signals_reach_the_stage_and_let_it_tidy_up(
    program: Program, number: signal.Signals, code: int, command: str
) -> None:
    program.cold = number == signal.SIGINT
    process = program.start(command, "--config", "my.yaml", "--json", fake="sft=sleep")
    run = program.folder / "runs/my"
    worker = int(wait_for(run / "sft.partial/pid"))
    if program.cold:
        assert (worker != process.pid) == (command == "all")
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert json.loads(out)["error"]["exit"] == code
    assert "Traceback" not in err
    assert (run / "tidied").exists(), "finally blocks ran"
    assert not alive(worker)
    entries = program.json("status", "--run-dir", "runs/my")
    assert entries["held_by"] is None
    assert [entry["state"] for entry in entries["stages"] if entry["stage"] == "sft"] == ["partial"]


def test_a_locked_run_is_exit_5_and_a_killed_one_is_free_at_once(program: Program) -> None:
    program.cold = True
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # A pipe would wait for the child too.
    process = program.start("all", "--config", "my.yaml", fake="sft=sleep", **silent)
    worker = int(wait_for(program.folder / "runs/my/sft.partial/pid"))
    try:
        start = time.monotonic()
        error = program.json("all", "--config", "my.yaml", code=5)["error"]
        assert time.monotonic() - start < 10
        assert str(process.pid) in error["message"]
        assert program.json("status", "--run-dir", "runs/my")["held_by"]["pid"] == str(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    end = time.monotonic() + 20
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(worker), "the child ends with its parent"
    assert program("all", "--config", "my.yaml", "--quiet").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(program: Program, number: signal.Signals) -> None:
    """A program in the background of a shell ignores SIGINT, and one under nohup SIGHUP."""
    program.cold = True
    process = program.start(
        *("all", "--config", "my.yaml"), fake="sft=sleep", preexec_fn=lambda: signal.signal(number, signal.SIG_IGN)
    )
    worker = int(wait_for(program.folder / "runs/my/sft.partial/pid"))
    process.send_signal(number)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert not alive(worker)


def test_a_child_that_cannot_end_keeps_the_run(program: Program) -> None:
    program.cold = True
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = program.start("all", "--config", "my.yaml", fake="sft=sleep", **silent)
    worker = int(wait_for(program.folder / "runs/my/sft.partial/pid"))
    try:
        os.kill(worker, signal.SIGSTOP)
        while " T " not in Path(f"/proc/{worker}/stat").read_text():  # until then it could still hear of its parent
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        error = program.json("all", "--config", "my.yaml", code=5)["error"]
        assert f"process {process.pid}" in error["message"]
        assert "which is gone" in error["message"]
    finally:
        os.kill(worker, signal.SIGKILL)
    end = time.monotonic() + 20
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.01)
    assert program("all", "--config", "my.yaml", "--quiet").returncode == 0


@pytest.mark.parametrize("link", ["pairs.partial", "data", "rlhf.log", "sft/model", "sft.partial/checkpoints"])
def test_nothing_is_written_or_deleted_through_a_link(program: Program, link: str) -> None:
    victim = program.folder / "victim"
    victim.mkdir()
    (victim / "kept").write_text("mine")
    place = program.folder / "runs/my" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(victim)
    error = program.json("all", "--config", "my.yaml", code=9)["error"]
    assert error["message"].startswith(f"{link} is a link")
    assert [path.name for path in victim.iterdir()] == ["kept"]


def test_the_run_directory_itself_may_be_a_link(program: Program) -> None:
    (program.folder / "elsewhere").mkdir()
    (program.folder / "runs").mkdir()
    (program.folder / "runs/my").symlink_to(program.folder / "elsewhere")
    assert program("all", "--config", "my.yaml", "--quiet").returncode == 0
    assert (program.folder / "elsewhere/sft").is_dir()


@pytest.mark.parametrize(
    "setting",
    ["sft.trainer={hub_token: hf_s3cret}", "ppo.reward={kind: http, url: 'http://host/score?api_key=hf_s3cret'}"],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_refused_secret_is_not_on_the_disk(program: Program, setting: str, more: list[str]) -> None:
    error = program.json("all", "--config", "my.yaml", "--set", setting, *more, code=2)["error"]
    assert "hf_s3cret" not in json.dumps(error)
    written = (path.read_bytes() for path in program.folder.rglob("*") if path.is_file())
    assert not any(b"hf_s3cret" in content for content in written)


def test_a_flipped_byte_is_exit_6(finished: Program) -> None:
    path = finished.folder / "runs/my/sft/model/weights"
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert finished("status", "--run-dir", "runs/my").returncode == 0, "size and time are the same"
    states = finished.json("status", "--run-dir", "runs/my", "--verify", code=6)["stages"]
    assert {entry["stage"]: entry["state"] for entry in states}["sft"] == "damaged"
    error = finished.json("ppo", "--run-dir", "runs/my", "--force", code=6)["error"]
    assert "model/weights of stage sft" in error["message"]


def test_dry_run_writes_nothing(program: Program) -> None:
    before = sorted(program.folder.rglob("*"))
    done = program("all", "--config", "my.yaml", "--dry-run")
    assert done.returncode == 0
    assert sorted(program.folder.rglob("*")) == before
    assert "rows.jsonl -> data/comparisons/{" in done.stdout
    assert "data/comparisons, data/prompts, sft -> reward/{" in done.stdout
    assert "the data is not opened" in done.stdout
    plan = program.json("ppo", "--config", "my.yaml", "--dry-run", code=6)
    assert [entry["stage"] for entry in plan["plan"]] == ["data/prompts", "ppo"]
    assert plan["problem"]["code"] == "artifact"
    plan = program.json("all", "--config", "my.yaml", "--reward-model", "cls/x", "--dry-run")["plan"]
    assert {entry["stage"]: entry["action"] for entry in plan}["reward"] == "off"


def test_dry_run_names_hub_data_and_refuses_an_unknown_column(program: Program) -> None:
    line = ("all", "--config", "my.yaml", "--dry-run")
    plan = program.json(*line, "--set", "data.prompts={path: a/b, revision: v1}")["plan"]
    assert [entry["sources"] for entry in plan if entry["stage"] == "data/prompts"] == [["a/b@v1"]]
    error = program.json(*line, "--set", "data.prompts={path: a/b, columns: {promt: q}}", code=2)["error"]
    assert error["hint"] == "did you mean `prompt`?"


def test_dry_run_on_a_finished_run_shows_the_refusal(finished: Program) -> None:
    plan = finished.json("all", "--run-dir", "runs/my", "--set", "ppo.kl_coef=0.1", "--dry-run", code=4)
    (ppo,) = [entry for entry in plan["plan"] if entry["stage"] == "ppo"]
    assert (ppo["action"], ppo["differences"]) == ("refuse", ["ppo.kl_coef: 0.05 -> 0.1"])


def test_from_and_until(program: Program) -> None:
    result = program.json("all", "--config", "my.yaml", "--until", "sft")
    assert [stage["stage"] for stage in result["stages"]] == ALL[:4]
    error = program.json("all", "--run-dir", "runs/my", "--from", "ppo", code=6)["error"]
    assert "reward" in error["message"]
    assert program("all", "--run-dir", "runs/my", "--from", "ppo", "--until", "sft").returncode == 2


def test_status_compares_with_other_settings(finished: Program) -> None:
    done = finished("status", "--run-dir", "runs/my")
    assert done.returncode == 0
    assert done.stdout.count("complete") == 8
    assert finished("status").stdout == done.stdout, "the only run below runs/ is meant"
    done = finished("status", "--run-dir", "runs/my", "--set", "ppo.kl_coef=0.1")
    assert "ppo.kl_coef: 0.05 -> 0.1" in done.stdout
    assert finished("status", "--run-dir", "nowhere").returncode == 2


def test_a_closed_pipe_is_quiet(finished: Program) -> None:
    process = finished.start("config", "show", "--run-dir", "runs/my", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() in (0, 141)


def test_a_stage_that_is_off_is_refused_by_name(program: Program) -> None:
    error = program.json("reward", "--config", "my.yaml", "--reward-model", "cls/x", code=2)["error"]
    assert "switched off" in error["message"]


def test_an_unwritable_place_is_exit_9(program: Program) -> None:
    (program.folder / "runs").write_text("a file stands here")
    assert program.json("all", "--config", "my.yaml", code=9)["error"]["code"] == "disk"


HUMAN = ("--set", "feedback.source=human", "--set", "data.comparisons=[]", "--set", "data.demonstrations=rows.jsonl")


def test_rounds_wait_for_people_and_go_on(program: Program) -> None:
    waiting = program.json("all", "--config", "my.yaml", "--rounds", "2", *HUMAN, fake="labels=wait", code=11)
    assert waiting["error"]["code"] == "waiting"
    told = program("all", "--run-dir", "runs/my", fake="labels=wait")
    assert told.returncode == 11
    assert "waiting: 12 answers to 5 tasks are still needed" in told.stderr
    assert "error:" not in told.stderr
    states = {entry["stage"]: entry for entry in program.json("status", "--run-dir", "runs/my")["stages"]}
    assert (states["sample"]["state"], states["labels"]["state"]) == ("complete", "waiting")
    assert states["labels"]["reason"] == "12 answers to 5 tasks are still needed"

    gone_on = program.json("all", "--run-dir", "runs/my")["stages"]
    ran = [entry["stage"] for entry in gone_on if entry["action"] == "run"]
    loop = ["sample", "labels", "pairs", "reward", "ppo"]
    assert ran == ["labels", "pairs", "reward", "ppo", *(f"rounds/02/{name}" for name in loop), "judge", "eval"]
    again = program.json("ppo", "--run-dir", "runs/my", "--round", "2", "--force")
    assert again["stage"] == "rounds/02/ppo"
    assert program("ppo", "--run-dir", "runs/my", "--round", "3").returncode == 2


def test_rounds_without_anybody_to_ask_are_refused(program: Program) -> None:
    refused = program("all", "--config", "my.yaml", "--rounds", "2")
    assert refused.returncode == 2
    assert "set feedback.source to simulated or human" in refused.stderr
