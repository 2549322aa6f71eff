"""What must not be said of honest people: where the file, the keys or the lack of others explain what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipelines.data.rows import Message
from pipelines.labels.agreement.agreement_text import markdown, plain
from pipelines.labels.agreement.measures import agreement, agreement_lines
from pipelines.labels.label_types import LabelSet
from pipelines.labels.pairs.aggregate import reliability
from pipelines.labels.votes import votes_of
from tests.labels.pools import by_hand, pool


def timed(speeds: dict[str, float], tasks: int = 30, shared: str = "", known: int | None = None) -> LabelSet:
    """Tasks with the same system prompt, each answered as fast as it takes to read what is new in it.

    Args:
        speeds: characters a second, by annotator.
        tasks: how many there are.
        shared: the system prompt.
        known: so many labels of each have a time; None: all.
    """
    texts = [[f"{number} " + "word " * 40, f"{number} " + "other " * 40] for number in range(tasks)]
    row = {name: [1, 2] for name in speeds}
    labels = by_hand([row if number % 2 else {name: [2, 1] for name in row} for number in range(tasks)], answers=texts)
    if shared:
        system = Message(role="system", content=shared)
        labels.tasks = {key: replace(task, prompt=(system, *task.prompt)) for key, task in labels.tasks.items()}
    for index, label in enumerate(labels.labels):
        new = sum(map(len, texts[index // len(speeds)]))
        if known is None or index // len(speeds) < known:
            labels.labels[index] = replace(label, seconds=new / speeds[label.annotator])
    return labels


def test_a_system_prompt_that_all_tasks_share_is_read_once() -> None:
    report = agreement(timed({"a": 25}, shared="You are helpful. " * 200))
    assert report.suspicious == ()
    assert report.annotators[0].characters_per_second == pytest.approx(25, abs=1)


def test_the_turn_is_new_at_the_first_task_by_time() -> None:
    labels = timed({"a": 25}, tasks=3, shared="s" * 10_000)
    for index, time in enumerate(["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"]):
        labels.labels[index] = replace(labels.labels[index], time=time, seconds=1.0)
    labels.labels.pop(2)
    # one of the two tasks has the 10,000 characters, and both their own: "question 0" and 202 + 242
    assert agreement(labels).annotators[0].characters_per_second == pytest.approx(10_000 / 2 + 10 + 202 + 242)
    labels.labels[1] = replace(labels.labels[1], seconds=None)
    # the system prompt was read with the other task, whose time is not known
    assert agreement(labels).annotators[0].characters_per_second == pytest.approx(10 + 202 + 242)


@pytest.mark.parametrize(
    ("speeds", "named"),
    [
        ({"a": 200.0}, ["a"]),
        ({"a": 200.0, "b": 25.0}, ["a"]),
        ({"a": 200.0, "b": 90.0, "c": 100.0}, []),
        ({"a": 60.0, "b": 30.0, "c": 30.0}, []),
        ({"a": 1200.0, "b": 240.0, "c": 1100.0}, ["a", "c"]),
    ],
)
def test_faster_than_reading_is_said_beside_the_others(speeds: dict[str, float], named: Sequence[str]) -> None:
    found = agreement(timed(speeds), bootstrap=0)
    assert [one.name for one in found.annotators if one.patterns] == named
    assert all("faster than reading" in pattern for pattern in found.suspicious)


def test_nine_known_times_are_too_few() -> None:
    assert agreement(timed({"a": 500}, known=9)).suspicious == ()
    assert len(agreement(timed({"a": 500}, known=10)).suspicious) == 1


WRONG_KEY = [{"a": [1, 2], "b": [1, 2]}] * 12


def test_a_key_that_people_contradict_counts_for_nobody_and_is_listed() -> None:
    labels = by_hand([*WRONG_KEY, *WRONG_KEY], "pairwise", control={number: [2, 1] for number in range(12)})
    report = agreement(labels)
    assert report.suspicious == ()
    assert [one.controls.n for one in report.annotators] == [0, 0]
    assert len(report.contradicted) == 12
    one = report.contradicted[0]
    assert (one.prompt, one.key, one.values) == ("question 0", (2, 1), {"a": (1, 2), "b": (1, 2)})
    for text in (plain([report]), markdown([report])):
        assert "Controls whose key most people contradict" in text
        assert "and 2 more" in text
        assert "question 9" in text
        assert "question 10" not in text


def test_a_contradicted_key_lowers_nobodys_weight() -> None:
    labels = by_hand(
        [*WRONG_KEY, *[{"a": [1, 2], "b": [1, 2], "c": [1, 2]}] * 12], control=dict.fromkeys(range(12), (2, 1))
    )
    assert reliability(labels, votes_of(labels, labels.question())) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_one_wrong_key_hides_nobody() -> None:
    rows = [{"a": [1, 2], "b": [1, 2], "c": [1, 2] if number % 3 else [2, 1]} for number in range(40)]
    keys = {number: [1, 2] if number else [2, 1] for number in range(40)}
    report = agreement(by_hand(rows, "pairwise", control=keys))
    assert [one.prompt for one in report.contradicted] == ["question 0"]
    assert [pattern.split(":")[0] for pattern in report.suspicious] == ["c"]
    assert [one.controls.n for one in report.annotators] == [39, 39, 39]


def test_what_half_of_them_contradict_is_no_wrong_key() -> None:
    rows = [{"a": [1, 2], "b": [2, 1]}, {"a": [1, 1], "b": [1, 1]}, {"a": [2, 1]}]
    report = agreement(by_hand(rows, "pairwise", control={number: [1, 2] for number in range(3)}))
    assert report.contradicted == ()
    assert [one.controls.n for one in report.annotators] == [3, 2]
    assert "contradict" not in plain([report])


def test_no_more_is_expected_than_the_few_others_show() -> None:
    # a gets 3 of 12 controls right, and b 5 of 12 others, where nobody else can doubt the keys
    rows = [{"a": [1, 2] if number < 3 else [2, 1]} for number in range(12)]
    beside = [{"b": [1, 2] if number < 5 else [2, 1]} for number in range(12)]
    keys = {number: [1, 2] for number in range(24)}
    assert agreement(by_hand(rows, "pairwise", control=dict.fromkeys(range(12), (1, 2)))).suspicious == (
        "a: control tasks missed: 25% right of 12 (80 % and more are usual)",
    )
    assert agreement(by_hand([*rows, *beside], "pairwise", control=keys)).suspicious == ()


def test_one_who_ties_everything_is_compared_with_others_or_not_named() -> None:
    alone = [{"a": [1, 1]}] * 30
    beside = [{"a": [1, 1], "b": [1, 2] if number % 2 else [2, 1]} for number in range(10)]
    assert agreement(by_hand(alone, "pairwise")).suspicious == ()
    assert agreement(by_hand([*beside[:9], *alone], "pairwise")).suspicious == ()
    found = agreement(by_hand([*beside, *alone], "pairwise")).suspicious
    assert found == ("a: all ties: everything tied in 100% of 10 tasks (the others: 0%)",)


@pytest.mark.parametrize(("tasks", "named"), [(9, 0), (10, 1)])
def test_the_same_answer_throughout_needs_ten_tasks_of_others(tasks: int, named: int) -> None:
    rows = [{"a": [1], "b": [0]} if number < tasks else {"a": [1]} for number in range(30)]
    found = agreement(by_hand(rows, "binary")).suspicious
    assert len([one for one in found if one.startswith("a: the same answer throughout")]) == named


@pytest.mark.parametrize(("tasks", "named"), [(9, 0), (10, 1)])
def test_nothing_is_said_below_ten_controls(tasks: int, named: int) -> None:
    rows = [{"a": [2, 1]}] * tasks
    assert len(agreement(by_hand(rows, control={number: [1, 2] for number in range(tasks)})).suspicious) == named


@pytest.mark.parametrize(("tasks", "named"), [(9, 0), (10, 1)])
def test_nothing_is_said_below_ten_tasks_of_many_answers(tasks: int, named: int) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for _number in range(tasks):
        truth = rng.integers(1, 6, size=12)
        rows.append({"a": list(truth), "b": list(truth), "c": list(truth), "d": list(6 - truth)})
    rows = [{name: list(map(int, value)) for name, value in row.items()} for row in rows]
    found = agreement(by_hand(rows, "scale"), bootstrap=0).suspicious
    assert len([one for one in found if one.startswith("d: near chance")]) == named


def unknown(labels: LabelSet, *people: str) -> LabelSet:
    labels.labels = [
        replace(label, annotator=f"unknown-{people.index(label.annotator) + 1}") if label.annotator in people else label
        for label in labels.labels
    ]
    return labels


def test_unknown_annotators_have_no_figures_of_a_person() -> None:
    known = agreement(pool(1, tasks=30, habits={2: "ties"}), bootstrap=20)
    assert any("p2" in pattern for pattern in known.suspicious)
    report = agreement(unknown(pool(1, tasks=30, habits={2: "ties"}), "p2", "p3"), bootstrap=20)
    assert (report.alpha, report.pairwise, report.labels) == (known.alpha, known.pairwise, known.labels)
    assert [one.name for one in report.annotators] == ["p0", "p1"]
    assert report.annotators == known.annotators[:2]
    assert [(pair.first, pair.second) for pair in report.pairs] == [("p0", "p1")]
    assert report.suspicious == ()
    assert report.as_dict()["unknown_labels"] == 60
    assert "60 labels of 120 without a known annotator" in plain([report])
    line = agreement_lines(unknown(pool(1, tasks=30), "p2", "p3"))[0]["text"]
    assert line.endswith("ordinal, 2 known annotators and 60 labels of unknown ones, 30 tasks")
    assert "known annotator" not in plain([known])


def test_the_unknown_person_of_every_task_is_not_one_person() -> None:
    labels = unknown(by_hand([{"a": [1, 2]}, {"a": [2, 1]}]), "a")
    assert agreement(labels).alpha.text() == "n/a: no task was judged by two annotators"
    assert agreement(unknown(by_hand([{"a": [1, 2], "b": [1, 2]}, {"a": [2, 1]}]), "a", "b")).pairwise.value == 1


def test_unknown_annotators_have_the_usual_weight() -> None:
    labels = pool(1, tasks=150, habits={2: "random"})
    assert reliability(labels, votes_of(labels, labels.question()))["p2"] < 0.5
    labels = unknown(labels, "p2")
    found = reliability(labels, votes_of(labels, labels.question()))
    assert sorted(found) == ["p0", "p1", "p3", "unknown-1"]
    assert found["unknown-1"] == 1.0
