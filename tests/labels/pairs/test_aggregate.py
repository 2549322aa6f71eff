"""One opinion out of several: by hand, against choix, and what must not change it."""

from __future__ import annotations

from itertools import permutations

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.labels.label_types import LabelSet
from pipelines.labels.pairs.aggregate import MOST_TIED, PENALTY, Verdicts, aggregate, plackett_luce, reliability
from pipelines.labels.votes import votes_of
from tests.examples import examples
from tests.labels.pools import by_hand, pool

METHODS = ("mean_rank", "majority", "bradley_terry", "plackett_luce")


def verdicts(labels: LabelSet, method: str, weights: dict[str, float] | None = None) -> Verdicts:
    return aggregate(votes_of(labels, labels.question()), method, weights)


def differences(strength: np.ndarray) -> list[float]:
    one, two = np.triu_indices(len(strength), 1)
    return list(strength[one] - strength[two])


def test_mean_rank_by_hand() -> None:
    # mid-ranks of c: 1.5, 1.5, 3; means 4.5/3, 5.5/3, 8/3
    found = verdicts(by_hand([{"a": [1, 2, 3], "b": [2, 1, 3], "c": [1, 1, 2]}, {"a": [1, 2, 3]}]), "mean_rank")
    assert list(found.margin[0]) == pytest.approx([0, 1.5, 1.5])
    assert list(found.share[0]) == pytest.approx([0.5, 1, 1])
    assert list(found.margin[1]) == [1, 2, 1]
    assert found.annotators.tolist() == [[3, 3, 3], [1, 1, 1]]


def test_majority_by_hand_also_in_a_circle() -> None:
    found = verdicts(by_hand([{"a": [1, 2, 3], "b": [3, 1, 2], "c": [2, 3, 1]}]), "majority")
    # pairs (0, 1), (0, 2), (1, 2): 0 before 1, 1 before 2, 2 before 0, each by two of three
    assert list(found.margin[0]) == pytest.approx([1 / 3, -1 / 3, 1 / 3])
    for method in METHODS[2:]:
        assert list(verdicts(by_hand([{"a": [1, 2, 3], "b": [3, 1, 2], "c": [2, 3, 1]}]), method).margin[0]) == [0] * 3


def test_bradley_terry_is_that_of_choix() -> None:
    labels = pool(1, tasks=12, answers=4, people=3, noise=1.0)
    votes = votes_of(labels, labels.question())
    found = verdicts(labels, "bradley_terry")
    for task in range(12):
        data = [
            (one, two)
            for ranks in votes.value[votes.task == task]
            for one, two in permutations(range(4), 2)
            if ranks[one] < ranks[two]
        ]
        expected = choix.opt_pairwise(4, data, alpha=PENALTY, tol=1e-12)
        assert list(found.margin[task]) == pytest.approx(differences(expected), abs=1e-4)


def test_plackett_luce_is_that_of_choix() -> None:
    labels = pool(2, tasks=12, answers=4, people=3, noise=1.0)
    votes = votes_of(labels, labels.question())
    found = verdicts(labels, "plackett_luce")
    for task in range(12):
        data = [list(np.argsort(ranks)) for ranks in votes.value[votes.task == task]]
        expected = choix.opt_rankings(4, data, alpha=PENALTY, tol=1e-12)
        assert list(found.margin[task]) == pytest.approx(differences(expected), abs=1e-4)


@pytest.mark.parametrize("ranks", [[1, 2, 2, 3], [1, 1, 1, 2], [1, 1, 1, 1], [1, 1, 2, 2]])
def test_a_tie_stands_for_all_orders_that_break_it(ranks: list[int]) -> None:
    labels = by_hand([{"a": ranks, "b": [1, 2, 3, 4]}])
    votes = votes_of(labels, labels.question())
    orders = [order for order in permutations(range(4)) if [ranks[item] for item in order] == sorted(ranks)]
    broken = by_hand(
        [{**{f"a{n}": [order.index(i) + 1 for i in range(4)] for n, order in enumerate(orders)}, "b": [1, 2, 3, 4]}]
    )
    each = votes_of(broken, broken.question())
    weights = np.array([1.0 if name == "b" else 1 / len(orders) for name in each.annotators])
    np.testing.assert_allclose(plackett_luce(votes, np.ones(2)), plackett_luce(each, weights), atol=1e-8)


def test_of_two_answers_both_models_are_the_same_and_ties_pull_together() -> None:
    sets = [{"a": [1, 2]}, {"a": [1, 2], "b": [1, 1]}, {"a": [1, 2], "b": [1, 1], "c": [1, 1]}]
    one, two = (verdicts(by_hand(sets, "pairwise"), method).margin[:, 0] for method in METHODS[2:])
    np.testing.assert_allclose(one, two, atol=1e-8)
    assert one[0] > one[1] > one[2] > 0
    # the slope at one vote of one: 1 / (1 + exp(x)) = penalty * x
    assert 1 / (1 + np.exp(one[0])) == pytest.approx(PENALTY * one[0])


@pytest.mark.parametrize("method", METHODS)
def test_one_who_always_wins_and_one_annotator_stay_finite(method: str) -> None:
    found = verdicts(by_hand([{name: [1, 2, 3, 4] for name in "abcdefghij"}, {"a": [1, 2, 3, 4]}]), method)
    assert np.isfinite(found.margin).all()
    assert (found.margin > 0).all()
    assert (found.margin[0] >= found.margin[1] - 1e-9).all()
    assert (found.share == 1).all()


orders = st.lists(st.lists(st.integers(1, 3), min_size=3, max_size=3), min_size=1, max_size=4)


