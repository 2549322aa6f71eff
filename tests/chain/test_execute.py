"""One stage: run, skip, refuse, and why."""

from __future__ import annotations

import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.chain.execute import run_stage
from pipelines.chain.plan import Plan, plan_stage
from pipelines.config import Config, load_config
from pipelines.errors import ArtifactError, ConflictError, DiskError
from pipelines.run.directory import RunDir
from pipelines.run.manifest import Manifest, describe_differences, version_differences
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import Stage, StageContext

Runner = Callable[[StageContext], dict[str, Any]]


def write_model(context: StageContext) -> dict[str, Any]:
    (context.out / "model").mkdir()
    (context.out / "model" / "weights").write_text(str(context.config.ppo.kl_coef))
    (context.out / "checkpoints").mkdir(exist_ok=True)
    (context.out / "checkpoints" / "state").write_text("x")
    context.log("metrics", {"step": 1})
    context.notes["simulated"] = True
    return {"loss": 0.5}


class Bench:
    """Two stages, `first` and `second`, whose runners a test may replace."""

    def __init__(self, root: Path) -> None:
        self.run = RunDir(root / "run")
        self.run.create()
        self.source = root / "rows.jsonl"
        self.source.write_text("one\n")
        self.first = self.stage("first", sources=lambda config: (self.source,))
        self.second = self.stage("second", needs=lambda config: {"first": "first"})
        self.runners: dict[str, Runner] = {"first": write_model, "second": write_model}

    def stage(self, name: str, **fields: Any) -> Stage:
        defaults: dict[str, Any] = {
            "runner": f"fake_runners:{name}",
            "needs": lambda config: {},
            "section": lambda config: {"ppo": config.ppo.results_view(), "seed": config.run.seed},
            "produces": ("model",),
        }
        return Stage(name, **(defaults | fields))

    def plan(self, stage: Stage, *sets: str, **kwargs: Any) -> Plan:
        return plan_stage(stage, load_config(None, sets), self.run, **kwargs)

    def go(self, stage: Stage, *sets: str, force: bool = False) -> Manifest:
        plan = self.plan(stage, *sets, force=force)
        return run_stage(plan, load_config(None, sets), self.run, SilentReporter(), force=force)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    module = types.ModuleType("fake_runners")
    for name in ("first", "second", "third"):
        setattr(module, name, lambda context, name=name: bench.runners[name](context))
    monkeypatch.setitem(sys.modules, "fake_runners", module)
    return bench


def outcome(plan: Plan) -> tuple[str, str, str]:
    return plan.action, plan.state, plan.reason


def notes_of(manifest: Manifest) -> dict[str, Any]:
    """The notes but for those on the machine, which every stage makes."""
    assert manifest.notes["machine"]["cores"] >= 1
    return {name: value for name, value in manifest.notes.items() if name != "machine"}


def test_it_runs_once_and_is_then_complete(bench: Bench) -> None:
    assert outcome(bench.plan(bench.first)) == ("run", "missing", "not run yet")
    manifest = bench.go(bench.first)
    assert [record.path for record in manifest.outputs] == ["metrics.jsonl", "model/weights"]
    assert (manifest.metrics, notes_of(manifest)) == ({"loss": 0.5}, {"simulated": True})
    assert manifest.inputs[f"source:{bench.source}"][0].size == 4
    assert Manifest.read(bench.run.stage("first")) == manifest
    assert not bench.run.partial("first").exists()
    assert outcome(bench.plan(bench.first)) == ("skip", "complete", "complete")


def test_what_no_human_said_is_known_of_all_that_follows(bench: Bench) -> None:
    assert notes_of(bench.go(bench.first)) == {"simulated": True}

    def quiet(context: StageContext) -> dict[str, Any]:
        (context.out / "model").mkdir()
        return {}

    bench.runners |= {"second": quiet, "third": quiet}
    assert notes_of(bench.go(bench.second)) == {"simulated_inputs": ["first"]}
    third = bench.stage("third", needs=lambda config: {"second": "second"})
    assert notes_of(bench.go(third)) == {"simulated_inputs": ["first"]}
    bench.runners["first"] = quiet
    bench.go(bench.first, force=True)
    assert notes_of(bench.go(bench.second)) == {}


