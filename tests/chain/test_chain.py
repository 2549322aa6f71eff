"""The order of the stages: selection, force and what follows, dry plans, status."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.chain import chain, table
from pipelines.chain.preflight import check_environment
from pipelines.chain.table import select, with_data_of
from pipelines.config import Config, load_config
from pipelines.errors import ArtifactError, ConflictError, DataError, EnvironmentProblem, PeopleNeeded, UsageError
from pipelines.run.directory import RunDir
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import Stage, StageContext
from tests.recorders import Recorder

DATA = ["data/demonstrations", "data/comparisons", "data/prompts"]
HEAVY = ["sft", "reward", "ppo", "judge", "eval"]
PEOPLE = ["sample", "labels", "pairs"]


class Bench:
    """The real stages with runners that only write down what they read."""

    def __init__(self, root: Path) -> None:
        self.run = RunDir(root / "run")
        self.run.create()
        self.rows = root / "rows.jsonl"
        self.rows.write_text("one\n")
        model = root / "base"
        model.mkdir()
        (model / "config.json").write_text("{}")
        self.base = (f"data.comparisons={self.rows}", f"model.name_or_path={model}")
        self.ran: list[str] = []

    def config(self, *sets: str) -> Config:
        return load_config(None, [*self.base, *sets])

    def work(self, context: StageContext) -> dict[str, Any]:
        name = context.out.relative_to(self.run.root).as_posix().removesuffix(".partial")
        self.ran.append(name)
        (context.out / "made").write_text(json.dumps([context.config.ppo.kl_coef, context.config.run.seed, name]))
        return {"steps": 1}

    def go(self, *sets: str, stages: Sequence[Stage] | None = None, **kwargs: Any) -> list[str]:
        """Names of the stages that ran."""
        self.ran = []
        self.reporter = Recorder()
        chosen = table.STAGES if stages is None else stages
        chain.run_chain(chosen, self.config(*sets), self.run, self.reporter, **kwargs)
        return self.ran

    def planned(self, *sets: str, stages: Sequence[Stage] | None = None, **kwargs: Any) -> dict[str, str]:
        plans = chain.plan_chain(stages or table.STAGES, self.config(*sets), self.run, **kwargs)
        return {plan.stage.name: plan.action for plan in plans}

    def states(self, *sets: str, verify: bool = False) -> dict[str, str]:
        entries = chain.status_of(self.config(*sets), self.run, verify=verify)
        return {entry["stage"]: entry["state"] for entry in entries}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    module = types.ModuleType("fake_runners")
    module.work = bench.work  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_runners", module)
    stages = tuple(replace(stage, runner="fake_runners:work", produces=("made",)) for stage in table.STAGES)
    monkeypatch.setattr(table, "STAGES", stages)
    return bench


def files_below(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


def test_everything_runs_in_order_once(bench: Bench) -> None:
    assert bench.go() == [*DATA, *HEAVY]
    assert bench.go() == []
    assert bench.reporter.said == [f"{name}: skipped, complete" for name in [*DATA, *HEAVY]]


def test_a_deleted_stage_and_what_follows_run_again(bench: Bench) -> None:
    bench.go()
    shutil.rmtree(bench.run.stage("ppo"))
    assert bench.planned()["eval"] == "run"
    # Its new artifact equals the old one, so that eval is spared after all.
    assert bench.go() == ["ppo"]


def test_a_changed_seed_or_coefficient_is_refused_before_anything_runs(bench: Bench) -> None:
    bench.go()
    with pytest.raises(ConflictError, match="kl_coef"):
        bench.go("ppo.kl_coef=0.1")
    assert bench.ran == []
    assert bench.go("ppo.kl_coef=0.1", force=["ppo"]) == ["ppo", "eval"]
    with pytest.raises(ConflictError, match="seed: 0 -> 1"):
        bench.go("run.seed=1", "ppo.kl_coef=0.1")


def test_force_takes_what_follows(bench: Bench) -> None:
    bench.go()
    assert bench.go(force=["reward"]) == ["reward", "ppo", "judge", "eval"]
    assert bench.go(force=["data"]) == [*DATA, *HEAVY]
    assert bench.go(force=["prompts"]) == ["data/prompts", "reward", "ppo", "judge", "eval"]
    assert bench.go(stages=select("sft", "sft", bench.config()), force=["sft"]) == ["sft"]


def test_force_outside_the_selection_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="--force names sft"):
        bench.planned(stages=select("reward", None, bench.config()), force=["sft"])


def test_selection(bench: Bench) -> None:
    names = lambda stages: [stage.name for stage in stages]  # noqa: E731
    every_data = [*DATA[:2], "data/judgements", DATA[2]]
    assert names(select(None, None, bench.config())) == [*every_data, "sft", *PEOPLE, "reward", "ppo", "judge", "eval"]
    assert names(select("reward", None, bench.config())) == ["reward", "ppo", "judge", "eval"]
    assert names(select(None, "data", bench.config())) == every_data
    assert names(select("data", "sft", bench.config())) == [*every_data, "sft"]
    assert names(with_data_of("ppo", bench.config())) == ["data/prompts", "ppo"]
    assert names(with_data_of("reward", bench.config())) == ["data/comparisons", "data/prompts", "reward"]
    with pytest.raises(UsageError, match="comes after"):
        select("ppo", "sft", bench.config())
    with pytest.raises(UsageError) as caught:
        select("rewrad", None, bench.config())
    assert caught.value.hint == "did you mean `reward`?"


def test_a_stage_alone_needs_what_came_before(bench: Bench) -> None:
    with pytest.raises(ArtifactError, match="ppo needs stage sft"):
        bench.go(stages=with_data_of("ppo", bench.config()))
    assert bench.ran == [], "refused before the data stage ran"


def test_switched_off_stages_are_left_out(bench: Bench) -> None:
    sets = ("sft.enabled=false", "reward.enabled=false", "ppo.reward={kind: function, function: 'json:loads'}")
    assert bench.go(*sets) == ["data/prompts", "ppo", "eval"]
    everything = [stage.name for stage in table.STAGES]
    assert bench.states(*sets) == {name: "complete" if name in bench.ran else "off" for name in everything}


def test_a_plan_writes_nothing(bench: Bench) -> None:
    before = files_below(bench.run.root.parent)
    plans = chain.plan_chain(table.STAGES, bench.config(), bench.run)
    chain.check_plans(plans, bench.config(), bench.run)
    chain.status_of(bench.config(), bench.run)
    assert {plan.action for plan in plans if plan.stage.enabled(bench.config())} == {"run"}
    assert files_below(bench.run.root.parent) == before


def test_a_plan_foresees_what_follows(bench: Bench) -> None:
    bench.go()
    bench.rows.write_text("two\n")
    plans = chain.plan_chain(table.STAGES, bench.config(), bench.run)
    reasons = {plan.stage.name: plan.reason for plan in plans}
    assert reasons["data/prompts"] == "rows.jsonl has changed"
    assert reasons["sft"] == "data/demonstrations runs again"
    assert reasons["eval"].endswith("runs again")


def test_the_launcher_runs_the_heavy_stages_only(bench: Bench) -> None:
    launched: list[tuple[str, bool]] = []

    def launch(stage: Stage, force: bool) -> None:
        launched.append((stage.name, force))
        config = bench.config()
        chain.run_chain((stage,), config, bench.run, SilentReporter(), force=[stage.name] if force else [])

    assert bench.go(launcher=launch) == [*DATA, *HEAVY]
    assert launched == [(name, False) for name in HEAVY]
    launched.clear()
    bench.go(launcher=launch, force=["ppo"])
    assert launched == [("ppo", True), ("eval", True)]


def test_a_child_that_leaves_nothing_is_noticed(bench: Bench) -> None:
    with pytest.raises(ArtifactError, match="left no artifact"):
        bench.go(launcher=lambda stage, force: None)


def test_the_configuration_is_recorded_without_its_place(bench: Bench) -> None:
    bench.go("run.dir=elsewhere")
    recorded = load_config(bench.run.config_path)
    assert recorded == bench.config()
    assert recorded.run.dir is None


def test_status_tells_the_truth(bench: Bench) -> None:
    off = {"data/judgements": "off", **dict.fromkeys(PEOPLE, "off")}
    assert bench.states() == dict.fromkeys([*DATA, *HEAVY], "missing") | off
    bench.go()
    assert bench.states() == dict.fromkeys([*DATA, *HEAVY], "complete") | off
    changed = bench.states("ppo.kl_coef=0.1")
    assert changed == off | dict.fromkeys([*DATA, *HEAVY], "complete") | {"ppo": "stale", "eval": "stale"}
    bench.run.partial("ppo").mkdir()
    shutil.rmtree(bench.run.stage("ppo"))
    (bench.run.stage("sft") / "manifest.json").write_text("{")
    (bench.run.stage("reward") / "made").write_text("other")
    states = bench.states()
    assert (states["sft"], states["reward"], states["ppo"], states["eval"]) == (
        "damaged",
        "damaged",
        "partial",
        "stale",
    )


def test_other_library_versions_warn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.go()
    monkeypatch.setattr(chain, "package_versions", lambda: {"python": "9.9"})
    assert bench.go() == []
    assert not [text for text in bench.reporter.said if "other versions" in text], "nothing is built on it"
    bench.go(force=["eval"])
    assert [text for text in bench.reporter.said if "ppo was made with other versions: " in text and "-> 9.9" in text]


def test_data_that_nobody_names_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="no demonstrations"):
        chain.run_chain(table.STAGES, load_config(None), bench.run, SilentReporter())


@pytest.mark.parametrize(
    ("sets", "error"),
    [
        (("model.name_or_path=",), UsageError),
        (("model.name_or_path=./nowhere",), ArtifactError),
        (("model.name_or_path=.",), ArtifactError),
        (("run.device=cuda",), EnvironmentProblem),
        (("model.load_in_4bit=true", "model.use_peft=true"), EnvironmentProblem),
        (("run.report_to=[dvclive]",), EnvironmentProblem),
        (("ppo.reward={kind: classifier, path: ./nowhere}",), ArtifactError),
        (("eval.scorers=[{kind: classifier, path: /nowhere}]",), ArtifactError),
        (("feedback.source=human", "feedback.sample.models=[{model: ./nowhere}]"), ArtifactError),
        (("feedback.source=human", "feedback.sample.models=[{model: .}]"), ArtifactError),
        (("feedback.source=human", "feedback.sample.models=[{model: sft}]", "sft.enabled=false"), UsageError),
        (("feedback.source=human", "feedback.label.guidelines=nowhere.md"), DataError),
        (("feedback.source=human", "feedback.label.controls=nowhere.jsonl"), DataError),
        (("feedback.source=simulated", "feedback.simulated.scorer={kind: function, function: 'no:x'}"), UsageError),
    ],
)
def test_preflight_refuses_before_anything_is_loaded(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...], error: type[Exception]
) -> None:
    monkeypatch.setattr("pipelines.chain.preflight.cuda_devices", lambda: 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvclive").mkdir()  # no package, though Python would import it
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error):
        bench.go(*sets)
    assert bench.ran == []


def test_people_can_label_where_no_model_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.chain.preflight.cuda_devices", lambda: 0)
    sets = ("model.name_or_path=./gone", "run.device=cuda", "run.report_to=[dvclive]", "data.task={name: support}")
    human = load_config(None, (*sets, "feedback.source=human"))
    check_environment(human, ["labels", "pairs"])
    with pytest.raises(ArtifactError):
        check_environment(human, ["labels", "pairs", "reward"])
    with pytest.raises(ArtifactError):
        check_environment(load_config(None, (*sets, "feedback.source=simulated")), ["labels"])


def test_preflight_spares_what_does_not_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.go()
    monkeypatch.setattr("pipelines.chain.preflight.cuda_devices", lambda: 0)
    assert bench.go("run.device=cuda") == [], "a finished run needs no device"


def test_moved_runs_stay_complete(bench: Bench, tmp_path: Path) -> None:
    bench.go()
    bench.run = RunDir(bench.run.root.rename(tmp_path / "moved"))
    assert set(bench.states(verify=True).values()) == {"complete", "off"}
    assert bench.go() == []


ROUND = ("sample", "labels", "pairs", "reward", "ppo")
HUMAN = ("feedback.source=human", "data.comparisons=[]")


def prompts_of(bench: Bench) -> str:
    return f"data.demonstrations={bench.rows}"


def test_rounds_make_the_loop_again_and_extend_one_another(bench: Bench) -> None:
    once = (*HUMAN, prompts_of(bench))
    stages = table.stages_of(bench.config(*once))
    assert bench.go(*once, stages=stages) == ["data/demonstrations", "data/prompts", "sft", *ROUND, "judge", "eval"]
    thrice = (*once, "feedback.rounds=3")
    stages = table.stages_of(bench.config(*thrice))
    later = [f"rounds/{number}/{name}" for number in ("02", "03") for name in ROUND]
    assert bench.go(*thrice, stages=stages) == [*later, "judge", "eval"], "the first round stays as it is"
    assert bench.go(*thrice, stages=stages) == []

    needs = {stage.name: stage.needs(bench.config(*thrice)) for stage in stages}
    assert needs["rounds/02/sample"] == {"data/prompts": "data/prompts", "sft": "sft", "ppo": "policy"}
    assert needs["rounds/03/sample"]["rounds/02/ppo"] == "policy"
    assert needs["rounds/02/labels"] == {"rounds/02/sample": "sample"}
    assert needs["rounds/03/pairs"] == {"rounds/03/labels": "labels", "rounds/02/pairs": "pairs"}
    assert needs["rounds/02/reward"] == {"rounds/02/pairs": "pairs", "data/prompts": "data/prompts", "sft": "sft"}
    assert needs["rounds/02/ppo"]["rounds/02/reward"] == "reward"
    assert needs["rounds/02/ppo"]["ppo"] == "policy"
    assert needs["eval"] == {
        "data/prompts": "data/prompts",
        "sft": "sft",
        "rounds/03/reward": "reward",
        "ppo": "ppo",
        "rounds/02/ppo": "ppo-2",
        "rounds/03/ppo": "ppo-3",
        "judge": "judge",
    }
    assert needs["judge"] == {
        "sft": "sft",
        "rounds/03/pairs": "pairs",
        "reward": "reward-1",
        "rounds/02/reward": "reward-2",
        "rounds/03/reward": "reward",
    }


def test_an_input_that_is_no_longer_wanted_makes_a_stage_stale(bench: Bench) -> None:
    human = ("feedback.source=human", prompts_of(bench))
    stages = table.stages_of(bench.config(*human))
    bench.go(*human, stages=stages)
    only_file = (prompts_of(bench),)
    assert bench.states(*only_file)["reward"] == "stale", "it had learned from labels too"
    entries = {entry["stage"]: entry for entry in chain.status_of(bench.config(*only_file), bench.run)}
    assert entries["reward"]["reason"] == "pairs is no longer read"
    assert bench.go(*only_file) == ["reward", "judge"], "the fake artifact is the same, so what follows is spared"

    twice = (*human, "feedback.rounds=2")
    bench.go(*twice, stages=table.stages_of(bench.config(*twice)))
    assert bench.states(*human)["eval"] == "stale", "it tables a round that is no longer asked for"


def test_people_may_change_between_rounds(bench: Bench, tmp_path: Path) -> None:
    sets = (*HUMAN, prompts_of(bench))
    bench.go(*sets, stages=table.stages_of(bench.config(*sets)))
    guidelines = tmp_path / "guidelines.md"
    guidelines.write_text("be kind")
    other = ("feedback.label.annotators=[ann, dee]", f"feedback.label.guidelines={guidelines}")
    later = (*sets, *other, "feedback.label.overlap=2", "feedback.rounds=2")
    ran = bench.go(*later, stages=table.stages_of(bench.config(*later)))
    assert ran == [*(f"rounds/02/{name}" for name in ROUND), "judge", "eval"]
    with pytest.raises(ConflictError, match="questions"):
        bench.go(
            *later, "feedback.label.questions=[{name: kind, kind: scale}]", stages=table.stages_of(bench.config(*later))
        )


def test_a_forced_round_takes_the_later_ones_along(bench: Bench) -> None:
    sets = (*HUMAN, prompts_of(bench), "feedback.rounds=2")
    stages = table.stages_of(bench.config(*sets))
    bench.go(*sets, stages=stages)
    second = [f"rounds/02/{name}" for name in ROUND]
    assert bench.go(*sets, stages=stages, force=["rounds/02/labels"]) == [*second[1:], "judge", "eval"]
    assert bench.go(*sets, stages=stages, force=["ppo"]) == ["ppo", *second, "judge", "eval"]
    with pytest.raises(UsageError, match="no stage"):
        bench.go(*sets, stages=stages, force=["rounds/03/labels"])
    names = [stage.name for stage in with_data_of("rounds/02/reward", bench.config(*sets))]
    assert names == ["data/prompts", "labels", "pairs", "rounds/02/labels", "rounds/02/pairs", "rounds/02/reward"]
    assert [stage.name for stage in table.named("rounds/02/ppo", bench.config(*sets))] == ["rounds/02/ppo"]


def test_a_round_that_waits_for_people_goes_on_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(context: StageContext) -> dict[str, Any]:
        if context.out.name == "labels.partial":
            assert (context.round, context.run_dir) == (2 if "rounds" in context.out.parts else 1, bench.run.root)
            if context.round == 2:
                raise PeopleNeeded("12 answers are missing")
        return bench.work(context)

    sets = (*HUMAN, prompts_of(bench), "feedback.rounds=2")
    stages = table.stages_of(bench.config(*sets))
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["fake_runners"], "work", waits)
        with pytest.raises(PeopleNeeded):
            bench.go(*sets, stages=stages)
        assert bench.ran[-1] == "rounds/02/sample"
        entries = {entry["stage"]: entry for entry in chain.status_of(bench.config(*sets), bench.run)}
        shown = entries["rounds/02/labels"]
        assert (shown["state"], shown["reason"]) == ("waiting", "12 answers are missing")
        assert not bench.run.partial("rounds/02/labels").exists()
    assert bench.go(*sets, stages=stages) == [*(f"rounds/02/{name}" for name in ROUND[1:]), "judge", "eval"]
    assert "waiting" not in bench.states(*sets).values()


def test_comparisons_that_were_there_are_used_beside_new_ones(bench: Bench) -> None:
    needs = {stage.name: stage.needs for stage in table.STAGES}
    both = bench.config("feedback.source=human", prompts_of(bench))
    assert set(needs["reward"](both)) == {"data/comparisons", "data/prompts", "pairs", "sft"}
    nothing_answers = bench.config("ppo.enabled=false", "eval.enabled=false")
    assert set(needs["reward"](nothing_answers)) == {"data/comparisons", "sft"}
    written = bench.config("feedback.source=human", "feedback.label.questions=[{name: text, kind: demonstration}]")
    assert "pairs" not in needs["reward"](written), "what people wrote is not compared"
    pointwise = ("reward.objective=pointwise", f"data.judgements={bench.rows}")
    assert set(needs["reward"](bench.config(*pointwise))) == {
        *("data/comparisons", "data/judgements", "data/prompts", "sft"),
    }
    assert set(needs["reward"](bench.config(*pointwise, "data.comparisons=[]"))) == {
        *("data/judgements", "data/prompts", "sft"),
    }


def test_an_edited_reward_function_makes_ppo_stale(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "reward_of_mine.py"
    code.write_text("def score(prompts, completions): return [1.0] * len(prompts)\n")
    sets = ("reward.enabled=false", "ppo.reward={kind: function, function: 'reward_of_mine:score'}")
    bench.go(*sets)
    assert bench.states(*sets)["ppo"] == "complete"
    code.write_text("def score(prompts, completions): return [2.0] * len(prompts)\n\n")
    assert bench.states(*sets)["ppo"] == "stale"
    code.unlink()
    assert bench.states(*sets)["ppo"] == "complete"  # a source that is gone is not a change


def test_an_interrupted_training_is_planned_shown_and_gone_on_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(context: StageContext) -> dict[str, Any]:
        if context.out.name == "ppo.partial":
            context.checkpoints.begin(3)
            context.checkpoints.complete(3)
            raise KeyboardInterrupt
        return bench.work(context)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["fake_runners"], "work", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.go()
    entries = {entry["stage"]: entry for entry in chain.status_of(bench.config(), bench.run)}
    assert (entries["ppo"]["state"], entries["ppo"]["reason"]) == ("partial", "was interrupted; resumes at step 3")
    entries = {entry["stage"]: entry for entry in chain.status_of(bench.config("ppo.kl_coef=0.1"), bench.run)}
    assert entries["ppo"]["differences"] == ["ppo.kl_coef: 0.05 -> 0.1"]
    with pytest.raises(ConflictError, match="interrupted after step 3"):
        bench.go("ppo.kl_coef=0.1")

    bench.rows.write_text("two\n")
    plans = {plan.stage.name: plan for plan in chain.plan_chain(table.STAGES, bench.config(), bench.run)}
    assert plans["ppo"].resumes is None
    assert plans["ppo"].reason.startswith("was interrupted; ")
    assert plans["ppo"].reason.endswith(" runs again before it")
    assert bench.go()[-3:] == ["ppo", "judge", "eval"]
    assert "ppo: runs, was interrupted; resumes at step 3" in bench.reporter.said, "what was made again is the same"
