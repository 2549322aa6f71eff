"""Planning, checking and running a chain of stages. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.chain.execute import call_runner, run_stage
from pipelines.chain.plan import Plan, conflict, missing_input, plan_stage
from pipelines.chain.preflight import check_environment
from pipelines.chain.table import named, stages_of, with_begun_baselines
from pipelines.config import Config, dump_config
from pipelines.errors import ArtifactError, DataError, UsageError
from pipelines.models.base_record import BaseRecord, remember_base
from pipelines.run.directory import RunDir
from pipelines.run.disk import write_atomic
from pipelines.run.manifest import Manifest, package_versions, version_differences
from pipelines.run.processes import receive
from pipelines.run.reporting import Reporter, SilentReporter
from pipelines.run.stage import Stage, StageContext

Launcher = Callable[[Stage, bool], None]
"""Runs one heavy stage in a process of its own; the flag says whether it is forced."""


def plan_chain(stages: Sequence[Stage], config: Config, run_dir: RunDir, *, force: Sequence[str] = ()) -> list[Plan]:
    """Plan every stage, in order, assuming that a stage which runs changes all that follow from it."""
    forced = _forced(stages, config, force)
    plans: list[Plan] = []
    running: set[str] = set()
    for stage in stages:
        plan = plan_stage(stage, config, run_dir, force=stage.name in forced)
        upstream = [name for name in stage.needs(config) if name in running]
        if upstream and plan.action == "skip":
            plan = replace(plan, action="run", state="stale", reason=f"{upstream[0]} runs again")
        elif upstream and plan.resumes is not None:
            plan = replace(plan, reason=f"was interrupted; {upstream[0]} runs again before it", resumes=None)
        if plan.action == "run":
            running.add(stage.name)
        plans.append(plan)
    return plans


def _forced(stages: Sequence[Stage], config: Config, force: Sequence[str]) -> set[str]:
    """Names of the stages that `--force` means: the named ones and, among `stages`, all that follow from them."""
    forced = {stage.name for name in force for stage in named(name, config)}
    outside = forced.difference(stage.name for stage in stages)
    if outside:
        raise UsageError(
            f"--force names {min(outside)}, which this command does not run", hint="widen --from and --until"
        )
    for stage in stages:
        if any(name in forced for name in stage.needs(config)):
            forced.add(stage.name)
    return forced


@dataclass(frozen=True)
class Outcome:
    """Result of one stage in a chain."""

    stage: str
    action: str
    reason: str
    manifest: Manifest | None


def check_plans(plans: Sequence[Plan], config: Config, run_dir: RunDir) -> None:
    """Refuse what can be refused before anything heavy is loaded.

    Raises:
        ConflictError: a complete stage was made with other settings.
        ArtifactError: a stage needs one that is neither complete nor planned.
        UsageError: the settings of a baseline do not fit.
        RlhfError: the environment or a path does not fit.
    """
    planned = {plan.stage.name for plan in plans}
    for plan in plans:
        if plan.differences:
            raise conflict(plan, run_dir)
        if plan.action == "run":
            _check_groups(plan.stage, config)
            for path in plan.stage.sources(config):  # Raises where no data is named.
                if not path.exists():
                    raise DataError("no such data file", where=str(path), hint=f"the path is relative to {Path.cwd()}")
            for name in plan.stage.needs(config):
                if name not in planned:
                    _check_finished(plan.stage, name, config, run_dir)
    check_environment(config, [plan.stage.kind for plan in plans if plan.action == "run"])


def _check_groups(stage: Stage, config: Config) -> None:
    """Refuse a baseline whose rollouts cannot be shared out to the prompts; PPO's own settings are checked as read."""
    settings = stage.configured(config).ppo
    rows, group = settings.rollout_batch_size, settings.num_generations
    if stage.kind == "ppo" and rows % group:
        raise UsageError(
            f"ppo.rollout_batch_size {rows} is not a multiple of baselines.num_generations {group}",
            where="baselines.num_generations",
            hint="set it to a divisor of ppo.rollout_batch_size, at least 2",
        )


def _check_finished(stage: Stage, name: str, config: Config, run_dir: RunDir) -> None:
    """Refuse to build on a stage that is not complete, or was made with other settings than those of now."""
    if Manifest.read(run_dir.stage(name)) is None:
        raise missing_input(stage, name, run_dir)
    (needed,) = named(name, config)
    plan = plan_stage(needed, config, run_dir)
    if plan.differences:
        raise conflict(plan, run_dir)


