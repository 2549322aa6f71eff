"""Which prompts the report shows: the extremes, then those that nobody chose."""

from __future__ import annotations

import json

import pytest

from pipelines.overview.run_facts import read_run
from pipelines.overview.side_by_side import PROMPTS, SideBySide, judge_of, side_by_side
from tests.overview.conftest import RESULTS, Bench, answer, lines, row


def chosen(bench: Bench) -> SideBySide | None:
    bench.go()
    return side_by_side(read_run(bench.config, bench.run))


def numbers(group: tuple[object, ...]) -> list[int]:
    return [shown.number for shown in group]  # type: ignore[attr-defined]


def test_extremes_first_then_the_rest_in_order(bench: Bench) -> None:
    shown = chosen(bench)  # PPO's gold score is n / 30 for prompt n + 1, SFT's always one half
    assert shown is not None
    assert numbers(shown.wins) == [31, 30, 29, 28, 27]
    assert numbers(shown.losses) == [1, 2, 3, 4, 5]
    assert numbers(shown.others) == list(range(6, 16))
    assert (shown.compared, shown.better, shown.worse) == (31, 15, 15)
    assert shown.wins[0].difference == pytest.approx(0.5)
    assert [answer.text for answer in shown.wins[0].answers] == ["old 30", "new 30"]
    assert shown.wins[0].turns == (("user", "Prompt 30?"),)


def test_few_prompts_are_shown_once_each(bench: Bench) -> None:
    rows = [row(f"p{n}", answer("a", 0.5), answer("b", score)) for n, score in enumerate((0.5, 0.9, 0.2, 0.5))]
    bench.files["eval"]["answers.jsonl"] = lines(*rows)
    shown = chosen(bench)
    assert shown is not None
    assert [numbers(group) for group in (shown.wins, shown.losses, shown.others)] == [[2], [3], [1, 4]]


def test_equal_differences_go_by_their_place(bench: Bench) -> None:
    bench.files["eval"]["answers.jsonl"] = lines(*(row("p", answer("a", 0.1), answer("b", 0.9)) for _ in range(40)))
    shown = chosen(bench)
    assert shown is not None
    assert numbers(shown.wins) == [1, 2, 3, 4, 5]
    assert shown.losses == ()
    assert len(shown.wins) + len(shown.others) == PROMPTS


def test_rows_of_another_form_are_passed_over(bench: Bench) -> None:
    good = row("p", answer("a", 0.1), answer("b", 0.9))
    bad = [
        {"prompt": "p", "answers": good["answers"]},
        {"prompt": good["prompt"], "answers": {"sft": answer("a", 0.1)}},
        row("p", answer("a", 0.1), answer("b", 0.9) | {"scores": {"other": 1.0}}),
        row("p", answer("a", 0.1), answer("b", float("nan"))),
        {},
    ]
    bench.files["eval"]["answers.jsonl"] = lines(*bad, good) + "[1]\n{"
    shown = chosen(bench)
    assert shown is not None
    assert (numbers(shown.wins), shown.compared) == ([6], 1)


@pytest.mark.parametrize("results", [RESULTS | {"trained": None}, RESULTS | {"scorers": []}, RESULTS | {"scorers": 3}])
def test_without_two_policies_or_a_scorer_there_is_nothing(bench: Bench, results: dict[str, object]) -> None:
    bench.files["eval"]["results.json"] = json.dumps(results)
    assert chosen(bench) is None


def test_the_gold_scorer_judges_where_there_is_one() -> None:
    assert judge_of(RESULTS) == "gold"
    assert judge_of(RESULTS | {"scorers": RESULTS["scorers"][:1]}) == "reward_model"
    assert judge_of({}) is None
