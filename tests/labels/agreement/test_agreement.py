"""Agreement: published and hand-computed numbers, the bootstrap, and what is said of each annotator."""

from __future__ import annotations

from dataclasses import replace

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.labels.agreement import alpha as alphas
from pipelines.labels.agreement.agreement_text import markdown, plain
from pipelines.labels.agreement.careless_patterns import at_least
from pipelines.labels.agreement.measures import agreement, agreement_lines, summary
from pipelines.labels.label_types import Label, LabelSet, Question
from pipelines.labels.votes import mid_ranks, votes_of
from tests.examples import examples
from tests.labels.pools import by_hand, pool

_ = None
# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: section D (four observers), section A (binary).
FOUR = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
TWO = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]


def units(table: list[list[int | None]], kind: str) -> LabelSet:
    columns = zip(*table, strict=True)
    return by_hand([{f"p{who}": [v] for who, v in enumerate(one) if v is not None} for one in columns], kind)


def test_krippendorffs_own_examples() -> None:
    report = agreement(units(FOUR, "scale"))
    assert report.alpha.value == pytest.approx(0.815, abs=5e-4)
    assert (report.level, report.tasks, report.overlapping, report.labels) == ("ordinal", 12, 11, 41)
    report = agreement(units(TWO, "binary"))
    assert report.level == "nominal"
    assert report.alpha.value == pytest.approx(0.095, abs=5e-4)
    assert report.pairwise.value == pytest.approx(0.6)
    # 6 of 20 values are ones: .3 ** 2 + .7 ** 2
    assert report.chance == pytest.approx(0.58)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_many_alphas_at_once_are_those_of_the_package(level: alphas.Level) -> None:
    rng = np.random.default_rng(0)
    for _round in range(30):
        counts = rng.integers(0, 3, size=(8, 3, 4)).astype(float)
        together = alphas.coincidences(counts)
        drawn = rng.integers(8, size=8)
        found = alphas.alphas_of(together[drawn].sum(axis=0)[None], level)[0]
        expected = krippendorff.alpha(value_counts=counts[drawn].reshape(-1, 4), level_of_measurement=level)
        assert found == pytest.approx(expected, abs=1e-12)


def test_the_interval_is_that_of_tasks_drawn_again() -> None:
    labels = pool(3, tasks=25, people=3, noise=1.0)
    votes = votes_of(labels, labels.question())
    rng, found = np.random.default_rng(7), []
    for drawn in rng.integers(25, size=(40, 25)):
        data = np.array([votes.value[votes.task == task].reshape(3, -1) for task in drawn])
        found.append(krippendorff.alpha(data.transpose(1, 0, 2).reshape(3, -1), level_of_measurement="ordinal"))
    report, tail = agreement(labels, seed=7, bootstrap=40), alphas.tail_of(25)
    assert (report.alpha.low, report.alpha.high) == pytest.approx(tuple(np.quantile(found, [tail, 1 - tail])))
    # t with 24 degrees of freedom ends at 2.0639; the normal distribution has .01759 beyond 2.0639 * sqrt(25 / 24)
    assert tail == pytest.approx(0.01759, abs=2e-5)
    assert alphas.tail_of(100_000) == pytest.approx(0.025, abs=1e-5)
    assert agreement(labels, bootstrap=0).alpha.low is None


def test_mid_ranks() -> None:
    ranks = np.array([[1, 1, 2, 3], [2, 1, np.nan, np.nan], [1, 1, 1, 1]], dtype=float)
    expected = [[1.5, 1.5, 3, 4], [2, 1, np.nan, np.nan], [2.5] * 4]
    np.testing.assert_array_equal(mid_ranks(ranks), expected)


def test_pairwise_agreement_and_tau_by_hand() -> None:
    report = agreement(by_hand([{"a": [1, 2, 3], "b": [1, 3, 2]}]))
    assert report.pairwise.value == pytest.approx(2 / 3)
    assert report.tau.value == pytest.approx(1 / 3)
    assert report.chance == 0.5
    # a ties the first two: half there; tau-b = 2 / sqrt(2 * 3)
    report = agreement(by_hand([{"a": [1, 1, 2], "b": [1, 2, 3]}]))
    assert report.pairwise.value == pytest.approx(2.5 / 3)
    assert report.tau.value == pytest.approx(2 / 6**0.5)
    assert report.chance == pytest.approx((1 + (1 / 6) ** 2) / 2)
    # both tie the same pair: agreement
    assert agreement(by_hand([{"a": [1, 1, 2], "b": [1, 1, 2]}])).pairwise.value == 1