def test_own_settings_differ_refuses_and_shows_both(bench: Bench) -> None:
    bench.go(bench.first)
    plan = bench.plan(bench.first, "ppo.kl_coef=0.1")
    assert (plan.action, plan.state) == ("run", "stale")
    assert plan.differences == ("ppo.kl_coef: 0.05 -> 0.1",)
    with pytest.raises(ConflictError, match=r"ppo\.kl_coef: 0\.05 -> 0\.1") as caught:
        bench.go(bench.first, "ppo.kl_coef=0.1")
    assert caught.value.exit_code == 4
    assert "--force first" in (caught.value.hint or "")
    assert bench.go(bench.first, "ppo.kl_coef=0.1", force=True).section["ppo"]["kl_coef"] == 0.1


def test_cosmetic_settings_may_differ(bench: Bench) -> None:
    bench.go(bench.first)
    sets = ("ppo.per_device_train_batch_size=1", "ppo.logging_steps=7", "run.threads=1", "run.report_to=[wandb]")
    assert bench.plan(bench.first, *sets).action == "skip"


def test_only_upstream_changed_runs_again(bench: Bench) -> None:
    bench.go(bench.first)
    bench.go(bench.second)
    assert bench.plan(bench.second).action == "skip"
    bench.runners["first"] = lambda context: (
        write_model(context) | {"loss": (context.out / "model" / "more").write_text("new")}
    )
    bench.go(bench.first, force=True)
    assert outcome(bench.plan(bench.second)) == ("run", "stale", "first has changed")
    shutil.rmtree(bench.run.stage("first"))
    assert outcome(bench.plan(bench.second)) == ("run", "stale", "first is not complete")


def test_upstream_with_the_same_content_changes_nothing(bench: Bench) -> None:
    bench.go(bench.first)
    bench.go(bench.second)
    bench.go(bench.first, force=True)
    assert bench.plan(bench.second).action == "skip"


def test_a_changed_source_is_stale_and_a_lost_one_is_not(bench: Bench) -> None:
    bench.go(bench.first)
    bench.source.touch()
    assert bench.plan(bench.first).action == "skip"
    bench.source.write_text("two\n")
    assert outcome(bench.plan(bench.first)) == ("run", "stale", "rows.jsonl has changed")
    bench.source.unlink()
    assert bench.plan(bench.first).action == "skip"


def test_a_source_that_changes_while_running_is_refused(bench: Bench) -> None:
    def runner(context: StageContext) -> dict[str, Any]:
        bench.source.write_text("changed while running\n")
        return write_model(context)

    bench.runners["first"] = runner
    with pytest.raises(ArtifactError, match="changed while"):
        bench.go(bench.first)
    assert not bench.run.stage("first").exists()


def test_a_needed_stage_must_be_there(bench: Bench) -> None:
    with pytest.raises(ArtifactError, match="needs stage first") as caught:
        bench.go(bench.second)
    assert caught.value.exit_code == 6


def test_one_flipped_byte_is_found_on_consumption_and_by_verify(bench: Bench) -> None:
    bench.go(bench.first)
    path = bench.run.stage("first") / "model" / "weights"
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert bench.plan(bench.first).action == "skip", "nothing to see without reading"
    assert outcome(bench.plan(bench.first, full=True)) == (
        "run",
        "damaged",
        "its artifact was changed: model/weights",
    )
    with pytest.raises(ArtifactError, match="model/weights of stage first") as caught:
        bench.go(bench.second)
    assert caught.value.exit_code == 6
    assert caught.value.where == str(path)