def _prepare(plans: Sequence[Plan], config: Config, run_dir: RunDir, reporter: Reporter) -> None:
    check_plans(plans, config, run_dir)
    _warn_of_versions(plans, reporter)
    if BaseRecord.read(run_dir.root) is not None:
        remember_base(config, run_dir.root)  # A base that was moved: its content is checked already.
    text = dump_config(config, place=False)
    if not run_dir.config_path.exists() or run_dir.config_path.read_text(encoding="utf-8") != text:
        write_atomic(run_dir.config_path, text)


def run_chain(
    stages: Sequence[Stage],
    config: Config,
    run_dir: RunDir,
    reporter: Reporter,
    *,
    force: Sequence[str] = (),
    launcher: Launcher | None = None,
    said: bool = False,
) -> list[Outcome]:
    """Run the stages in order, skipping what is complete; the caller holds the lock.

    Args:
        launcher: runs a heavy stage in a process of its own; None: everything runs here.
        said: whether somebody has said already which stages run.

    Raises:
        RlhfError: a stage refused or failed; what is complete stays.
    """
    plans = plan_chain(stages, config, run_dir, force=force)
    _prepare(plans, config, run_dir, reporter)
    forced = _forced(stages, config, force)
    outcomes: list[Outcome] = []
    for plan in plans:
        stage = plan.stage
        if any(outcome.action == "run" and outcome.stage in stage.needs(config) for outcome in outcomes):
            plan = plan_stage(
                stage, config, run_dir, force=stage.name in forced
            )  # its inputs may have come out the same
        if plan.action == "off":
            continue
        if not said:
            reporter.info(f"{stage.name}: {'skipped' if plan.action == 'skip' else 'runs'}, {plan.reason}")
        manifest = plan.manifest
        if plan.action == "skip":
            run_dir.event("stage_skipped", stage=stage.name, reason=plan.reason)
        elif stage.heavy and launcher is not None:
            launcher(stage, stage.name in forced)
            manifest = Manifest.read(run_dir.stage(stage.name))
            if manifest is None:
                raise ArtifactError(f"stage {stage.name} ended but left no artifact", where=str(run_dir.root))
        else:
            manifest = run_stage(plan, config, run_dir, reporter, force=stage.name in forced)
        outcomes.append(Outcome(stage.name, plan.action, plan.reason, manifest))
    return outcomes


def join_chain(config: Config) -> None:
    """Join the stages that the first process of a parallel run calls, until it dismisses this one."""
    while (call := receive(cpu=config.run.device == "cpu")) is not None:
        (stage,) = named(call.stage, config)
        call_runner(stage, StageContext(stage.configured(config), call.out, call.inputs, SilentReporter()))


def _warn_of_versions(plans: Sequence[Plan], reporter: Reporter) -> None:
    """Warn about complete artifacts that were made with other library versions."""
    if all(plan.action != "run" for plan in plans):
        return
    now = package_versions()
    for plan in plans:
        if plan.action == "skip" and plan.manifest is not None:
            differences = version_differences(plan.manifest, now)
            if differences:
                reporter.warn(f"{plan.stage.name} was made with other versions: {', '.join(differences)}")


def status_of(config: Config, run_dir: RunDir, *, verify: bool = False) -> list[dict[str, Any]]:
    """One entry a stage: off, missing, waiting, partial, running, complete, stale or damaged, and why.

    `verify`: read and hash every file instead of trusting size and time.
    """
    entries: list[dict[str, Any]] = []
    stale: set[str] = set()
    busy, waiting = run_dir.holder() is not None, run_dir.waiting()
    for stage in with_begun_baselines(stages_of(config), run_dir):
        try:
            plan = plan_stage(stage, config, run_dir, full=verify)
        except ArtifactError as error:
            entries.append({"stage": stage.name, "state": "damaged", "reason": error.message, "differences": []})
            continue
        entry: dict[str, Any] = {"stage": stage.name, "state": plan.state, "reason": plan.reason}
        entry["differences"] = list(plan.differences)
        upstream = [name for name in stage.needs(config) if name in stale]
        if plan.state == "complete" and upstream:
            entry |= {"state": "stale", "reason": f"{upstream[0]} is stale"}
        if plan.state == "partial" and busy:
            entry |= {"state": "running", "reason": "in progress"}
        if plan.state == "missing" and stage.name in waiting:
            entry |= {"state": "waiting", "reason": waiting[stage.name]}
        if entry["state"] in ("stale", "running", "partial"):
            stale.add(stage.name)
        if plan.manifest is not None:
            entry |= {"wall_seconds": plan.manifest.wall_seconds, "metrics": plan.manifest.metrics}
        entries.append(entry)
    return entries