def test_each_two_annotators_by_hand() -> None:
    rows = [{"a": [1, 2], "b": [1, 2], "c": [2, 1]}, {"a": [1, 2], "b": [2, 1]}]
    report = agreement(by_hand(rows, "pairwise"))
    found = {(pair.first, pair.second): (pair.agreement.value, pair.tasks) for pair in report.pairs}
    assert found == {("a", "b"): (0.5, 2), ("a", "c"): (0.0, 1), ("b", "c"): (0.0, 1)}
    assert report.pairwise.value == 0.25


@pytest.mark.parametrize(
    ("rows", "kind", "reason"),
    [
        ([{}], "ranking", "no task has an answer"),
        ([{"a": [1, 2]}, {"a": [2, 1]}], "ranking", "one annotator only"),
        ([{"a": [1, 2]}, {"b": [2, 1]}], "ranking", "no task was judged by two annotators"),
        ([{"a": [1], "b": [1]}, {"a": [1], "b": [1]}], "binary", "all values are equal"),
        ([{"a": [1, 1], "b": [1, 1]}], "ranking", "all values are equal"),
        # the only other value stands where nobody else judged
        ([{"a": [1], "b": [1]}, {"a": [0]}], "binary", "all values are equal"),
    ],
)
def test_what_has_no_alpha_says_why(rows: list[dict[str, list[int]]], kind: str, reason: str) -> None:
    report = agreement(by_hand(rows, kind))
    assert report.alpha.value is None
    assert report.alpha.text() == f"n/a: {reason}"
    assert reason in plain([report])
    assert reason in markdown([report])


def test_a_demonstration_is_counted_and_not_compared() -> None:
    labels = by_hand([{"a": [1], "b": [1]}], "binary")
    labels.questions = (Question("overall", "demonstration", "Write."),)
    labels.labels = [replace(label, values={"overall": "text"}) for label in labels.labels]
    report = agreement(labels)
    assert report.alpha.text() == "n/a: written texts are not compared"
    assert [one.labels for one in report.annotators] == [1, 1]


rankings = st.lists(st.lists(st.permutations([1, 2, 3]), min_size=3, max_size=3), min_size=2, max_size=8)


@settings(max_examples=examples(20), deadline=None)
@given(rankings, st.permutations("abc"), st.permutations([0, 1, 2]))
def test_other_names_and_another_order_of_answers_change_nothing(
    table: list[list[list[int]]], names: list[str], places: list[int]
) -> None:
    plainly = agreement(by_hand([dict(zip("abc", row, strict=True)) for row in table]), bootstrap=20)
    turned = by_hand([{name: [row[i][p] for p in places] for i, name in enumerate(names)} for row in table])
    turned.labels.reverse()
    found = agreement(turned, bootstrap=20)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found.alpha.value == pytest.approx(plainly.alpha.value)
    assert found.pairwise.value == pytest.approx(plainly.pairwise.value)
    assert found.tau.value == pytest.approx(plainly.tau.value)
    assert (found.alpha.low, found.alpha.high) == pytest.approx((plainly.alpha.low, plainly.alpha.high))


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.permutations([1, 2, 3, 4]), min_size=2, max_size=10))
def test_perfect_agreement_is_one(orders: list[list[int]]) -> None:
    report = agreement(by_hand([dict.fromkeys("abc", order) for order in orders]), bootstrap=20)
    for figure in (report.alpha, report.tau, report.pairwise):
        assert figure.value == pytest.approx(1)
    assert (report.alpha.low, report.alpha.high) == pytest.approx((1, 1))
    assert not report.disputed


