"""Rankings to comparisons, judgements to pointwise rows: every pair is a row or is counted with its reason."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.feedback_section import PairsSection
from pipelines.data.rows import Message
from pipelines.errors import UsageError
from pipelines.labels.label_types import Answer, Label, LabelSet, Question, Task
from pipelines.labels.pairs.label_rows import PairsResult, build
from tests.examples import examples
from tests.labels.pools import by_hand, pool, prompt

ABC = ["a", "b", "c"]


def made(labels: LabelSet, **section: Any) -> PairsResult:
    return build(labels, PairsSection(**section))


def sides(result: PairsResult) -> list[tuple[str, str, float | None]]:
    return [(row.chosen, row.rejected, row.margin) for row in result.comparisons]


def test_a_ranking_gives_all_its_pairs_the_better_answer_chosen() -> None:
    result = made(by_hand([{"p": [3, 1, 2]}], answers=[ABC]))
    assert sides(result) == [("b", "a", 2.0), ("c", "a", 1.0), ("b", "c", 1.0)]
    row = result.comparisons[0]
    assert row.prompt == prompt("question 0")
    assert (row.annotator, row.source) == ("p", "human")
    assert (result.possible, result.made, result.dropped) == (3, 3, {})


def test_the_average_of_several_people() -> None:
    result = made(by_hand([{"p": [1, 2, 3], "q": [1, 3, 2], "r": [2, 1, 3]}], answers=[ABC]))
    # mean ranks 4/3, 6/3, 8/3
    assert sides(result) == [("a", "b", 0.666667), ("a", "c", 1.333333), ("b", "c", 0.666667)]
    assert result.comparisons[0].annotator == "3 annotators"
    result = made(by_hand([{"p": [1, 2, 3], "q": [1, 3, 2], "r": [2, 1, 3]}], answers=[ABC]), method="majority")
    assert [row.margin for row in result.comparisons] == pytest.approx([1 / 3, 1, 1 / 3], abs=1e-6)


def test_ties_are_left_out_or_kept_in_both_orders() -> None:
    labels = by_hand([{"p": [1, 1, 2]}], answers=[ABC])
    result = made(labels)
    assert sides(result) == [("a", "c", 1.5), ("b", "c", 1.5)]
    assert result.dropped == {"tie": 1}
    result = made(labels, ties="half")
    assert sides(result) == [("a", "b", 0.0), ("b", "a", 0.0), ("a", "c", 1.5), ("b", "c", 1.5)]
    assert (result.made, result.counts["rows"], result.dropped) == (3, 4, {})
    assert made(labels, ties="half", min_agreement=0.6).dropped == {"below min_agreement": 1}
    assert made(labels, ties="half", min_margin=0.1).dropped == {"below min_margin": 1}


def test_least_annotators_agreement_and_margin() -> None:
    labels = by_hand([{"p": [1, 2], "q": [1, 2], "r": [2, 1]}, {"p": [1, 2]}])
    assert made(labels).made == 2
    assert made(labels, min_annotators=2).dropped == {"too few annotators": 1}
    assert made(labels, min_agreement=0.66).dropped == {}
    assert made(labels, min_agreement=2 / 3).dropped == {}
    assert made(labels, min_agreement=0.67).dropped == {"below min_agreement": 1}
    assert made(labels, min_margin=1 / 3).dropped == {}
    assert made(labels, min_margin=0.34).dropped == {"below min_margin": 1}
    second_wins = by_hand([{"p": [2, 1], "q": [2, 1], "r": [1, 2]}])
    assert made(second_wins, min_agreement=0.66).dropped == {}
    assert made(second_wins, min_agreement=0.67).dropped == {"below min_agreement": 1}


def test_every_reason_is_counted() -> None:
    texts = [["a", "b"], ["a", "b"], ["same", " same\n"], ["a", " "], ["a", "b"], ["a", "b"]]
    rows = [{"p": [1, 2]}] * 4 + [{}, {}]
    labels = by_hand(rows, answers=texts, control={0: [1, 2]})
    fifth = list(labels.tasks)[4]
    labels.labels.append(Label(fifth, "p", {}, skipped=True))
    result = made(labels)
    expected = {"control task": 1, "skipped": 1, "no label": 1, "equal texts": 1, "blank text": 1}
    assert result.dropped == expected
    assert (result.possible, result.made) == (6, 1)


def test_simulated_labels_make_simulated_rows() -> None:
    labels = by_hand([{"p": [1, 2], "q": [1, 2]}], simulated=True)
    assert made(labels).comparisons[0].source == "simulated"
    assert made(labels).simulated_labels == 2
    labels.labels[0] = replace(labels.labels[0], simulated=False)
    assert made(labels).comparisons[0].source == "human and simulated"


def test_weights_come_from_reliability() -> None:
    labels = pool(0, tasks=80, habits={0: "random"})
    result = made(labels, weights="reliability")
    assert result.weights["p0"] < 0.5 < 1 < result.weights["p1"]
    assert result.counts["weights"] == result.weights
    truth = made(pool(0, tasks=80, noise=0.0))
    known = {(row.prompt, row.chosen, row.rejected) for row in truth.comparisons}

    def right(found: PairsResult) -> int:  # a pair left out is neither right nor wrong
        return sum(1 if (row.prompt, row.chosen, row.rejected) in known else -1 for row in found.comparisons)

    assert right(result) > right(made(labels)) + 5


METHODS = ["mean_rank", "majority", "bradley_terry", "plackett_luce"]
ranks = st.lists(st.integers(1, 3), min_size=3, max_size=3)
tables = st.lists(st.dictionaries(st.sampled_from("pqr"), ranks, max_size=3), min_size=1, max_size=5)


@settings(max_examples=examples(40), deadline=None)
@given(
    tables,
    st.sampled_from(METHODS),
    st.sampled_from(["drop", "half"]),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 0.7, 1.0]),
    st.sampled_from([0.0, 0.5]),
    st.randoms(use_true_random=False),
)
def test_made_and_dropped_are_all_there_is_whatever_the_order_of_the_labels(
    table: list[dict[str, list[int]]],
    method: str,
    ties: str,
    annotators: int,
    agreement: float,
    margin: float,
    rng: random.Random,
) -> None:
    dense = [{name: [sorted(set(row)).index(i) + 1 for i in row] for name, row in one.items()} for one in table]
    answers = [[f"{letter}{number}" for letter in ABC] for number in range(len(table))]
    labels = by_hand(dense, answers=answers)
    section = {"method": method, "ties": ties, "min_annotators": annotators}
    section |= {"min_agreement": agreement, "min_margin": margin}
    result = made(labels, **section)
    assert result.possible == 3 * len(table) == result.made + sum(result.dropped.values())
    assert all(row.margin is not None and row.margin >= margin - 1e-6 for row in result.comparisons)
    rng.shuffle(labels.labels)
    assert made(labels, **section) == result


def test_binary_answers_become_judgements_by_majority() -> None:
    rows = [{"p": [1, 0], "q": [1, 0], "r": [0, 0]}, {"p": [1, 0], "q": [0, 0]}]
    result = made(by_hand(rows, "binary", answers=[["a", "b"], ["c", "d"]]))
    assert [(row.completion, row.label) for row in result.judgements] == [("a", True), ("b", False), ("d", False)]
    assert all(row.label is True or row.label is False for row in result.judgements)
    assert (result.possible, result.made, result.dropped) == (4, 3, {"tie": 1})
    assert made(by_hand(rows, "binary"), min_agreement=0.7).dropped == {"tie": 1, "below min_agreement": 1}
    assert made(by_hand(rows, "binary"), min_margin=0.4).dropped == {"tie": 1, "below min_margin": 1}
    assert made(by_hand(rows, "binary"), min_annotators=3).dropped == {"too few annotators": 2}


def test_a_scale_gives_the_mean() -> None:
    result = made(by_hand([{"p": [1, 5], "q": [2, 5]}], "scale", answers=[["a", "b"]]))
    assert [(row.completion, row.label) for row in result.judgements] == [("a", 1.5), ("b", 5.0)]
    assert all(type(row.label) is float for row in result.judgements)
    assert result.judgements[0].annotator == "2 annotators"


def written(*texts: tuple[str, str]) -> LabelSet:
    tasks = [Task(prompt("one"), ()), Task(prompt("two"), (Answer("draft"),))]
    labels = [Label(tasks[0].id, name, {"text": text}) for name, text in texts]
    return LabelSet((Question("text", "demonstration", "Write."),), {task.id: task for task in tasks}, labels)


def test_written_answers_become_demonstrations() -> None:
    result = made(written(("p", "First."), ("q", "Second."), ("r", " First.")))
    turns = [(row.messages[0], row.messages[1]) for row in result.demonstrations]
    assert turns == [
        (prompt("one")[0], Message(role="assistant", content="First.")),
        (prompt("one")[0], Message(role="assistant", content="Second.")),
    ]
    assert (result.possible, result.made, result.dropped) == (4, 2, {"no label": 1, "equal texts": 1})


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        ("binary", {"ties": "half"}),
        ("binary", {"method": "bradley_terry"}),
        ("scale", {"min_agreement": 0.5}),
        ("scale", {"min_margin": 0.5}),
    ],
)
def test_options_that_would_do_nothing_are_refused(kind: str, section: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"kind {kind}"):
        made(by_hand([{"p": [1, 1]}], kind), **section)


def test_a_question_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no question is named `helpful`; there are: overall"):
        made(by_hand([{"p": [1, 2]}]), question="helpful")
    with pytest.raises(UsageError, match="none at all"):
        build(LabelSet((), {}, []), PairsSection())


def test_who_is_left_out_counts_for_nothing() -> None:
    labels = by_hand([{"p": [1, 2], "bo": [2, 1]}, {"bo": [1, 2]}])
    assert [row.annotator for row in made(labels).comparisons] == ["bo"], "they contradict each other on the other task"
    result = made(labels, leave_out=["bo", "zoe"])
    assert [(row.annotator, row.margin) for row in result.comparisons] == [("p", 1.0)]
    assert (result.dropped, result.counts["left_out"]) == ({"no label": 1}, {"bo": 2, "zoe": 0})
    assert made(by_hand([{"p": ["written"], "bo": ["too"]}], "demonstration"), leave_out=["p"]).made == 1


def test_one_of_several_questions() -> None:
    labels = by_hand([{"p": [1, 2]}], answers=[["a", "b"]])
    labels.questions = (*labels.questions, Question("helpful", "ranking", "?"))
    labels.labels[0] = replace(labels.labels[0], values={"overall": (1, 2), "helpful": (2, 1)})
    assert sides(made(labels)) == [("a", "b", 1.0)]
    assert sides(made(labels, question="helpful")) == [("b", "a", 1.0)]


def test_no_answers_no_rows() -> None:
    result = made(by_hand([{}, {}]))
    assert (result.possible, result.rows, result.dropped) == (2, [], {"no label": 2})
