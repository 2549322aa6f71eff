"""One stage: what it needs, what it produces, and how it is run, skipped or refused."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.config import Config
from pipelines.disk import disk_errors
from pipelines.errors import ArtifactError, ConflictError, DiskError
from pipelines.manifest import FileRecord, Manifest, changed_files, digest_of, fingerprint_of, record_files
from pipelines.progress import Reporter
from pipelines.provenance import git_commit, package_versions, peak_memory, utc_now
from pipelines.rundir import RunDir

State = Literal["complete", "partial", "stale", "missing", "damaged", "off"]


@dataclass(frozen=True)
class StageContext:
    """What a stage's function gets.

    Attributes:
        config: the whole resolved configuration.
        out: the working directory; everything written here is published, except ``checkpoints/``.
        inputs: directory of each needed stage's artifact, by its name.
        reporter: progress and plain words.
        notes: the stage puts here what the manifest should say beside the metrics.
    """

    config: Config
    out: Path
    inputs: Mapping[str, Path]
    reporter: Reporter
    notes: dict[str, Any] = field(default_factory=dict)

    def log(self, name: str, values: Mapping[str, Any]) -> None:
        """Append one line to ``<name>.jsonl``."""
        with disk_errors(self.out), (self.out / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Stage:
    """A named step of the pipeline.

    Attributes:
        name: also its directory below the run directory.
        runner: ``module:function``, imported when the stage runs; takes a StageContext, returns its final metrics.
        needs: names of the stages whose artifacts it reads, given the configuration.
        section: the values that affect its result, given the configuration.
        sources: files outside the run directory that it reads.
        produces: names of what a later stage or the user finds in its directory.
        heavy: loads models; `rlhf all` runs it as a child process.
        enabled: whether the configuration wants it.
    """

    name: str
    runner: str
    needs: Callable[[Config], tuple[str, ...]]
    section: Callable[[Config], dict[str, Any]]
    produces: tuple[str, ...]
    sources: Callable[[Config], tuple[Path, ...]] = lambda config: ()
    heavy: bool = True
    enabled: Callable[[Config], bool] = lambda config: True


@dataclass(frozen=True)
class Plan:
    """Whether a stage is to run, and why.

    Attributes:
        action: run, skip (complete), or off (the configuration does not want it).
        state: what `rlhf status` calls it.
        differences: own values that differ from the complete artifact's: the stage refuses to run over it.
    """

    stage: Stage
    action: Literal["run", "skip", "off"]
    state: State
    reason: str
    differences: tuple[str, ...] = ()
    manifest: Manifest | None = None


def plan_stage(stage: Stage, config: Config, run_dir: RunDir, *, force: bool = False, full: bool = False) -> Plan:
    """Decide what `stage` has to do, from files alone.

    Raises:
        ArtifactError: a manifest that matters is damaged.
    """
    if not stage.enabled(config):
        return Plan(stage, "off", "off", "switched off by the configuration")
    partial = run_dir.partial(stage.name).exists()
    if force:
        return Plan(stage, "run", "partial" if partial else "missing", "forced")
    directory = run_dir.stage(stage.name)
    manifest = Manifest.read(directory)
    if manifest is None:
        if partial:
            return Plan(stage, "run", "partial", "was interrupted; starts again")
        return Plan(stage, "run", "missing", "not run yet")
    differences = tuple(describe_differences(manifest.section, _as_json(stage.section(config))))
    if differences:
        return Plan(stage, "run", "stale", "its configuration differs", differences, manifest)
    broken = changed_files(directory, manifest.outputs, full=full)
    if broken:
        return Plan(stage, "run", "damaged", f"its artifact was changed: {broken[0]}", manifest=manifest)
    stale = _stale_input(stage, config, run_dir, manifest, full=full)
    if stale:
        return Plan(stage, "run", "stale", stale, manifest=manifest)
    return Plan(stage, "skip", "complete", "complete", manifest=manifest)


def _stale_input(stage: Stage, config: Config, run_dir: RunDir, manifest: Manifest, *, full: bool) -> str | None:
    """Which input is no longer the one that the artifact was made from, and how."""
    for name in stage.needs(config):
        try:
            upstream = Manifest.read(run_dir.stage(name))
        except ArtifactError:
            return f"{name} is damaged"
        if upstream is None:
            return f"{name} is not complete"
        if name not in manifest.inputs or digest_of(manifest.inputs[name]) != upstream.digest:
            return f"{name} has changed"
    for path in stage.sources(config):
        # A source that is gone is no reason: the artifact holds what was read from it.
        if path.is_file() and _source_key(path) not in manifest.inputs:
            return f"{path.name} is new"
        if path.exists() and changed_files(path.parent, manifest.inputs.get(_source_key(path), []), full=full):
            return f"{path.name} has changed"
    return None


def run_stage(plan: Plan, config: Config, run_dir: RunDir, reporter: Reporter, *, force: bool = False) -> Manifest:
    """Run a planned stage and publish its artifact.

    The caller holds the lock of the run directory.

    Raises:
        ConflictError: its own configuration differs from that of the complete artifact.
        ArtifactError: an input is missing or damaged.
    """
    stage = plan.stage
    if plan.differences and not force:
        raise conflict(plan, run_dir)
    inputs = _verified_inputs(stage, config, run_dir)
    section = _as_json(stage.section(config))
    fingerprint = fingerprint_of(section, {name: digest_of(records) for name, records in inputs.items()})
    out = run_dir.begin(stage.name)
    context = StageContext(config, out, {name: run_dir.stage(name) for name in stage.needs(config)}, reporter)
    run_dir.event("stage_started", stage=stage.name, reason=plan.reason, fingerprint=fingerprint)
    started, clock = utc_now(), time.monotonic()
    try:
        module, _, function = stage.runner.partition(":")
        with disk_errors(run_dir.root):
            metrics = getattr(importlib.import_module(module), function)(context)
        _refuse_changed_inputs(stage, config, run_dir, inputs)
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
        outputs=record_files(out, but=("checkpoints",)),
        metrics=_as_json(metrics),
        seed=config.run.seed,
        versions=package_versions(),
        git_commit=git_commit(),
        started=started,
        wall_seconds=round(time.monotonic() - clock, 3),
        peak_memory_bytes=peak_memory(),
        notes=_as_json(context.notes),
    )
    run_dir.publish(stage.name, manifest)
    run_dir.event("stage_ended", stage=stage.name, wall_seconds=manifest.wall_seconds)
    return manifest


def conflict(plan: Plan, run_dir: RunDir) -> ConflictError:
    """The refusal to run a stage over an artifact that was made with other settings."""
    shown = "\n".join(f"  {line}" for line in plan.differences)
    return ConflictError(
        f"stage {plan.stage.name} is complete with other settings:\n{shown}",
        where=str(run_dir.stage(plan.stage.name)),
        hint=f"undo the change, use another --run-dir, or replace it: `rlhf all --force {plan.stage.name}`",
    )


def missing_input(stage: Stage, name: str, run_dir: RunDir) -> ArtifactError:
    """The refusal to run a stage before one that it needs."""
    return ArtifactError(
        f"stage {stage.name} needs stage {name}, which is not complete",
        where=str(run_dir.stage(name)),
        hint=f"run `rlhf all --until {stage.name}`, which makes what is missing",
    )


def describe_differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Lines `key: old -> new` for every value that differs between two JSON trees."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in (*new, *(key for key in old if key not in new)):
            dotted = f"{prefix}.{key}" if prefix else key
            lines += describe_differences(old.get(key), new.get(key), dotted)
        return lines
    return [] if old == new else [f"{prefix}: {json.dumps(old)} -> {json.dumps(new)}"]


def _verified_inputs(stage: Stage, config: Config, run_dir: RunDir) -> dict[str, list[FileRecord]]:
    """Records of everything the stage reads, its content checked against the manifests.

    Raises:
        ArtifactError: a needed stage is not complete, or one of its files was altered.
    """
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
            inputs[_source_key(path)] = [FileRecord.of(path, path.name)]
    return inputs


def _refuse_changed_inputs(stage: Stage, config: Config, run_dir: RunDir, inputs: dict[str, list[FileRecord]]) -> None:
    for path in stage.sources(config):
        changed = changed_files(path.parent, inputs.get(_source_key(path), []))
        if changed:
            raise ArtifactError(
                f"{path.name} changed while stage {stage.name} was reading it", where=str(path), hint="run it again"
            )


def _source_key(path: Path) -> str:
    """How a manifest names a file outside the run directory: as given, so that no machine path is added."""
    return f"source:{path}"


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they read back from a manifest; a numpy or torch scalar must not cost a finished training."""
    result: dict[str, Any] = json.loads(
        json.dumps(values, default=lambda value: value.item() if hasattr(value, "item") else str(value))
    )
    return result
