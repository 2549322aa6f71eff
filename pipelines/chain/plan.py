"""Plan of a stage, decided from files alone: run, resume from a checkpoint, skip or refuse, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.config import Config
from pipelines.errors import ArtifactError, ConflictError
from pipelines.models.base_record import with_recorded_base
from pipelines.run.checkpoints import newest_at_a_glance
from pipelines.run.directory import CHECKPOINTS, RunDir, StageStart
from pipelines.run.manifest import FileRecord, Manifest, changed_files, describe_differences, digest_of
from pipelines.run.stage import Stage, as_json, is_source, source_key

State = Literal["complete", "partial", "stale", "missing", "damaged", "off"]


@dataclass(frozen=True)
class Plan:
    """Whether a stage is to run, and why.

    Attributes:
        action: run, skip (complete), or off (the configuration does not want it).
        state: what `rlhf status` calls it.
        differences: own values that differ from those of the complete artifact, or of the checkpoints of a run that
            did not end: the stage refuses to run over it.
        resumes: the step it goes on from; None: it starts at its beginning.
        wanted: it was begun with these settings and inputs and did not end: it is made even where an artifact stands.
    """

    stage: Stage
    action: Literal["run", "skip", "off"]
    state: State
    reason: str
    differences: tuple[str, ...] = ()
    manifest: Manifest | None = None
    resumes: int | None = None
    wanted: bool = False


def plan_stage(stage: Stage, config: Config, run_dir: RunDir, *, force: bool = False, full: bool = False) -> Plan:
    """Decide what `stage` has to do, from files alone.

    Raises:
        ArtifactError: a manifest that matters is damaged.
    """
    if not stage.enabled(config):
        return Plan(stage, "off", "off", "switched off by the configuration")
    unfinished = _plan_unfinished(stage, config, run_dir, full=full)
    if force:
        return Plan(stage, "run", "partial" if unfinished else "missing", "forced")
    directory = run_dir.stage(stage.name)
    manifest = Manifest.read(directory)
    if manifest is None or (unfinished is not None and unfinished.wanted):
        return unfinished or Plan(stage, "run", "missing", "not run yet")
    section = with_recorded_base(as_json(stage.section(config)), run_dir.root, manifest.section)
    differences = tuple(describe_differences(manifest.section, section))
    if differences:
        return Plan(stage, "run", "stale", "its configuration differs", differences, manifest)
    broken = changed_files(directory, manifest.outputs, full=full)
    if broken:
        return Plan(stage, "run", "damaged", f"its artifact was changed: {broken[0]}", manifest=manifest)
    stale = _stale_input(stage, config, run_dir, manifest.inputs, full=full)
    if stale:
        return Plan(stage, "run", "stale", stale, manifest=manifest)
    return Plan(stage, "skip", "complete", "complete", manifest=manifest)


def _plan_unfinished(stage: Stage, config: Config, run_dir: RunDir, *, full: bool) -> Plan | None:
    """Plan the continuation of an unfinished run of `stage`; None: there is none.

    It comes before a complete artifact with the same settings: somebody asked for it to be made again.
    """
    partial = run_dir.partial(stage.name)
    if not partial.exists():
        return None
    plan = Plan(stage, "run", "partial", "was interrupted; starts again")
    start, checkpoint = StageStart.read(partial), newest_at_a_glance(partial / CHECKPOINTS, full=full)
    if start is None:
        return plan
    differences = start.differences(with_recorded_base(as_json(stage.section(config)), run_dir.root, start.section))
    if checkpoint is None:
        wanted = not differences and _stale_input(stage, config, run_dir, start.inputs, full=full) is None
        return replace(plan, wanted=wanted)
    if differences:
        reason = f"was interrupted after step {checkpoint.step}, with other settings"
        return replace(plan, reason=reason, differences=differences)
    stale = _stale_input(stage, config, run_dir, start.inputs, full=full)
    if stale:
        return replace(plan, reason=f"was interrupted; starts again: {stale}")
    return replace(
        plan, reason=f"was interrupted; resumes at step {checkpoint.step}", resumes=checkpoint.step, wanted=True
    )


def _stale_input(
    stage: Stage, config: Config, run_dir: RunDir, inputs: Mapping[str, list[FileRecord]], *, full: bool
) -> str | None:
    """Name the first input that differs from the one recorded in `inputs`, and how; None: all are the same."""
    unread = [name for name in inputs if not is_source(name) and name not in stage.needs(config)]
    if unread:
        return f"{unread[0]} is no longer read"
    for name in stage.needs(config):
        if name in stage.added_needs and name not in inputs:
            continue
        try:
            upstream = Manifest.read(run_dir.stage(name))
        except ArtifactError:
            return f"{name} is damaged"
        if upstream is None:
            return f"{name} is not complete"
        if name not in inputs or digest_of(inputs[name]) != upstream.digest:
            return f"{name} has changed"
    for path in stage.sources(config):
        # A source that is gone is no reason: the artifact holds what was read from it.
        if path.is_file() and source_key(path) not in inputs:
            return f"{path.name} is new"
        if path.exists() and changed_files(path.parent, inputs.get(source_key(path), []), full=full):
            return f"{path.name} has changed"
    return None


def conflict(plan: Plan, run_dir: RunDir) -> ConflictError:
    """The refusal to run a stage over an artifact, or over checkpoints, made with other settings."""
    name, shown = plan.stage.name, "\n".join(f"  {line}" for line in plan.differences)
    unfinished = plan.state == "partial"
    what = plan.reason if unfinished else "is complete with other settings"
    return ConflictError(
        f"stage {name} {what}:\n{shown}",
        where=str(run_dir.partial(name) if unfinished else run_dir.stage(name)),
        hint=f"undo the change, use another --run-dir, or start it again: --force (with `rlhf all`: --force {name})",
    )


def missing_input(stage: Stage, name: str, run_dir: RunDir) -> ArtifactError:
    """The refusal to run a stage before one that it needs."""
    return ArtifactError(
        f"stage {stage.name} needs stage {name}, which is not complete",
        where=str(run_dir.stage(name)),
        hint=f"run `rlhf all --run-dir {run_dir.root} --until {stage.name}`, which makes what is missing",
    )
