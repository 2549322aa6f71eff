"""The report of a run: report.html, one file that needs no network, no script and nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipelines.config import Config, dump_config
from pipelines.evaluate.results_table import Grid, grid
from pipelines.overview import wording
from pipelines.overview.call import call_of
from pipelines.overview.frontier_figures import frontier_plots
from pipelines.overview.reward_figures import reward_figures
from pipelines.overview.run_facts import RunFacts, StageFacts, read_run, warnings_of
from pipelines.overview.side_by_side import side_by_side
from pipelines.overview.training_figures import trainings_of
from pipelines.report.safe_text import visible
from pipelines.run.directory import RunDir
from pipelines.run.disk import write_atomic
from pipelines.run.manifest import package_versions, utc_now

MOST_BYTES = 3_000_000
MOST_FILES = 60
MOST_CONFIG = 100_000
TEXT_LIMITS = (3000, 300)
"""Characters of a prompt or an answer that are shown; the second limit holds where the page would be too large."""


@dataclass(frozen=True)
class FileRow:
    """A published file: its name, its size in words, and its SHA-256 digest."""

    name: str
    size: str
    sha256: str


@dataclass(frozen=True)
class RoadRow:
    """A stage on the road.

    Attributes:
        stage: facts about it.
        state: state in words.
        outcome: figures that it is remembered by.
        seconds: wall time in words; None: it has not ended.
        memory: peak memory in words.
        size: size of its files in words.
        digest: hash over its outputs, which the stages that read them record.
        files: its files, at most `MOST_FILES`.
        more_files: number of the files that are left out.
    """

    stage: StageFacts
    state: str
    outcome: str
    seconds: str | None = None
    memory: str | None = None
    size: str | None = None
    digest: str | None = None
    files: tuple[FileRow, ...] = ()
    more_files: int = 0


def write_report(config: Config, run_dir: RunDir, out: Path | None = None) -> Path:
    """Write the report of a run and return its path, ``report.html`` in the run directory unless `out` names another.

    A reader of an older report sees that one or the new one, whole. The run may be at work meanwhile.

    Raises:
        DiskError: no space, or no permission.
    """
    path = out if out is not None else run_dir.report_path
    write_atomic(path, render(config, run_dir))
    return path


def render(config: Config, run_dir: RunDir) -> str:
    """Make the page; a stage that is missing, unfinished or damaged is said on it.

    Returns:
        HTML of at most `MOST_BYTES` bytes in UTF-8, as long as the run has no more than some dozen rounds.
    """
    run = read_run(config, run_dir)
    text = ""
    for limit in TEXT_LIMITS:
        text = _page(run, run_dir, limit)
        if len(text.encode()) <= MOST_BYTES:
            break
    return text


def _page(run: RunFacts, run_dir: RunDir, limit: int) -> str:
    warnings, all_warnings = warnings_of(run_dir)
    trainings, earlier_rounds = trainings_of(run)
    return (
        _environment()
        .get_template("report.html")
        .render(
            run=run,
            made=utc_now()[:16].replace("T", " "),
            version=package_versions().get("rlhf", "unknown"),
            verdict=call_of(run),
            results=_results(run),
            road=[_road_row(stage) for stage in run.stages],
            seconds=wording.duration(sum(s.manifest.wall_seconds for s in run.stages if s.manifest)),
            trainings=trainings,
            frontier=frontier_plots(run),
            earlier_rounds=earlier_rounds,
            rewards=reward_figures(run),
            answers=side_by_side(run),
            limit=limit,
            alarms=_alarms(run),
            warnings=warnings,
            more_warnings=all_warnings - len(warnings),
            config=cut(dump_config(run.config, place=False), MOST_CONFIG),
            versions=_versions(run),
            commits=sorted({s.manifest.git_commit for s in run.stages if s.manifest and s.manifest.git_commit}),
            machines=_machines(run),
        )
    )


def _environment() -> jinja2.Environment:
    """Make the environment of the template: every value is made visible, then escaped; an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines.overview"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else visible(value),
    )
    environment.filters["cut"] = cut
    return environment


def cut(text: str, limit: int) -> str:
    """Return a text made visible, of at most `limit` characters, with a word on what is left out."""
    whole = visible(text)
    return whole if len(whole) <= limit else f"{whole[:limit]} [... {len(whole) - limit} more characters]"


def _results(run: RunFacts) -> Grid | None:
    """Return the table of results; None: there are none that can be read."""
    try:
        return grid(run.results) if run.results else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _road_row(stage: StageFacts) -> RoadRow:
    state, manifest = wording.STATES.get(stage.state, stage.state), stage.manifest
    if manifest is None:
        return RoadRow(stage, state, stage.reason)
    files = [FileRow(record.path, wording.size(record.size), record.sha256) for record in manifest.outputs]
    return RoadRow(
        stage,
        state,
        wording.outcome(stage),
        seconds=wording.duration(manifest.wall_seconds),
        memory=wording.size(manifest.peak_memory_bytes),
        size=wording.size(sum(record.size for record in manifest.outputs)),
        digest=manifest.digest,
        files=tuple(files[:MOST_FILES]),
        more_files=max(0, len(files) - MOST_FILES),
    )


@dataclass(frozen=True)
class AlarmRow:
    """An alarm of PPO: the stage it fired in, its name, the update, what it saw, what to do and what was done."""

    stage: str
    name: str
    update: int
    message: str
    hint: str
    done: str


def _alarms(run: RunFacts) -> list[AlarmRow]:
    rows = []
    for stage in run.stages:
        for alarm in stage.lines("alarms") if stage.kind == "ppo" else ():
            texts = (str(alarm.get(key, "")) for key in ("message", "hint", "done"))
            update = alarm.get("update")
            rows.append(
                AlarmRow(stage.name, str(alarm.get("name", "")), update if isinstance(update, int) else 0, *texts)
            )
    return rows


def _versions(run: RunFacts) -> dict[str, list[str]]:
    """Versions by package; several where the stages were made with several."""
    versions: dict[str, list[str]] = {}
    for stage in run.stages:
        for package, version in (stage.manifest.versions if stage.manifest else {}).items():
            if version not in versions.setdefault(package, []):
                versions[package].append(version)
    return versions


def _machines(run: RunFacts) -> dict[str, list[str]]:
    """Stages by the machine that they ran on, as far as the manifests know it."""
    machines: dict[str, list[str]] = {}
    for stage in run.stages:
        facts = stage.manifest.notes.get("machine") if stage.manifest else None
        if isinstance(facts, Mapping):
            machines.setdefault(_machine(facts), []).append(stage.name)
    return machines


def _machine(facts: Mapping[str, Any]) -> str:
    memory, gpus = facts.get("memory_bytes"), facts.get("gpus")
    parts = [
        str(facts.get("system", "")),
        str(facts.get("processor", "")),
        f"{facts['cores']} CPU cores" if facts.get("cores") else "",
        f"{wording.size(memory)} memory" if isinstance(memory, int) else "",
        ", ".join(map(str, gpus)) if isinstance(gpus, list) else "no GPU used",
    ]
    return "; ".join(filter(None, parts))