def test_agreement_with_the_rest_leaves_oneself_out() -> None:
    # the mean ranks of b and c are 1, 2.5, 2.5: a orders two of three pairs alike, and one that they tie
    report = agreement(by_hand([{"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 3, 2]}, {"a": [1, 2, 3]}]))
    found = {one.name: one.rest for one in report.annotators}
    assert found["a"].value == pytest.approx(2.5 / 3)
    assert found["a"].n == 1
    # a and c together: 1, 2.5, 2.5 as well
    assert found["b"].value == pytest.approx(2.5 / 3)
    # a and b together: 1, 2, 3
    assert found["c"].value == pytest.approx(2 / 3)
    report = agreement(by_hand([{"a": [1], "b": [1], "c": [0]}], "binary"))
    assert [one.rest.value for one in report.annotators] == [0.5, 0.5, 0.0]


def test_control_tasks_count_for_controls_only() -> None:
    rows = [{"a": [1, 2, 3], "b": [1, 2, 3]}, {"a": [1, 2, 3], "b": [3, 2, 1]}, {"a": [1, 1, 2]}]
    report = agreement(by_hand(rows, control={1: [1, 2, 2], 2: [1, 2, 3]}))
    assert (report.tasks, report.labels, report.alpha.value) == (1, 2, 1)
    a, b = report.annotators
    # the pair that the control ties says nothing; of the third task a ties one pair of three
    assert (a.controls.value, a.controls.n) == (pytest.approx((1 + 2.5 / 3) / 2), 2)
    assert (b.controls.value, b.controls.n) == (0.0, 1)
    assert 0.2 < b.controls.high < 0.9
    scale = by_hand([{"a": [4, 2]}], "scale", control={0: [5, 5]})
    assert agreement(scale).annotators[0].controls.value == 0.5


def test_place_length_and_speed_by_hand() -> None:
    texts = [["long answer", "short"], ["short", "long answer"], ["same", "size"]]
    labels = by_hand([{"a": [1, 2]}, {"a": [1, 2]}, {"a": [1, 1]}], "pairwise", answers=texts)
    # shown first: the winner, the loser, one of two that tie
    for index, (order, seconds) in enumerate([((0, 1), 1.0), ((1, 0), 2.0), ((0, 1), 13.0)]):
        labels.labels[index] = replace(labels.labels[index], order=order, seconds=seconds)
    one = agreement(labels).annotators[0]
    assert (one.first_shown.value, one.first_expected) == (0.5, 0.5)
    assert (one.longer_wins.value, one.longer_wins.n) == (0.5, 2)
    assert one.length_correlation == 0
    assert one.seconds == 2.0
    # "question 0" and the answers: 26, 26 and 18 characters in 1, 2 and 13 seconds
    assert one.characters_per_second == 13.0


def test_an_order_that_never_changes_tells_nothing_of_the_place() -> None:
    labels = by_hand([{"a": [1, 2]}] * 1 + [{"a": [2, 1]}], "pairwise", order=(0, 1))
    one = agreement(labels).annotators[0]
    assert one.first_shown.text() == "n/a: the answers were not shuffled"
    labels = by_hand([{"a": [1, 2]}], "pairwise")
    assert agreement(labels).annotators[0].first_shown.text() == "n/a: the order on the page is not known"


@pytest.mark.parametrize(
    ("kind", "answers", "pools"), [("ranking", 4, 30), ("pairwise", 2, 18), ("binary", 1, 18), ("scale", 2, 9)]
)
def test_no_honest_person_is_named(kind: str, answers: int, pools: int) -> None:
    for seed in range(pools):
        noise = (0.2, 0.6, 1.2)[seed % 3]
        labels = pool(seed, kind=kind, answers=answers, people=4, noise=noise, tasks=(12, 40, 90)[seed // 3 % 3])
        assert agreement(labels, bootstrap=0).suspicious == (), seed


@pytest.mark.parametrize(
    ("habit", "kind", "answers", "words"),
    [
        ("first", "ranking", 4, "the same place wins"),
        ("first", "pairwise", 2, "the same place wins"),
        ("fast", "ranking", 3, "faster than reading"),
        ("fast", "binary", 1, "faster than reading"),
        ("ties", "ranking", 4, "all ties"),
        ("same", "binary", 1, "the same answer throughout"),
        ("same", "scale", 2, "the same answer throughout"),
        ("random", "ranking", 4, "near chance"),
        ("random", "scale", 2, "near chance"),
        ("random", "binary", 2, "near chance"),
    ],
)
def test_a_careless_person_is_found_and_nobody_else(habit: str, kind: str, answers: int, words: str) -> None:
    for seed in range(3):
        tasks = 150 if habit == "random" else 40
        labels = pool(seed, kind=kind, answers=answers, tasks=tasks, habits={2: habit})
        found = agreement(labels, bootstrap=0).suspicious
        assert any(pattern.startswith(f"p2: {words}") for pattern in found), (seed, found)
        assert all(pattern.startswith("p2: ") for pattern in found), (seed, found)


def test_what_everybody_does_or_the_file_explains_is_nobodys_pattern() -> None:
    for rows, kind in (([{"a": [1], "b": [1]}] * 30, "binary"), ([{"a": [1, 1], "b": [1, 1]}] * 30, "ranking")):
        assert agreement(by_hand(rows, kind)).suspicious == ()
    # one model's answers stand first and are better; the file does not say more than that
    assert agreement(by_hand([{"a": [1, 2, 3], "b": [1, 2, 3]}] * 30, order=(0, 1, 2))).suspicious == ()


def test_the_tail_of_the_binomial() -> None:
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_least(3, 3, 0.1) == pytest.approx(0.001)
    assert at_least(0, 5000, 0.3) == pytest.approx(1)
    assert 0 < at_least(1000, 5000, 0.15) < 1e-15


def test_who_fails_the_control_tasks_is_named() -> None:
    rows = [{"a": [1, 2], "b": [1, 2], "c": [1, 2] if number % 2 else [2, 1]} for number in range(20)]
    labels = by_hand(rows, "pairwise", control={number: [1, 2] for number in range(20)})
    assert agreement(labels).suspicious == ("c: control tasks missed: 50% right of 20 (the others 100%)",)


def test_disputed_and_flagged_tasks() -> None:
    labels = by_hand([{"a": [1, 2], "b": [1, 2]}, {"a": [1, 2], "b": [2, 1]}, {"a": [1, 1], "b": [2, 1]}])
    first, second, third = labels.tasks
    flag = Label(first, "c", {}, skipped=True, flagged=True, comment="\x1b[31mboth are wrong")
    labels.labels.append(flag)
    report = agreement(labels)
    assert [(one.task, one.spread) for one in report.disputed] == [(second, 1.0), (third, 0.5)]
    assert report.disputed[0].values == {"a": (1, 2), "b": (2, 1)}
    assert report.flagged[0].comment == flag.comment
    assert (report.annotators[2].skipped, report.annotators[2].flagged, report.annotators[2].labels) == (1, 1, 0)
    text = plain([report])
    assert "\x1b" not in text
    assert "both are wrong" in text
    assert "\x1b" not in markdown([report])


def test_the_distance_of_a_scale_makes_the_dispute() -> None:
    report = agreement(by_hand([{"a": [1], "b": [5]}, {"a": [3], "b": [4]}], "scale"))
    assert [one.spread for one in report.disputed] == [1.0, 0.25]


def test_simulated_labels_are_said_to_be_simulated() -> None:
    labels = by_hand([{"a": [1, 2], "b": [2, 1]}] * 1, simulated=True)
    report = agreement(labels)
    assert report.as_dict()["simulated"] is True
    for text in (plain([report]), markdown([report]), *summary(report)[:1], agreement_lines(labels)[0]["text"]):
        assert "simulated" in text.lower()
    labels.labels[0] = replace(labels.labels[0], simulated=False)
    assert "no human gave 1 of 2 labels" in plain([agreement(labels)])
    labels.labels[1] = replace(labels.labels[1], simulated=False)
    assert "simulated" not in plain([agreement(labels)]).lower()


def test_the_line_of_a_question() -> None:
    labels = by_hand([{"a": [1, 2], "b": [1, 2], "c": [1, 2]}, {"a": [2, 1], "b": [2, 1], "c": [2, 1]}])
    assert agreement_lines(labels) == [
        {"question": "overall", "text": "alpha 1.00 [1.00, 1.00] ordinal, 3 annotators, 2 tasks"}
    ]
    assert summary(agreement(labels))[1] == "overall: two annotators agree on 100 % [100, 100] (by chance 50 %)"


def test_tasks_with_different_numbers_of_answers() -> None:
    report = agreement(by_hand([{"a": [1, 2], "b": [1, 2]}, {"a": [1, 2, 3, 4], "b": [1, 2, 4, 3]}]))
    assert report.pairwise.value == pytest.approx(6 / 7)
    assert report.tau.value == pytest.approx((1 + 4 / 6) / 2)