def dense(row: list[int]) -> list[int]:
    return [sorted(set(row)).index(item) + 1 for item in row]


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=examples(20), deadline=None)
@given(orders, st.permutations([0, 1, 2]))
def test_other_places_of_the_answers_give_the_same_opinion(method: str, rows: list[list[int]], places: list[int]):
    people = [f"p{number}" for number in range(len(rows))]
    plainly = verdicts(by_hand([dict(zip(people, map(dense, rows), strict=True))]), method).margin[0]
    turned = [[dense(row)[place] for place in places] for row in rows]
    # the names turn too: who says it changes nothing either
    found = verdicts(by_hand([dict(zip(people[::-1], turned, strict=True))]), method).margin[0]
    pairs = {(0, 1): 0, (0, 2): 1, (1, 2): 2}
    for (one, two), number in pairs.items():
        first, second = places[one], places[two]
        sign = 1 if first < second else -1
        assert found[number] == pytest.approx(sign * plainly[pairs[min(first, second), max(first, second)]], abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_of_two_is_as_good_as_two_who_say_the_same(method: str) -> None:
    rows = {"a": [1, 2, 3], "b": [3, 2, 1], "c": [2, 1, 3]}
    weighted = verdicts(by_hand([rows]), method, {"a": 2.0, "b": 1.0, "c": 1.0})
    doubled = verdicts(by_hand([{**rows, "d": rows["a"]}]), method)
    np.testing.assert_allclose(weighted.margin, doubled.margin, atol=1e-7)
    np.testing.assert_allclose(weighted.share, doubled.share)
    assert weighted.annotators.tolist() == [[3, 3, 3]]


@pytest.mark.parametrize("method", METHODS)
def test_who_weighs_nothing_is_not_there(method: str) -> None:
    labels = by_hand([{"a": [1, 2], "b": [2, 1]}, {"b": [1, 2]}])
    found = verdicts(labels, method, {"a": 1.0, "b": 0.0})
    assert found.annotators.tolist() == [[1], [0]]
    assert found.margin[0, 0] > 0
    assert np.isnan(found.margin[1, 0])


@pytest.mark.parametrize("method", METHODS)
def test_tasks_with_fewer_answers_have_fewer_pairs(method: str) -> None:
    both = verdicts(by_hand([{"a": [2, 1], "b": [2, 1]}, {"a": [1, 3, 2]}]), method)
    alone = verdicts(by_hand([{"a": [2, 1], "b": [2, 1]}]), method)
    assert both.margin[0, 0] == pytest.approx(alone.margin[0, 0])
    assert both.annotators.tolist() == [[2, 0, 0], [1, 1, 1]]


def test_too_many_tied_answers_are_refused_by_plackett_luce() -> None:
    labels = by_hand([{"a": [1] * (MOST_TIED + 1)}])
    with pytest.raises(DataError, match="answers are tied") as caught:
        verdicts(labels, "plackett_luce")
    assert "bradley_terry" in str(caught.value.hint)
    assert not verdicts(labels, "bradley_terry").margin.any()


def test_reliability_by_hand() -> None:
    # agreement with the rest: a and b 3/4 (c ties with the other one: half), c 0; n = 2 each; no controls
    labels = by_hand([{"a": [1, 2], "b": [1, 2], "c": [2, 1]}, {"a": [1, 2], "b": [1, 2]}], "pairwise")
    votes = votes_of(labels, labels.question())
    # skills 2 * .75 - 1 = .5, .5 and -1; n 2, 2, 1; usual (1 + 1 - 1) / 5 = .2
    # weights 1 + 2/22 * (2.5 - 1) = 1.136 and 1 + 1/21 * (-5 - 1) = .714, rounded
    assert reliability(labels, votes) == {"a": 1.1, "b": 1.1, "c": 0.7}


def test_reliability_of_a_random_one_goes_to_nothing_and_controls_count() -> None:
    labels = pool(3, tasks=120, people=4, habits={1: "random"})
    found = reliability(labels, votes_of(labels, labels.question()))
    assert found["p1"] <= 0.3
    assert min(found[name] for name in ("p0", "p2", "p3")) >= 1.1
    rows = [{"a": [1, 2], "b": [2, 1]}] * 10 + [{"a": [1, 2], "b": [2, 1]}] * 10
    controls = by_hand(rows, "pairwise", control={number: [1, 2] for number in range(10, 20)})
    # skills (-10 + 10) / 20 and (-10 - 10) / 20: nothing can be told from a mean below 0
    assert reliability(controls, votes_of(controls, controls.question())) == {"a": 1.0, "b": 1.0}
    controls.labels = controls.labels[20:]
    controls.labels += by_hand([{"a": [1, 2], "b": [1, 2]}] * 10, "pairwise").labels
    found = reliability(controls, votes_of(controls, controls.question()))
    # skills (10 + 10) / 20 and (10 - 10) / 20, usual .5: 1 + 20/40 * (2 - 1) and 1 - 20/40
    assert found == {"a": 1.5, "b": 0.5}


def test_equally_good_people_weigh_the_same() -> None:
    labels = pool(4, tasks=300, people=3)
    assert set(reliability(labels, votes_of(labels, labels.question())).values()) == {1.0}


@pytest.mark.parametrize("kind", ["binary", "scale"])
def test_reliability_of_judgements(kind: str) -> None:
    labels = pool(5, kind=kind, answers=1, tasks=150, people=4, habits={0: "random"})
    found = reliability(labels, votes_of(labels, labels.question()))
    assert found["p0"] <= 0.3
    assert min(found[name] for name in ("p1", "p2", "p3")) >= 1.1
