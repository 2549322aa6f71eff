"""The `sample` stage: the run's models answer prompts, and the answers become tasks for people to judge."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.config import Config
from pipelines.data.encode import ChatEncoder, fit_prompt
from pipelines.data.prompts import SourcedPrompt, prompts_of_run, shares, take
from pipelines.data.rows import Message
from pipelines.errors import DataError
from pipelines.labels.label_types import Answer, LabelSet, Question, Task
from pipelines.labels.questions import questions_of
from pipelines.labels.tasks_file import TASKS, write_sides, write_tasks
from pipelines.models.base_model import prompt_limit
from pipelines.models.machine import resolve_device
from pipelines.run.reporting import Reporter
from pipelines.run.stage import StageContext
from pipelines.sampling.sampler import (
    PromptCompletions,
    SamplePrompt,
    Sampler,
    SamplingContext,
    Throughput,
    by_model,
    figures,
)
from pipelines.sampling.sampling_models import SamplingModel, models_of_run

MANY_LEFT_OUT = 0.2
"""Share of lost completions above which a warning is logged."""
FEW_FINISHED = 0.5
"""Share of completions that end by themselves below which a warning is logged."""


def run(ctx: StageContext) -> dict[str, Any]:
    """Sample completions of the run's prompts and write them as tasks.jsonl, with sides.json for the split.

    Returns:
        ``prompts``, ``tasks``, ``too_long`` prompts, the counts of `TaskMaker` and the `figures` of the completions.

    Raises:
        UsageError: a named model does not exist, or leaves no room for a prompt.
        DataError: no prompt fits, or no task can be made.
        RlhfError: a model cannot be opened.
    """
    config = ctx.config
    sides = prompts_of_run(ctx.inputs["data/prompts"], f"round-{ctx.round}")
    models = models_of_run(config, ctx.inputs)
    limits = PromptLimits.of(models, config, ctx.reporter)
    most = shares(len(sides[0]), len(sides[1]), config.feedback.sample.num_prompts)
    taken = [take(side, limit, limits.fit, ctx.round) for side, limit in zip(sides, most, strict=True)]
    prompts = sorted((prompt for fitting, _ in taken for prompt in fitting), key=lambda prompt: prompt.key)
    seed = seed_of_round(config, ctx.round)
    sampled = draw(models, prompts, config, limits.max_new_tokens, seed, _context(ctx))
    questions = questions_of(config.feedback.label)
    tasks, metrics = sampled.tasks(questions)
    metrics = {"too_long": sum(count for _, count in taken)} | metrics
    write_tasks(ctx.out / TASKS, LabelSet(questions, {task.id: task for task in tasks}, []))
    write_sides(ctx.out, tasks, [prompt.messages for prompt in taken[1][0]])
    ctx.notes.update(models=by_model(sampled.completions, models), heldout_prompts=len(taken[1][0]))
    log_figures(metrics, limits, ctx.reporter)
    return metrics


def seed_of_round(config: Config, number: int) -> int:
    """Seed of the draws of a round: each round draws anew, also for prompts that come again."""
    return config.run.seed + 1_000_003 * (number - 1)


def _context(ctx: StageContext) -> SamplingContext:
    device = resolve_device(ctx.config.run)
    return SamplingContext(ctx.out, ctx.checkpoints, device, ctx.config.run, ctx.reporter, ctx.stop)


@dataclass(frozen=True)
class PromptLimits:
    """Length limits of prompts and completions for all models.

    Attributes:
        encoders, limits: of each model; the limit is the maximum tokens of a prompt.
        cut: whether a longer prompt is cut, as in PPO; else it is left out.
        drop: whether a prompt that a chat template refuses is left out as well.
    """

    encoders: tuple[ChatEncoder, ...]
    limits: tuple[int, ...]
    max_new_tokens: int
    cut: bool
    drop: bool

    @classmethod
    def of(cls, models: Sequence[SamplingModel], config: Config, reporter: Reporter) -> PromptLimits:
        """Limits by `feedback.sample`, or `ppo` where that sets none, and by the positions of each model.

        Raises:
            UsageError: a completion alone fills a model, or prompts are to be cut where there is a chat template.
        """
        sample, ppo = config.feedback.sample, config.ppo
        new = sample.max_new_tokens or ppo.response_length
        longest = sample.max_prompt_length or ppo.max_prompt_length
        settings = ppo.model_copy(update={"response_length": new, "max_prompt_length": longest})
        encoders = tuple(ChatEncoder(model.tokenizer()) for model in models)
        key = "feedback.sample.max_new_tokens" if sample.max_new_tokens else "ppo.response_length"
        limits = tuple(prompt_limit(settings, model.config(), reporter, name=model.name, key=key) for model in models)
        # a cut question is another question: PPO refuses this as well
        cut = ppo.overlong == "cut" and not any(encoder.has_template for encoder in encoders)
        return cls(encoders, limits, new, cut, config.data.on_bad_row == "drop")

    def fit(self, prompt: SourcedPrompt) -> SamplePrompt | None:
        """The prompt in the tokens of every model; None where it is too long for one of them, or refused and dropped.

        Raises:
            DataError: a model's chat template refuses it, and `data.on_bad_row` is fail.
        """
        try:
            first = fit_prompt(prompt.messages, self.encoders[0], self.limits[0], cut=self.cut)
            if first is None:
                return None
            ids = [first["prompt_ids"], *(encoder.prompt(first["messages"]) for encoder in self.encoders[1:])]
        except DataError as error:
            if self.drop:
                return None
            error.where = error.where or prompt.place
            raise
        if any(not 0 < len(own) <= limit for own, limit in zip(ids, self.limits, strict=True)):
            return None
        return SamplePrompt(first["messages"], tuple(map(tuple, ids)), prompt.key, prompt.source)


class TaskMaker:
    """Makes tasks of answers: of two for a pairwise question, of one for a demonstration to edit, else of all.

    A ranking needs at least two; without any question, answers are meant to be compared where several are `expected`.
    The seed orders the answers, so that their place does not tell which model wrote them.

    Attributes:
        least: minimum number of answers for a task.
        counts: tasks with fewer answers than expected (`short`), prompts with too few for a task (`without_task`), and
            answers left without a second one to compare them with (`unpaired`).
    """

    def __init__(self, questions: Sequence[Question], expected: int, seed: int) -> None:
        kinds = {question.kind for question in questions}
        compared = "ranking" in kinds or (not kinds and expected > 1)
        self._size = 2 if "pairwise" in kinds else 1 if "demonstration" in kinds else None
        self.least = self._size or (2 if compared else 1)
        self._expected, self._seed = expected, seed
        self.counts = {"short": 0, "without_task": 0, "unpaired": 0}

    def tasks(self, prompt: tuple[Message, ...], key: int, source: str | None, answers: list[Answer]) -> Iterator[Task]:
        """The tasks of one prompt; none where it has too few answers."""
        # seeded by the prompt itself, so that the order in one task does not depend on the tasks before it
        shuffled = sorted(answers, key=lambda answer: answer.text)
        random.Random(f"{self._seed} {key}").shuffle(shuffled)
        if len(shuffled) < self.least:
            self.counts["without_task"] += 1
            return
        size = self._size or len(shuffled)
        for start in range(0, len(shuffled), size):
            part = shuffled[start : start + size]
            if len(part) < self.least:
                self.counts["unpaired"] += len(part)
                continue
            self.counts["short"] += self._size is None and len(part) < self._expected
            yield Task(prompt, tuple(part), source=source)


@dataclass(frozen=True)
class SamplingResult:
    """The completions of each model and prompt; the seed orders the answers in a task."""

    prompts: Sequence[SamplePrompt]
    models: Sequence[SamplingModel]
    completions: Sequence[PromptCompletions]
    throughput: Throughput
    seed: int

    def answers(self) -> list[list[Answer]]:
        """The answers to each prompt."""
        names = [model.identity for model in self.models]
        answers: list[list[Answer]] = [[] for _ in self.prompts]
        for entry in self.completions:
            answers[entry.prompt] += [Answer(drawn.text, names[entry.model]) for drawn in entry.answers]
        return answers

    def tasks(self, questions: Sequence[Question]) -> tuple[list[Task], dict[str, Any]]:
        """Tasks for these questions, and the figures of the sampling.

        Raises:
            DataError: no prompt has enough answers for a task.
        """
        expected = sum(model.num_completions for model in self.models)
        maker = TaskMaker(questions, expected, self.seed)
        tasks = [
            task
            for prompt, answers in zip(self.prompts, self.answers(), strict=True)
            for task in maker.tasks(prompt.messages, prompt.key, prompt.source, answers)
        ]
        if not tasks:
            raise DataError(
                f"none of the {len(self.prompts)} prompts has {maker.least} distinct answers",
                hint="raise the temperature or the number of completions, or set near_duplicate to 1; a model that "
                "answers every prompt alike cannot be judged",
            )
        return tasks, self.metrics() | {"tasks": len(tasks)} | maker.counts

    def metrics(self) -> dict[str, Any]:
        """Figures of the completions alone."""
        return {"prompts": len(self.prompts)} | figures(self.completions, self.models, self.throughput)


def draw(
    models: Sequence[SamplingModel],
    prompts: Sequence[SamplePrompt],
    config: Config,
    max_new_tokens: int,
    seed: int,
    context: SamplingContext,
) -> SamplingResult:
    """Sample every prompt from every model.

    Raises:
        DataError: there is no prompt.
        RlhfError: see `Sampler.run`.
    """
    if not prompts:
        raise DataError(
            "no prompt is left to answer: all are too long",
            hint="raise feedback.sample.max_prompt_length (`--max-prompt-length`), or lower the new tokens",
        )
    completions, throughput = Sampler(models, prompts, config.feedback.sample, max_new_tokens, seed).run(context)
    return SamplingResult(prompts, models, completions, throughput, seed)


def log_figures(metrics: dict[str, Any], limits: PromptLimits, reporter: Reporter) -> None:
    """Log the figures, and warn where many completions were lost or cut."""
    requested = metrics["completions"] + metrics["left_out"]
    message = (
        f"sample: {metrics['completions']} completions of {metrics['prompts']} prompts, "
        f"{metrics['redrawn']} drawn again, {metrics['left_out']} left out as repetitions or blank"
    )
    say = reporter.warn if metrics["left_out"] > MANY_LEFT_OUT * requested else reporter.info
    say(message + ("" if say == reporter.info else ": raise the temperature for more variety"))
    if metrics["finished_share"] < FEW_FINISHED:
        reporter.warn(
            f"sample: {1 - metrics['finished_share']:.0%} of the completions are cut at {limits.max_new_tokens} "
            "tokens, and people will judge them so: raise max_new_tokens, or train the model to end its answers"
        )
    if metrics["too_long"]:
        limit = min(limits.limits)
        reporter.warn(f"sample: {metrics['too_long']} prompts are longer than {limit} tokens and were left out")
