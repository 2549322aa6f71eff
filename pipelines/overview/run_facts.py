"""Facts about a run, read from its directory: whatever is missing or damaged is left out and said."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.chain.chain import status_of
from pipelines.chain.table import stages_of
from pipelines.config import Config
from pipelines.errors import ArtifactError, RlhfError
from pipelines.evaluate.conclusion import with_people
from pipelines.labels.blind import people_of
from pipelines.run.directory import BASELINES, RunDir, split_round
from pipelines.run.disk import read_json
from pipelines.run.manifest import Manifest

MOST_WARNINGS = 60
_WARNING = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (WARNING|ERROR) rlhf\[\d+\] (.*)")


@dataclass(frozen=True)
class StageFacts:
    """A stage of a run as its directory has it.

    Attributes:
        name: name of the stage, such as ``rounds/02/ppo``.
        state: one of those of `rlhf status`.
        reason: reason for the state.
        directory: directory with its files, finished or not; None: there is none.
        manifest: manifest of the published artifact; None: there is none that can be read.
    """

    name: str
    state: str
    reason: str
    directory: Path | None
    manifest: Manifest | None

    @property
    def kind(self) -> str:
        """Name without the round; a baseline is a training of the kind ``ppo``, or ``dpo``."""
        if self.baseline is not None:
            return "dpo" if self.baseline == "dpo" else "ppo"
        return split_round(self.name)[0]

    @property
    def baseline(self) -> str | None:
        """Name of the baseline, such as ``rloo``; None: it is a stage of the run itself."""
        group, _, name = self.name.partition("/")
        return name if group == BASELINES else None

    @property
    def round(self) -> int:
        """Number of the round of feedback, from 1."""
        return split_round(self.name)[1]

    def metric(self, name: str) -> float | None:
        """Return a final metric of the manifest; None: there is no such number."""
        value = self.manifest.metrics.get(name) if self.manifest is not None else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of ``<name>.jsonl``; lines that hold none are passed over."""
        if self.directory is not None:
            yield from json_lines(self.directory / f"{name}.jsonl")


@dataclass(frozen=True)
class RunFacts:
    """A whole run.

    Attributes:
        root: run directory.
        config: configuration of the run.
        stages: stages in their order, those that are switched off left out.
        unchecked: reason why the stages could not be compared with the configuration; None: they were.
    """

    root: Path
    config: Config
    stages: tuple[StageFacts, ...]
    unchecked: str | None = None

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.root.absolute().name

    def stage(self, name: str) -> StageFacts | None:
        """Return the stage of this name; None: it is switched off."""
        return next((stage for stage in self.stages if stage.name == name), None)

    @cached_property
    def results(self) -> dict[str, Any]:
        """Content of the evaluation's results.json, with ``people`` who have compared the answers since.

        Empty: there is none that can be read.
        """
        stage = self.stage("eval")
        if stage is None or stage.manifest is None or stage.directory is None:
            return {}
        results = read_json(stage.directory / "results.json")
        people = people_of(RunDir(self.root), results, self.config.eval.bootstrap_samples)
        return results if people is None else with_people(results, people)


def read_run(config: Config, run_dir: RunDir) -> RunFacts:
    """Read the facts of a run; nothing that is missing or damaged in the directory is an error."""
    unchecked = None
    try:
        entries = status_of(config, run_dir)
    except RlhfError as error:  # such as data that is no longer where the configuration says
        unchecked = error.message
        entries = [_unchecked(stage.name, run_dir) for stage in stages_of(config) if stage.enabled(config)]
    stages = [_stage(entry, run_dir) for entry in entries if entry["state"] != "off"]
    return RunFacts(run_dir.root, config, tuple(stages), unchecked)


def _unchecked(name: str, run_dir: RunDir) -> dict[str, str]:
    """Say what the files of a stage alone tell of it."""
    manifest, fault = _manifest(run_dir.stage(name))
    if fault is not None:
        return {"stage": name, "state": "damaged", "reason": fault}
    if manifest is not None:
        return {"stage": name, "state": "complete", "reason": "complete"}
    if run_dir.partial(name).is_dir():
        return {"stage": name, "state": "partial", "reason": "it has begun and has not ended"}
    return {"stage": name, "state": "missing", "reason": "not run yet"}


def _stage(entry: dict[str, Any], run_dir: RunDir) -> StageFacts:
    name = str(entry["stage"])
    manifest, _ = _manifest(run_dir.stage(name))
    places = [run_dir.partial(name), run_dir.stage(name)]
    if manifest is not None:
        places.reverse()
    directory = next((place for place in places if place.is_dir()), None)
    return StageFacts(name, str(entry["state"]), str(entry["reason"]), directory, manifest)


def _manifest(directory: Path) -> tuple[Manifest | None, str | None]:
    """Return the manifest and, where it is damaged, the fault."""
    try:
        return Manifest.read(directory), None
    except ArtifactError as error:
        return None, error.message


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file, one a line.

    A line that holds none is passed over: a killed stage leaves one. A link is not followed, as nothing in a run
    directory is one.
    """
    if path.is_symlink() or not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value


@dataclass(frozen=True)
class LoggedWarning:
    """A warning or an error of the run's log.

    Attributes:
        time: local time of the machine, to the second.
        level: ``warning`` or ``error``.
        text: first line of the message.
    """

    time: str
    level: str
    text: str


def warnings_of(run_dir: RunDir) -> tuple[list[LoggedWarning], int]:
    """Read the warnings and errors of rlhf.log.

    Returns:
        The last `MOST_WARNINGS` of them, each text once, in order; and how many there are in all.
    """
    path = run_dir.log_path
    if path.is_symlink() or not path.is_file():
        return [], 0
    last: dict[str, LoggedWarning] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for match in filter(None, map(_WARNING.match, file)):
            time, level, text = match.groups()
            last.pop(text, None)
            last[text] = LoggedWarning(time, level.lower(), text)
    return list(deque(last.values(), MOST_WARNINGS)), len(last)
