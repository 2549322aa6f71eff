"""Simulated annotators: they nearly agree with the truth, each in a way of their own, through the store of people."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.config.feedback_section import SimulatedSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.rows import Message
from pipelines.errors import UsageError
from pipelines.labels.label_types import Answer, Kind, LabelSet, Question, Task
from pipelines.labels.simulated.simulated_annotators import (
    Pool,
    Truth,
    answer_all,
    find_truth,
    gold_truth,
    ranks,
    scored_truth,
)
from pipelines.labels.store.records import Settings
from pipelines.labels.store.store import LabelStore
from pipelines.run.reporting import SilentReporter
from pipelines.scorers.protocol import Completion, Dialogue
from pipelines.scorers.score_file import RunContext
from pipelines.tasks import load_task

OVERALL = Question("overall", "ranking", "?")
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def task(number: int, *texts: str) -> Task:
    return Task((Message(role="user", content=f"Question {number}?"),), tuple(Answer(text) for text in texts))


def tasks_of_four(count: int = 60) -> list[Task]:
    """Answers of 3 to 10 words whose worth (see `Counting`) has nothing to do with their length."""
    rng = random.Random(0)
    texts = iter([" ".join(rng.choices(WORDS, k=rng.randint(3, 10))) + f" {rng.random()}" for _ in range(4 * count)])
    return [task(number, *itertools.islice(texts, 4)) for number in range(count)]


class Counting:
    """A scorer without parts: the number at the end of an answer, on a scale of its own."""

    name = "counting"

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        return [1000.0 + 50.0 * float(completion.text.split()[-1]) for completion in completions]


def exact(**changes: object) -> SimulatedSection:
    return SimulatedSection.model_validate({"annotators": 3, "noise": 0.0, "bias": 0.0} | changes)


def labels_of(
    tmp_path: Path,
    section: SimulatedSection,
    tasks: Sequence[Task],
    question: Question = OVERALL,
    *,
    overlap: int = 1,
    seed: int = 0,
) -> LabelSet:
    store = LabelStore.create(tmp_path / f"{random.random()}.sqlite", Settings("t", (question,), overlap=overlap))
    store.add_tasks(tasks)
    answer_all(store, Pool(section, scored_truth(Counting(), tasks), seed), SilentReporter())
    return store.snapshot()


def right_share(found: LabelSet, truth: Truth) -> float:
    """Share of the pairs of answers that labels order as the truth does."""
    right = []
    for label in found.labels:
        worths = [truth.worth(answer) for answer in truth.answers[label.task]]
        value = label.values["overall"]
        for one, two in itertools.combinations(range(len(worths)), 2):
            right.append((value[one] < value[two]) == (worths[one] > worths[two]))
    return statistics.fmean(right)


def test_without_noise_and_bias_everybody_says_the_truth(tmp_path: Path) -> None:
    tasks = tasks_of_four()
    found = labels_of(tmp_path, exact(), tasks, overlap=3)
    assert len(found.labels) == 3 * len(tasks)
    assert right_share(found, scored_truth(Counting(), tasks)) == 1.0
    assert {label.annotator for label in found.labels} == {"sim-01", "sim-02", "sim-03"}
    assert all(label.simulated and sorted(label.order) == [0, 1, 2, 3] for label in found.labels)


def test_noise_and_bias_are_in_standard_deviations_of_a_scorer_without_parts(tmp_path: Path) -> None:
    """Two worths of deviation 1 each and a slip of deviation s each: P(right) = 1/2 + arctan(1/s) / pi."""
    tasks = tasks_of_four(300)
    truth = scored_truth(Counting(), tasks)
    assert statistics.pstdev(truth.worth(a) for found in truth.answers.values() for a in found) == pytest.approx(1.0)
    for section in (exact(noise=1.0), exact(bias=1.0)):
        share = right_share(labels_of(tmp_path, section, tasks), truth)
        assert share == pytest.approx(0.75, abs=0.04)  # of normal worths; these are uniform, which is near


def test_bias_is_kept_and_noise_is_not() -> None:
    """Asked twice (two criteria), a person repeats a taste, and slips anew."""
    tasks = tasks_of_four()
    questions = (OVERALL, Question("again", "ranking", "?"))
    truth = scored_truth(Counting(), tasks)

    def same(section: SimulatedSection) -> tuple[float, float]:
        """Share of tasks on which one person says the same twice, and on which two people say the same."""
        pool = Pool(section, truth, 0)
        said = [[pool.judge(name, one, (0, 1, 2, 3), questions) for one in tasks] for name in pool.names[:2]]
        twice = statistics.fmean(one["overall"] == one["again"] for one in said[0])
        return twice, statistics.fmean(a["overall"] == b["overall"] for a, b in zip(*said, strict=True))

    assert same(exact(bias=1.0))[0] == 1.0
    assert same(exact(bias=1.0))[1] < 0.4
    assert same(exact(noise=1.0))[0] < 0.4


def test_attributes_weigh_differently_to_each_person() -> None:
    made = load_task("support")
    prompts = list(made.prompts(40, 0))
    tasks = [
        Task(prompt.prompt, (Answer("Thanks for writing. Your radio is late. Have a nice day!"), Answer("Radio, ok.")))
        for prompt in prompts
    ]
    truth = gold_truth(made, tasks)
    assert truth.worth(truth.answers[tasks[0].id][0]) == pytest.approx(
        made.gold(tasks[0].prompt, tasks[0].answers[0].text)["gold"]
    )
    people = Pool(exact(annotators=2, bias=0.5), truth, 0)._people
    first, second = people["sim-01"].weights, people["sim-02"].weights
    assert first.keys() == made.weights.keys()
    assert first != second
    assert sum(first.values()) == pytest.approx(1.0)


def test_length_preference_is_for_ten_words(tmp_path: Path) -> None:
    short, long = task(0, "a b 0.9", "a b c d e f g h i j k l 0.1"), task(1, "a b 0.9", "c d 0.1")
    truth = scored_truth(Counting(), [short, long])  # the better one is 2 standard deviations better
    for bias, wins in ((1.9, (1, 2)), (2.1, (2, 1))):
        pool = Pool(exact(length_bias=bias), truth, 0)
        assert pool.judge("sim-01", short, (0, 1), (OVERALL,))["overall"] == wins


def test_position_preference_goes_by_the_place_on_the_page() -> None:
    one = task(0, "good 0.9", "bad 0.1")
    truth = scored_truth(Counting(), [one])
    pool = Pool(exact(position_bias=2.1), truth, 0)
    assert pool.judge("sim-01", one, (0, 1), (OVERALL,))["overall"] == (1, 2)
    assert pool.judge("sim-01", one, (1, 0), (OVERALL,))["overall"] == (2, 1)


@pytest.mark.parametrize(
    ("worths", "tie_below", "expected"),
    [
        ([0.1, 0.9, 0.85, 0.5], 0.1, (3, 1, 1, 2)),
        ([0.1, 0.9, 0.85, 0.5], 0.0, (4, 1, 2, 3)),
        ([1.0, 0.95, 0.9], 0.06, (1, 1, 2)),  # measured from the best of the rank: ties do not chain
        ([0.5, 0.5], 0.0, (1, 1)),
        ([], 0.0, ()),
    ],
)
def test_ranks(worths: list[float], tie_below: float, expected: tuple[int, ...]) -> None:
    assert ranks(worths, tie_below) == expected


@pytest.mark.parametrize(("kind", "counts"), [("binary", {0: 20, 1: 20}), ("scale", dict.fromkeys(range(1, 6), 8))])
def test_judgements_of_a_plain_scorer_use_all_points_alike(tmp_path: Path, kind: Kind, counts: dict[int, int]) -> None:
    tasks = [task(number, f"answer {number / 40}") for number in range(40)]
    found = labels_of(tmp_path, exact(), tasks, Question("overall", kind, "?"))
    values = [label.values["overall"][0] for label in found.labels]
    assert {value: values.count(value) for value in sorted(set(values))} == counts
    by_task = {label.task: label.values["overall"][0] for label in found.labels}
    assert [by_task[one.id] for one in tasks] == sorted(values)


def test_gold_is_cut_into_equal_parts_whatever_the_answers() -> None:
    truth = Truth("gold", {}, {"relevance": 1.0})
    assert truth.cuts(2) == [0.5]
    assert truth.cuts(5) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    good = task(0, "x")
    pool = Pool(exact(), Truth("gold", {good.id: ({"relevance": 0.9},)}, {"relevance": 1.0}), 0)
    asked = (Question("ok", "binary", "?"), Question("points", "scale", "?"))
    assert pool.judge("sim-01", good, (0,), asked) == {"ok": (1,), "points": (5,)}


def test_the_seed_decides_and_the_other_tasks_do_not(tmp_path: Path) -> None:
    tasks, section = tasks_of_four(20), exact(noise=0.5, bias=0.5, annotators=3)

    def said(seed: int, among: Sequence[Task]) -> dict[tuple[str, str], object]:
        found = labels_of(tmp_path, section, among, overlap=3, seed=seed)
        return {(label.task, label.annotator): (label.values, label.seconds) for label in found.labels}

    assert said(0, tasks) == said(0, tasks[::-1]) != said(1, tasks)
    pool = Pool(section, scored_truth(Counting(), tasks), 0)
    alone = pool.judge("sim-02", tasks[7], (0, 1, 2, 3), (OVERALL,))
    assert alone == said(0, tasks)[tasks[7].id, "sim-02"][0]  # type: ignore[index]


def test_nobody_reads_faster_than_people_do() -> None:
    one = task(0, "word " * 100 + "0.1", "word " * 100 + "0.2")
    pool = Pool(exact(annotators=20), scored_truth(Counting(), [one]), 0)
    seconds = [pool.seconds(name, one) for name in pool.names]
    assert all(15 < value < 200 for value in seconds)
    assert len(set(seconds)) > 10


def test_what_they_cannot_do_is_said(tmp_path: Path) -> None:
    tasks = [task(0)]
    with pytest.raises(UsageError, match="not write demonstrations"):
        labels_of(tmp_path, exact(), tasks, Question("overall", "demonstration", "?"))


@pytest.mark.parametrize(
    ("feedback", "fault"),
    [
        ({"label": {"questions": [{"name": "a", "kind": "demonstration"}]}}, "not write demonstrations"),
        (
            {"label": {"overlap": 4}, "simulated": {"annotators": 3}},
            r"label\.overlap is 4, but simulated\.annotators is 3",
        ),
    ],
)
def test_what_they_cannot_do_is_said_before_anything_runs(feedback: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Config.model_validate({"data": {"task": {}}, "feedback": {"source": "simulated"} | feedback})


def test_the_truth_is_any_scorer_of_the_configuration(tmp_path: Path) -> None:
    tasks = [task(0, "the same the same the same the same", "all words differ here")]
    context = RunContext(Config(), {})
    truth = find_truth(ScorerSection(kind="repetition", ngram=2), tasks, context, SilentReporter())
    assert [truth.worth(answer) for answer in truth.answers[tasks[0].id]] == [-1.0, 1.0]
    with pytest.raises(UsageError, match="only a self-made task"):
        find_truth(None, tasks, context, SilentReporter())
    with pytest.raises(UsageError, match="counts tokens"):
        find_truth(ScorerSection(kind="length", target=5), tasks, context, SilentReporter())


def test_answers_that_are_all_alike_are_told_apart_by_taste_alone() -> None:
    one = task(0, "x 0.5", "y 0.5")
    truth = scored_truth(Counting(), [one])
    assert [truth.worth(answer) for answer in truth.answers[one.id]] == [0.0, 0.0]
