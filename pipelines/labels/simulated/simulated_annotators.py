"""Simulated annotators: people who nearly agree with a scorer, and answer through the label store as people do.

What an answer is worth to one of them:

    its true worth, seen through the person's taste (`bias`)
    + (`length_bias` + the person's own liking for length) * words / 10
    + `position_bias`, where it stands first on the page
    + a slip of the moment, normal with deviation `noise`

All in the unit of `Truth`. Taste is a matter of attributes where the truth has some: to each
person they weigh a little more or less, by log-normal factors. Else it is an opinion of the very text, normal with
deviation `bias`, which the person keeps. The same seed gives the same people, who say the same of the same task
whatever else they are asked, and in which order.
"""

from __future__ import annotations

import random
import statistics
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from pipelines.config.feedback_section import SimulatedSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.errors import UsageError
from pipelines.labels.label_types import Question, Task, Value
from pipelines.labels.store.records import Assignment, Submission
from pipelines.labels.store.store import LabelStore
from pipelines.run.reporting import Reporter
from pipelines.scorers.load_scorer import ScorerContext, load_scorer, scorer_name
from pipelines.scorers.protocol import Completion, Scorer
from pipelines.tasks import AnnotatorPool, SelfMadeTask, load_task
from pipelines.tasks.task import Annotator, hire

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
        """Return the rising points - 1 thresholds of a scale; 0/1 is a scale of two points.

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
    """Score every answer of every task; without a section, by the gold scorer of the run's self-made task.

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
    flat = [(task.prompt, Completion.of(answer.text, (), finished=True)) for task in tasks for answer in task.answers]
    scores = scorer([prompt for prompt, _ in flat], [completion for _, completion in flat]) if flat else [0.0]
    mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)
    remaining = iter(scores)
    unit = deviation or 1.0  # all answers alike: nothing but taste and slips tells them apart
    return Truth(
        scorer.name,
        {task.id: tuple({SCORE: (next(remaining) - mean) / unit} for _ in task.answers) for task in tasks},
    )


WORDS_A_SECOND = 4.0
"""Silent reading, about 240 words a minute (Brysbaert 2019, "How many words do we read per minute?")."""
SECONDS_AN_ANSWER = 2.0
"""To decide and to click, for each answer of a task."""
IN_ONE_GO = 500
"""Labels in one transaction of the store."""


class Pool:
    """Some people, whose `names` are ``sim-01`` and so on, and what they think of the answers."""

    def __init__(self, section: SimulatedSection, truth: Truth, seed: int) -> None:
        self._section, self._truth, self._seed = section, truth, seed
        pool = AnnotatorPool(section.annotators, section.noise, section.bias, section.length_bias)
        self._people = {person.name: person for person in hire(pool, truth.weights, seed)}
        self.names = tuple(self._people)
        self._cuts = cache(truth.cuts)

    def judge(self, name: str, task: Task, order: Sequence[int], questions: Sequence[Question]) -> dict[str, Value]:
        """Judge one task, whose answer ``order[place]`` is shown at that place, as the person of that name.

        Returns:
            The values by name of the question, in the task's own order; every question gets a slip of its own.

        Raises:
            UsageError: a question asks for a demonstration.
        """
        tastes = self._tastes(self._people[name], task)
        if order:
            tastes[order[0]] += self._section.position_bias
        return {question.name: self._value(name, task, question, tastes) for question in questions}

    def seconds(self, name: str, task: Task) -> float:
        """Seconds the person takes to read prompt and answers, and to decide."""
        pace = random.Random(f"{self._seed}/{name}/pace").lognormvariate(0.0, 0.25)
        here = random.Random(f"{self._seed}/{name}/{task.id}/pace").lognormvariate(0.0, 0.25)
        texts = [*(turn.content for turn in task.prompt), *(answer.text for answer in task.answers)]
        words = sum(len(text.split()) for text in texts)
        return round((words / WORDS_A_SECOND + SECONDS_AN_ANSWER * max(1, len(task.answers))) * pace * here, 1)

    def _tastes(self, person: Annotator, task: Task) -> list[float]:
        """Value of each answer to the person, regardless of its place."""
        worths = []
        for answer, scores in zip(task.answers, self._truth.answers[task.id], strict=True):
            worth = person.utility(scores, answer.text)
            if not self._truth.has_attributes:
                opinion = random.Random(f"{self._seed}/{person.name}/{task.id}/{answer.text}")
                worth += opinion.gauss(0.0, self._section.bias)
            worths.append(worth)
        return worths

    def _value(self, name: str, task: Task, question: Question, tastes: Sequence[float]) -> Value:
        if question.kind == "demonstration":
            raise UsageError("simulated annotators can judge answers, not write demonstrations")
        slips = random.Random(f"{self._seed}/{name}/{task.id}/{question.name}")
        seen = [taste + slips.gauss(0.0, self._section.noise) for taste in tastes]
        if question.kind in ("ranking", "pairwise"):
            return ranks(seen, self._section.tie_below)
        if question.kind == "binary":
            return tuple(bisect_left(self._cuts(2), worth) for worth in seen)
        return tuple(1 + bisect_left(self._cuts(question.points), worth) for worth in seen)


def ranks(worths: Sequence[float], tie_below: float) -> tuple[int, ...]:
    """1 for the best; what is at most `tie_below` worse than the best of its rank shares that rank.

    >>> ranks([0.1, 0.9, 0.85, 0.5], 0.1)
    (3, 1, 1, 2)
    """
    ranks, rank, best = [0] * len(worths), 0, float("inf")
    for index in sorted(range(len(worths)), key=lambda index: -worths[index]):
        if not rank or best - worths[index] > tie_below:
            rank, best = rank + 1, worths[index]
        ranks[index] = rank
    return tuple(ranks)


def answer_all(store: LabelStore, pool: Pool, reporter: Reporter) -> int:
    """Let everybody in the pool answer what the store has for them, one task each in turn; the number of labels.

    Raises:
        UsageError: a question asks for a demonstration.
    """
    questions = store.settings.questions
    for name in pool.names:
        store.add_annotator(name, simulated=True)
    waiting, given = deque(pool.names), 0
    begun = store.progress()
    with reporter.task("simulated labels", begun.given + begun.left, begun.given) as progress:
        while waiting:
            with store.batch():
                before = given
                while waiting and given - before < IN_ONE_GO:
                    name = waiting.popleft()
                    assignment = store.next_task(name)
                    if assignment is None:  # nobody here leaves a task open, so there will be nothing later either
                        continue
                    store.submit(name, assignment.task.id, _submission(pool, name, assignment, questions))
                    waiting.append(name)
                    given += 1
            if given > before:
                progress.advance(given - before)
    return given


def _submission(pool: Pool, name: str, assignment: Assignment, questions: Sequence[Question]) -> Submission:
    task = assignment.task
    values: Mapping[str, Value] = pool.judge(name, task, assignment.order, questions)
    return Submission(values, pool.seconds(name, task), key=f"{name}/{task.id}", version=assignment.version)
