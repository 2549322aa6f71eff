"""A stage: its name, its inputs and outputs, and the context that its function gets."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.run.checkpoints import Checkpoints
from pipelines.run.directory import CHECKPOINTS, run_of, split_round
from pipelines.run.disk import disk_errors
from pipelines.run.processes import rank
from pipelines.run.reporting import Reporter
from pipelines.run.signals import StopRequest


@dataclass(frozen=True)
class StageContext:
    """Context of a stage: the argument of its function.

    Attributes:
        out: the working directory; everything written here is published, except ``checkpoints/``.
        inputs: directory of each needed stage's artifact, by the role it plays: mostly its name.
        notes: the stage puts here what the manifest should say beside the metrics.
        save_total_limit: how many checkpoints are kept.
    """

    config: Config
    out: Path
    inputs: Mapping[str, Path]
    reporter: Reporter
    notes: dict[str, Any] = field(default_factory=dict)
    save_total_limit: int = 2

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Checkpoints of a stage that trains, including those of an interrupted run."""
        root = self.out / CHECKPOINTS
        return Checkpoints(root, keep=self.save_total_limit, logs=self.out, warn=self.reporter.warn)

    @property
    def run_dir(self) -> Path:
        """The run directory; not for the data stages."""
        return run_of(self.out)[0]

    @property
    def round(self) -> int:
        """Number of the round of feedback, from 1."""
        return run_of(self.out)[1]

    @property
    def label(self) -> str:
        """Name of the stage in messages: that of its directory."""
        return self.out.name.removesuffix(".partial")

    @property
    def trackers(self) -> Path:
        """Directory for the files of trackers. It is outside the working directory, which an interruption may empty."""
        return self.out.parent / "trackers" / self.label

    @cached_property
    def stop(self) -> StopRequest:
        """Signals to stop while there is a step to finish and to save."""
        return StopRequest(self.reporter.warn)

    def log(self, name: str, values: Mapping[str, Any]) -> None:
        """Append one line to ``<name>.jsonl``; of several processes the first one writes."""
        if rank() > 0:
            return
        with disk_errors(self.out), (self.out / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


def tracked_as(out: Path) -> tuple[str, str]:
    """Project and name under which trackers record a stage that starts now.

    The project is ``rlhf`` or what `WANDB_PROJECT` names. The name, such as ``my-sft-20261127-162905``, tells run
    directory, stage and time: a tracker would put two starts of one name into one curve.
    """
    root, number = run_of(out.absolute())
    of_round = (f"round-{number}",) if number > 1 else ()
    stage = out.name.removesuffix(".partial")
    name = "-".join((root.name, *of_round, stage, datetime.datetime.now().strftime("%Y%m%d-%H%M%S")))
    return os.environ.setdefault("WANDB_PROJECT", "rlhf"), name


@dataclass(frozen=True)
class Stage:
    """A named step of the pipeline.

    Attributes:
        name: also its directory below the run directory.
        runner: ``module:function``, imported when the stage runs; takes a StageContext, returns its final metrics.
        needs: the stages whose artifacts it reads, given the configuration: what they are to it, by their names.
        added_needs: those among `needs` that earlier versions did not read: an artifact without them is no older.
        section: the values that affect its result, given the configuration.
        sources: files outside the run directory that it reads.
        produces: names of what a later stage or the user finds in its directory.
        heavy: loads models; `rlhf all` runs it as a child process.
        on_demand: the command of a stage that needs it runs it too.
        parallel: several processes can work on it together; any other stage runs in one.
        enabled: whether the configuration wants it.
        configured: the configuration that it works by, given that of the run.
        works_as: the stage whose settings it goes by; empty: none but its own.
    """

    name: str
    runner: str
    needs: Callable[[Config], Mapping[str, str]]
    section: Callable[[Config], dict[str, Any]]
    produces: tuple[str, ...]
    sources: Callable[[Config], tuple[Path, ...]] = lambda config: ()
    added_needs: tuple[str, ...] = ()
    heavy: bool = True
    on_demand: bool = False
    parallel: bool = False
    enabled: Callable[[Config], bool] = lambda config: True
    configured: Callable[[Config], Config] = lambda config: config
    works_as: str = ""

    @property
    def kind(self) -> str:
        """Its name without its round, or that of the stage whose settings it goes by."""
        return self.works_as or split_round(self.name)[0]


_SOURCE = "source:"


def source_key(path: Path) -> str:
    """Return the name of an outside file in a manifest: as it was given, so that no machine path is added."""
    return f"{_SOURCE}{path}"


def is_source(key: str) -> bool:
    """Whether `source_key` made this; else it is the name of a stage."""
    return key.startswith(_SOURCE)


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they read back from a manifest; a numpy or torch scalar must not cost a finished training."""
    text = json.dumps(values, default=lambda value: value.item() if hasattr(value, "item") else str(value))
    result: dict[str, Any] = json.loads(text)
    return result
