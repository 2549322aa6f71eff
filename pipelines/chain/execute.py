"""Execution of one stage: verified inputs, a fresh or resumed working directory, a published artifact."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.chain.plan import Plan, conflict, missing_input
from pipelines.config import Config
from pipelines.config.reference import training_in_words
from pipelines.errors import ArtifactError, DiskError, PeopleNeeded
from pipelines.models.base_record import remember_base, with_recorded_base
from pipelines.run.directory import CHECKPOINTS, RunDir, StageStart
from pipelines.run.disk import disk_errors
from pipelines.run.manifest import (
    FileRecord,
    Manifest,
    changed_files,
    digest_of,
    fingerprint_of,
    git_commit,
    machine,
    package_versions,
    peak_memory,
    record_files,
    simulated_among,
    utc_now,
)
from pipelines.run.processes import Call, send
from pipelines.run.reporting import Reporter
from pipelines.run.stage import Stage, StageContext, as_json, source_key


def run_stage(plan: Plan, config: Config, run_dir: RunDir, reporter: Reporter, *, force: bool = False) -> Manifest:
    """Run a planned stage, from its last checkpoint where the plan says so, and publish its artifact.

    The caller holds the lock of the run directory.

    Raises:
        ConflictError: its own configuration differs from that of the complete artifact, or of its checkpoints.
        ArtifactError: an input is missing or damaged.
    """
    stage = plan.stage
    if plan.differences and not force:
        raise conflict(plan, run_dir)
    inputs = _verified_inputs(stage, config, run_dir)
    remember_base(config, run_dir.root)
    section = with_recorded_base(as_json(stage.section(config)), run_dir.root)
    fingerprint = fingerprint_of(section, {name: digest_of(records) for name, records in inputs.items()})
    simulated = simulated_among(run_dir.stage(name) for name in stage.needs(config))
    context = _begin(plan, config, run_dir, reporter, StageStart(fingerprint, section, inputs), force=force)
    out = context.out
    if simulated:
        context.notes["simulated_inputs"] = simulated
    run_dir.event("stage_started", stage=stage.name, reason=plan.reason, fingerprint=fingerprint)
    if stage.kind in ("sft", "reward", "ppo"):
        reporter.info(training_in_words(stage.configured(config), stage.kind))
    began, clock = utc_now(), time.monotonic()
    try:
        if stage.parallel:
            send(Call(stage.name, context.out, context.inputs), cpu=config.run.device == "cpu")
        with disk_errors(run_dir.root):
            metrics = call_runner(stage, context)
        _refuse_changed_inputs(stage, config, run_dir, inputs)
        remember_base(config, run_dir.root)  # a hub model is on this machine by now
    except PeopleNeeded as error:
        run_dir.discard(stage.name)  # nothing was lost: what people have done so far lies elsewhere
        run_dir.event("stage_waiting", stage=stage.name, message=error.message)
        raise
    except BaseException as error:
        with contextlib.suppress(DiskError):
            run_dir.event("stage_failed", stage=stage.name, error=type(error).__name__)
        raise
    for name in stage.produces:
        if not (out / name).exists():
            reporter.warn(f"stage {stage.name} did not write {name}")
    manifest = Manifest(
        stage=stage.name,
        fingerprint=fingerprint,
        section=section,
        inputs=inputs,
        outputs=record_files(out, but=(CHECKPOINTS,)),
        metrics=as_json(metrics),
        seed=config.run.seed,
        versions=package_versions(),
        git_commit=git_commit(),
        started=began,
        wall_seconds=round(time.monotonic() - clock, 3),
        peak_memory_bytes=peak_memory(),
        notes=as_json(context.notes | {"machine": machine()}),
    )
    run_dir.publish(stage.name, manifest)
    run_dir.event("stage_ended", stage=stage.name, wall_seconds=manifest.wall_seconds)
    return manifest


def call_runner(stage: Stage, context: StageContext) -> Mapping[str, Any]:
    """Import the function of a stage and call it."""
    return load_runner(stage)(context)


def load_runner(stage: Stage) -> Callable[[StageContext], Mapping[str, Any]]:
    """Import the function of a stage and all that it needs.

    The garbage collector would take a fifth of that time, and a second at the end of the process: it is off meanwhile,
    and never looks at what was there before.
    """
    module, _, function = stage.runner.partition(":")
    if module not in sys.modules and gc.isenabled():
        gc.disable()
        try:
            importlib.import_module(module)
        finally:
            gc.freeze()
            gc.enable()
    runner: Callable[[StageContext], Mapping[str, Any]] = getattr(importlib.import_module(module), function)
    return runner


def _begin(
    plan: Plan, config: Config, run_dir: RunDir, reporter: Reporter, start: StageStart, *, force: bool
) -> StageContext:
    """The context of a stage, its working directory empty or ready to go on."""
    stage, before = plan.stage, StageStart.read(run_dir.partial(plan.stage.name))
    same = before is not None and before.fingerprint == start.fingerprint
    go_on = plan.resumes is not None and not force and same
    context = StageContext(
        stage.configured(config),
        run_dir.begin(stage.name, go_on=go_on),
        {role: run_dir.stage(name) for name, role in stage.needs(config).items()},
        reporter,
        save_total_limit=getattr(getattr(config, stage.kind, None), "save_total_limit", 2),
    )
    checkpoint = context.checkpoints.newest() if go_on else None
    if checkpoint is not None:
        context.notes["resumed_from_step"] = checkpoint.step
    else:
        run_dir.begin(stage.name)
    with disk_errors(run_dir.root):
        start.write(context.out)
    return context


def _verified_inputs(stage: Stage, config: Config, run_dir: RunDir) -> dict[str, list[FileRecord]]:
    """Records of everything the stage reads, its content checked against the manifests."""
    inputs: dict[str, list[FileRecord]] = {}
    for name in stage.needs(config):
        manifest = Manifest.read(run_dir.stage(name))
        if manifest is None:
            raise missing_input(stage, name, run_dir)
        broken = changed_files(run_dir.stage(name), manifest.outputs, full=True)
        if broken:
            raise ArtifactError(
                f"{broken[0]} of stage {name} is missing or was altered",
                where=str(run_dir.stage(name) / broken[0]),
                hint=f"run `rlhf all --force {name}`",
            )
        inputs[name] = manifest.outputs
    for path in stage.sources(config):
        if path.is_file():
            inputs[source_key(path)] = [FileRecord.of(path, path.name)]
    return inputs


def _refuse_changed_inputs(stage: Stage, config: Config, run_dir: RunDir, inputs: dict[str, list[FileRecord]]) -> None:
    for path in stage.sources(config):
        changed = changed_files(path.parent, inputs.get(source_key(path), []))
        if changed:
            raise ArtifactError(
                f"{path.name} changed while stage {stage.name} was reading it", where=str(path), hint="run it again"
            )
