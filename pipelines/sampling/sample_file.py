"""Sampling without a run: prompts of any files, any models, one file out. Interrupted, the same command goes on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.config import Config
from pipelines.config.data_section import Source
from pipelines.data.canonical import to_line
from pipelines.data.prompts import SourceCount, SourcedPrompt, digest_of_prompts, prompts_of_sources, take
from pipelines.data.rows import Message, answered
from pipelines.errors import ConflictError
from pipelines.labels.label_types import LabelSet
from pipelines.labels.tasks_file import write_tasks
from pipelines.models.machine import resolve_device
from pipelines.run.checkpoints import Checkpoints, newest_at_a_glance
from pipelines.run.directory import CHECKPOINTS, RunDir, StageStart
from pipelines.run.disk import disk_errors, write_atomic
from pipelines.run.manifest import fingerprint_of
from pipelines.run.reporting import Reporter
from pipelines.run.signals import StopRequest
from pipelines.run.stage import as_json
from pipelines.sampling.sampler import SamplingContext, by_model
from pipelines.sampling.sampling_models import SamplingModel, from_outside, model_stamp
from pipelines.sampling.stage import PromptLimits, SamplingResult, draw, log_figures

Form = Literal["tasks", "demonstrations"]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        form: tasks to be judged, or demonstrations to be edited.
        config: `feedback.sample`, which names the models; of the rest `run`, the lengths and stop tokens of `ppo` and
            the precision of `model` count.
        force: begin anew, over a file that is there or an interrupted start with other settings.
    """

    sources: Sequence[Source]
    out: Path
    form: Form
    config: Config
    max_per_source: int | None = None
    force: bool = False

    @property
    def work(self) -> Path:
        """Where it is worked until the file is whole."""
        return self.out.with_name(f"{self.out.name}.partial")


@dataclass(frozen=True)
class Prepared:
    """What is known before any model is opened.

    Attributes:
        counts: what became of the rows of each source.
        start: the settings, as the working directory records them.
        resumes: the chunk after which it goes on; None: it begins.
        conflict: why it may not begin without force; None: it may.
    """

    asked: list[SourcedPrompt]
    counts: list[SourceCount]
    models: list[SamplingModel]
    start: StageStart
    resumes: int | None
    conflict: ConflictError | None


def prepare(request: Request, reporter: Reporter) -> Prepared:
    """Read the prompts and look at what is there; nothing is written, and no model is opened.

    Raises:
        DataError: see `prompts_of_sources`.
        UsageError: see `from_outside`.
    """
    config = request.config
    models = [from_outside(entry, config, config.ppo.stop_tokens) for entry in config.feedback.sample.models]
    on_bad_row = request.config.data.on_bad_row
    asked, counts = prompts_of_sources(request.sources, reporter, most=request.max_per_source, on_bad_row=on_bad_row)
    sample = config.feedback.sample.results_view()
    settings = {
        "as": request.form,
        "seed": config.run.seed,
        "sample": {key: value for key, value in sample.items() if key not in ("models", "num_completions")},
        "ppo": {key: getattr(config.ppo, key) for key in ("max_prompt_length", "response_length", "overlong")},
        "prompts": digest_of_prompts(asked),
        "models": {str(index): model_stamp(model) for index, model in enumerate(models, 1)},
    }
    section = as_json(settings)
    start = StageStart(fingerprint_of(section, {}), section, {})
    resumes, conflict = None, None
    before = StageStart.read(request.work)
    if request.out.exists() and not request.force:
        conflict = ConflictError(
            "the file is there already",
            where=str(request.out),
            hint="name another with --out, or replace it with --force",
        )
    elif before is not None:
        differences = before.differences(section)
        checkpoint = newest_at_a_glance(request.work / CHECKPOINTS)
        resumes = checkpoint.step if checkpoint is not None and not differences else None
        if checkpoint is not None and differences and not request.force:
            shown = "\n".join(f"  {line}" for line in differences)
            conflict = ConflictError(
                f"sampling was interrupted after chunk {checkpoint.step}, with other settings:\n{shown}",
                where=str(request.work),
                hint="undo the change, use another --out, or begin anew with --force",
            )
    return Prepared(asked, counts, models, start, resumes, conflict)


def sample_file(request: Request, prepared: Prepared, reporter: Reporter) -> dict[str, Any]:
    """Sample and write the file, from where an earlier call with the same settings was interrupted.

    Returns:
        The figures, those of each model and source, and the path of the file.

    Raises:
        ConflictError: the file is there, or the settings are not those of the interrupted call; see `Request.force`.
        LockedError: another process works on the same file.
        DiskError: it cannot be written.
        DataError, UsageError, ArtifactError, HubError: of prompts and models.
    """
    if prepared.conflict is not None:
        raise prepared.conflict
    limits = PromptLimits.of(prepared.models, request.config, reporter)
    prompts, too_long = take(prepared.asked, request.config.feedback.sample.num_prompts, limits.fit)
    place = RunDir(request.work)
    place.create()
    with place.lock():
        around = _begin(request, prepared, reporter)
        sampled = draw(prepared.models, prompts, request.config, limits.max_new_tokens, request.config.run.seed, around)
        metrics = {"too_long": too_long} | _write(request, sampled)
        shutil.rmtree(request.work, ignore_errors=True)
    log_figures(metrics, limits, reporter)
    models, sources = by_model(sampled.completions, sampled.models), [asdict(count) for count in prepared.counts]
    return {"out": str(request.out), **metrics, "models": models, "sources": sources}


def _begin(request: Request, prepared: Prepared, reporter: Reporter) -> SamplingContext:
    """The working directory: emptied, or as the interrupted call left it."""
    work = request.work
    with disk_errors(work):
        if prepared.resumes is None:
            shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
        prepared.start.write(work)
    checkpoints = Checkpoints(work / CHECKPOINTS, keep=2, logs=work, warn=reporter.warn)
    device = resolve_device(request.config.run)
    return SamplingContext(work, checkpoints, device, request.config.run, reporter, StopRequest(reporter.warn))


def _write(request: Request, sampled: SamplingResult) -> dict[str, Any]:
    """Write the file, whole or not at all, and return its figures; DataError: no prompt has answers enough."""
    if request.form == "tasks":
        tasks, metrics = sampled.tasks(())
        write_tasks(request.out, LabelSet((), {task.id: task for task in tasks}, []))
        return metrics
    rows = [
        answered(prompt.messages, Message(role="assistant", content=answer.text))
        for prompt, answers in zip(sampled.prompts, sampled.answers(), strict=True)
        for answer in answers
    ]
    write_atomic(request.out, "".join(to_line(row) + "\n" for row in rows))
    return sampled.metrics() | {"rows": len(rows)}
