"""What simulated annotators go by: what a scorer says of every answer, before taste and slips."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.config.scorer import ScorerSection
from pipelines.errors import UsageError
from pipelines.feedback.types import Task
from pipelines.progress import Reporter
from pipelines.scorers.base import Completion, Scorer
from pipelines.scorers.load import ScorerContext, load_scorer, scorer_name
from pipelines.tasks import Task as SelfMadeTask
from pipelines.tasks import load_task

SCORE = "score"
"""The one attribute of an answer whose scorer has no attributes."""


@dataclass(frozen=True)
class Truth:
    """The true worth of every answer.

    With the gold scorer of a self-made task one unit is a point of gold (0 to 1), and an answer has attributes that
    people may weigh differently. With any other scorer one unit is a standard deviation of its scores over all answers,
    and 0 is their mean.

    Attributes:
        name: of the scorer.
        answers: by id of the task, attribute scores of each of its answers.
        weights: what each attribute is worth; the sum over them is the true worth.
    """

    name: str
    answers: Mapping[str, tuple[Mapping[str, float], ...]]
    weights: Mapping[str, float] = field(default_factory=lambda: {SCORE: 1.0})

    @property
    def has_attributes(self) -> bool:
        """Whether an answer is more than one number."""
        return SCORE not in self.weights

    def worth(self, answer: Mapping[str, float]) -> float:
        """The true worth of an answer."""
        return sum(weight * answer[name] for name, weight in self.weights.items())

    def cuts(self, points: int) -> list[float]:
        """Where a scale of so many points is cut, points - 1 numbers rising; 0/1 is a scale of two.

        Equal parts of 0 to 1 for gold, so that a point means the same in every round; for another scorer as many
        answers in one part as in the next.
        """
        if self.has_attributes:
            return [point / points for point in range(1, points)]
        worths = [self.worth(answer) for answers in self.answers.values() for answer in answers]
        return statistics.quantiles(worths, n=points, method="inclusive") if len(worths) > 1 else [0.0] * (points - 1)


def find_truth(
    section: ScorerSection | None, tasks: Iterable[Task], context: ScorerContext, reporter: Reporter
) -> Truth:
    """Score every answer of every task.

    Args:
        section: who scores; None: the gold scorer of the run's self-made task.
        tasks: what is to be judged.
        context: the surroundings of the scorer, such as a stage's context.
        reporter: progress.

    Raises:
        UsageError: the scorer cannot judge these answers.
        RlhfError: it could not be had, or gave something else than one finite number for each answer.
    """
    tasks = list(tasks)
    if section is None or section.kind == "gold":
        made = context.config.data.task
        if made is None:
            raise UsageError("only a self-made task has a gold scorer", where="feedback.simulated.scorer")
        return gold_truth(load_task(made.name), tasks)
    if section.uses("length"):
        raise UsageError(
            "a scorer of kind length counts tokens, and the answers to be judged are texts",
            where="feedback.simulated.scorer",
            hint="leave it out and set feedback.simulated.length_bias below 0",
        )
    from pipelines.models.machine import choose_threads, resolve_device

    total = sum(len(task.answers) for task in tasks)
    with reporter.task(f"answers scored by {scorer_name(section)}", total) as progress:
        scorer = load_scorer(section, context, resolve_device(context.config.run), progress=progress.advance)
        if parameters := getattr(scorer, "num_parameters", 0):
            choose_threads(context.config.run, parameters, reporter)
        return scored_truth(scorer, tasks)


def gold_truth(made: SelfMadeTask, tasks: Sequence[Task]) -> Truth:
    """The attributes of every answer, as the self-made task itself computes them."""
    return Truth(
        "gold",
        {task.id: tuple(made.gold(task.prompt, answer.text) for answer in task.answers) for task in tasks},
        made.weights,
    )


def scored_truth(scorer: Scorer, tasks: Sequence[Task]) -> Truth:
    """The scores of every answer, brought to mean 0 and deviation 1 over all answers of all tasks."""
    flat = [(task.prompt, Completion(answer.text, (), True)) for task in tasks for answer in task.answers]
    scores = scorer([prompt for prompt, _ in flat], [completion for _, completion in flat]) if flat else [0.0]
    mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)
    found = iter(scores)
    unit = deviation or 1.0  # all answers alike: nothing but taste and slips tells them apart
    return Truth(
        scorer.name,
        {task.id: tuple({SCORE: (next(found) - mean) / unit} for _ in task.answers) for task in tasks},
    )