def test_a_damaged_manifest_refuses_but_force_mends(bench: Bench) -> None:
    bench.go(bench.first)
    (bench.run.stage("first") / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        bench.plan(bench.first)
    bench.go(bench.first, force=True)
    assert bench.plan(bench.first).action == "skip"


def test_an_interrupted_stage_says_so_and_keeps_the_old_artifact(bench: Bench) -> None:
    bench.go(bench.first)

    def stopped(context: StageContext) -> dict[str, Any]:
        (context.out / "half").write_text("x")
        raise KeyboardInterrupt

    bench.runners["first"] = stopped
    with pytest.raises(KeyboardInterrupt):
        bench.go(bench.first, "ppo.kl_coef=0.1", force=True)
    assert bench.plan(bench.first).action == "skip"
    shutil.rmtree(bench.run.stage("first"))
    assert outcome(bench.plan(bench.first)) == ("run", "partial", "was interrupted; starts again")
    assert "stage_failed" in (bench.run.root / "events.jsonl").read_text()


def test_a_full_disk_is_exit_9(bench: Bench) -> None:
    def full(context: StageContext) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    bench.runners["first"] = full
    with pytest.raises(DiskError):
        bench.go(bench.first)


def test_library_scalars_do_not_cost_a_finished_training(bench: Bench) -> None:
    class Scalar:
        def item(self) -> float:
            return 0.25

    bench.runners["first"] = lambda context: write_model(context) | {"loss": Scalar(), "path": context.out}
    assert bench.go(bench.first).metrics["loss"] == 0.25


def test_a_missing_product_is_said(bench: Bench) -> None:
    said: list[str] = []

    class Listening(SilentReporter):
        def warn(self, text: str) -> None:
            said.append(text)

    stage = bench.stage("first", produces=("model", "golden.json"))
    run_stage(bench.plan(stage), Config(), bench.run, Listening())
    assert said == ["stage first did not write golden.json"]


def test_a_switched_off_stage_is_off(bench: Bench) -> None:
    stage = bench.stage("first", enabled=lambda config: False)
    assert bench.plan(stage).action == "off"
    assert bench.plan(stage, force=True).action == "off"


def test_differences_reach_into_sections() -> None:
    old = {"a": {"b": 1, "gone": None, "c": [1]}, "s": {"x": 1}}
    new = {"a": {"b": 2, "c": [1, 2]}, "s": None, "added": "y"}
    assert describe_differences(old, new) == [
        "a.b: 1 -> 2",
        "a.c: [1] -> [1, 2]",
        's: {"x": 1} -> null',
        'added: null -> "y"',
    ]


def test_other_versions_are_named(bench: Bench) -> None:
    manifest = bench.go(bench.first)
    assert version_differences(manifest, manifest.versions) == []
    assert version_differences(manifest, manifest.versions | {"python": "3.0"})[0].endswith("-> 3.0")


def trains_and_is_killed(context: StageContext) -> dict[str, Any]:
    """Two checkpoints, a line beyond the second, half a model, and the process is gone."""
    for step in (10, 20):
        context.log("metrics", {"step": step})
        (context.checkpoints.begin(step) / "state").write_text(f"state of {step}")
        context.checkpoints.complete(step)
    context.log("metrics", {"step": 25})
    (context.out / "model").mkdir()
    (context.out / "half").write_text("half")
    raise KeyboardInterrupt


def goes_on(context: StageContext) -> dict[str, Any]:
    found = context.checkpoints.newest()
    if found is not None:
        context.checkpoints.restore_logs(found)
    left = sorted(path.name for path in context.out.iterdir())
    (context.out / "model").mkdir()
    (context.out / "model" / "weights").write_text("trained")
    return {"from": found.step if found else None, "left": left}


@pytest.fixture
def killed(bench: Bench) -> Bench:
    bench.runners["first"] = trains_and_is_killed
    with pytest.raises(KeyboardInterrupt):
        bench.go(bench.first)
    bench.runners["first"] = goes_on
    return bench


def test_a_killed_stage_goes_on_from_its_newest_checkpoint(killed: Bench) -> None:
    plan = killed.plan(killed.first)
    assert outcome(plan) == ("run", "partial", "was interrupted; resumes at step 20")
    assert plan.resumes == 20
    manifest = killed.go(killed.first)
    assert manifest.metrics == {"from": 20, "left": ["checkpoints", "metrics.jsonl"]}
    assert manifest.notes["resumed_from_step"] == 20
    final = killed.run.stage("first")
    assert (final / "metrics.jsonl").read_text() == '{"step": 10}\n{"step": 20}\n'
    assert not (final / "checkpoints").exists()
    assert outcome(killed.plan(killed.first)) == ("skip", "complete", "complete")


def test_other_settings_than_those_of_the_checkpoints_are_refused(killed: Bench) -> None:
    plan = killed.plan(killed.first, "ppo.kl_coef=0.1")
    assert outcome(plan) == ("run", "partial", "was interrupted after step 20, with other settings")
    assert plan.differences == ("ppo.kl_coef: 0.05 -> 0.1",)
    with pytest.raises(ConflictError, match=r"interrupted after step 20(.|\n)*0\.05 -> 0\.1") as caught:
        killed.go(killed.first, "ppo.kl_coef=0.1")
    assert "--force first" in (caught.value.hint or "")
    assert killed.plan(killed.first, "ppo.logging_steps=7").resumes == 20
    assert killed.go(killed.first, "ppo.kl_coef=0.1", force=True).metrics == {"from": None, "left": ["checkpoints"]}


def test_changed_inputs_start_it_again(killed: Bench) -> None:
    killed.source.write_text("two\n")
    assert outcome(killed.plan(killed.first)) == (
        "run",
        "partial",
        "was interrupted; starts again: rows.jsonl has changed",
    )
    assert killed.go(killed.first).metrics == {"from": None, "left": ["checkpoints"]}


def test_inputs_changed_behind_its_back_start_it_again(killed: Bench) -> None:
    """Size and time of a source say nothing; its content is read when the stage runs."""
    plan, stat = killed.plan(killed.first), killed.source.stat()
    killed.source.write_text("two\n")
    os.utime(killed.source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert killed.plan(killed.first).resumes == 20
    assert run_stage(plan, load_config(None), killed.run, SilentReporter()).metrics["from"] is None


def test_without_a_whole_checkpoint_it_starts_again(killed: Bench) -> None:
    saved = killed.run.partial("first") / "checkpoints"
    (saved / "checkpoint-20" / "checkpoint.json").unlink()
    assert killed.plan(killed.first).resumes == 10
    (saved / "checkpoint-10" / "state").write_text("STATE OF 10")
    plan = killed.plan(killed.first)
    assert plan.resumes == 10, "sizes suffice for a plan"
    assert killed.plan(killed.first, full=True).resumes is None
    assert killed.go(killed.first).metrics == {"from": None, "left": ["checkpoints"]}


def test_a_damaged_note_of_the_start_starts_it_again(killed: Bench) -> None:
    (killed.run.partial("first") / "checkpoints" / "started.json").write_text("[1]")
    assert outcome(killed.plan(killed.first)) == ("run", "partial", "was interrupted; starts again")


def test_a_repetition_that_was_killed_goes_on_without_force(bench: Bench) -> None:
    bench.go(bench.first)
    bench.runners["first"] = trains_and_is_killed
    with pytest.raises(KeyboardInterrupt):
        bench.go(bench.first, "ppo.kl_coef=0.1", force=True)
    bench.runners["first"] = goes_on
    assert bench.plan(bench.first).action == "skip", "with the settings of the artifact that is there nothing is to do"
    assert bench.plan(bench.first, "ppo.kl_coef=0.1", force=True).resumes is None
    assert bench.go(bench.first, "ppo.kl_coef=0.1").metrics["from"] == 20


def test_the_limit_of_checkpoints_is_that_of_the_section(bench: Bench) -> None:
    seen = []
    bench.runners["first"] = lambda context: write_model(context) | {"loss": seen.append(context.save_total_limit)}
    bench.go(bench.first)
    stage = bench.stage("sft", runner="fake_runners:first")
    bench.go(stage, "sft.save_total_limit=7")
    assert seen == [2, 7]


def test_a_forced_run_killed_before_its_first_save_is_not_forgotten(bench: Bench) -> None:
    bench.go(bench.first)

    def interrupted(context: StageContext) -> dict[str, Any]:
        raise KeyboardInterrupt

    bench.runners["first"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        bench.go(bench.first, force=True)
    assert outcome(bench.plan(bench.first)) == ("run", "partial", "was interrupted; starts again")
    # with the settings of neither it is the complete artifact that is in the way
    assert bench.plan(bench.first, "ppo.kl_coef=0.1").differences
    bench.runners["first"] = write_model
    bench.go(bench.first)
    assert bench.plan(bench.first).action == "skip"
