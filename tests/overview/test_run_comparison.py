"""Runs compared: what differs, what may be compared, and differences that are paired by prompt."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import load_config
from pipelines.overview.comparison_text import CAVEAT, aligned, plain
from pipelines.overview.run_comparison import Difference, RunComparison, compare
from pipelines.overview.run_facts import read_run
from pipelines.run.directory import RunDir
from rlhf_cli.app import run as rlhf
from tests.overview.conftest import RESULTS, Bench, answer, lines, row

SCORERS = "eval.scorers=[{kind: run}, {kind: http, url: 'http://judge.example/%s', name: gold}]"


def another(bench: Bench, name: str, *sets: str) -> Bench:
    """A bench like this one for a run beside it."""
    run = RunDir(bench.run.root.with_name(name))
    run.create()
    parts = (copy.deepcopy(part) for part in (bench.files, bench.metrics, bench.notes))
    return Bench(run, (*bench.sets, *sets), *parts)


def answers(*scores: float, prompts: int = 0) -> str:
    """Rows of answers with these gold scores of PPO, for prompts from number `prompts` on."""
    return lines(*(row(f"p{n}", answer("a", 0.5), answer("b" * 9, score)) for n, score in enumerate(scores, prompts)))


@pytest.fixture
def both(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Bench]:
    """Two runs; a test makes them with `go`, which works for the run that is told."""
    bench.sets = (*bench.sets, SCORERS % "one")
    other = another(bench, "other", "ppo.kl_coef=0.2")
    monkeypatch.setattr(
        "pipelines.chain.execute.call_runner",
        lambda stage, context: (
            (other if context.run_dir == other.run.root else bench).work(stage, context)
            if not stage.name.startswith("data/")
            else bench.work(stage, context)
        ),
    )
    return bench, other


def compared(*benches: Bench) -> RunComparison:
    return compare([read_run(bench.config, bench.run) for bench in benches], [bench.run.root.name for bench in benches])


def difference(comparison: RunComparison, measure: str) -> Difference:
    (against,) = comparison.against
    return next(entry for entry in against.differences if entry.measure == measure)


def test_settings_and_stages_that_differ(both: tuple[Bench, Bench]) -> None:
    first, second = both
    second.files["ppo"]["model/weights"] = "3"
    second.files["sft"]["metrics.jsonl"] += lines({"step": 21, "seconds": 8.0})  # times are no difference
    first.go()
    second.go()
    comparison = compared(first, second)
    assert comparison.settings == {"ppo.kl_coef": (0.05, 0.2)}
    text = plain(comparison)
    assert "  ppo.kl_coef         0.05  0.2\n" in text
    assert "  with other files                 ppo\n" in text
    same = next(line for line in text.splitlines() if "same files" in line)
    assert {"sft,", "reward,", "eval"} <= set(same.split())
    assert "ppo" not in same


def test_differences_are_paired_by_prompt(both: tuple[Bench, Bench]) -> None:
    first, second = both
    first.files["eval"]["answers.jsonl"] = answers(0.1, 0.5, 0.9, 0.3)
    second.files["eval"]["answers.jsonl"] = answers(0.8, 1.2, 0.6, 7.0, prompts=1)  # p1, p2, p3 are shared
    first.go()
    second.go()
    comparison = compared(first, second)
    gold = difference(comparison, "score/gold")
    assert comparison.against[0].shared == 3
    assert gold.difference.value == pytest.approx(0.3), "each shared prompt gains .3, whatever the others do"
    assert gold.difference.low == pytest.approx(0.3)
    assert gold.difference.high == pytest.approx(0.3)
    assert gold.wins is not None
    assert gold.wins.value == 1.0
    text = plain(comparison)
    assert "other minus mine, on 3 shared prompts" in text
    assert "score/gold" in text
    assert "+0.3 [+0.3, +0.3]  higher on 100 % [44, 100]" in text
    assert CAVEAT in text


def test_the_interval_widens_where_prompts_disagree(both: tuple[Bench, Bench]) -> None:
    first, second = both
    first.files["eval"]["answers.jsonl"] = answers(*[0.5] * 40)
    second.files["eval"]["answers.jsonl"] = answers(*[0.0, 1.0] * 20)
    first.go()
    second.go()
    gold = difference(compared(first, second), "score/gold").difference
    assert gold.value == pytest.approx(0.0)
    assert gold.low is not None
    assert gold.high is not None
    assert -0.3 < gold.low < -0.1 < 0.1 < gold.high < 0.3, "about 2 * .5 / sqrt(40)"


def test_scores_of_two_reward_models_are_not_compared(both: tuple[Bench, Bench]) -> None:
    first, second = both
    second.files["reward"]["model/weights"] = "3"
    first.go()
    second.go()
    comparison = compared(first, second)
    reward = difference(comparison, "score/reward_model")
    assert reward.difference.value is None
    assert "not compared: the judges differ" in plain(comparison)
    assert difference(comparison, "length").difference.value == 0, "what needs no judge is compared"


def test_one_reward_model_in_both_runs_is_a_judge(both: tuple[Bench, Bench]) -> None:
    first, second = both
    second.files["reward"]["metrics.jsonl"] += lines({"step": 60, "seconds": 8.0})
    first.go()
    second.go()
    assert difference(compared(first, second), "score/reward_model").difference.value == 0


def test_a_judge_with_other_settings_is_another_judge(both: tuple[Bench, Bench]) -> None:
    first, second = both
    second.sets = (*second.sets, SCORERS % "two")
    first.go()
    second.go()
    comparison = compared(first, second)
    assert difference(comparison, "score/reward_model").difference.value == 0
    assert difference(comparison, "score/gold").difference.value is None


def test_runs_without_a_prompt_in_common(both: tuple[Bench, Bench]) -> None:
    first, second = both
    second.files["eval"]["answers.jsonl"] = answers(0.1, 0.2, prompts=500)
    first.go()
    second.go()
    assert "have answered no prompt in common" in plain(compared(first, second))


def test_a_run_without_results_is_said(both: tuple[Bench, Bench]) -> None:
    first, second = both
    first.go()
    second.go("ppo")
    comparison = compared(first, second)
    assert comparison.policies == ("PPO", None)
    assert comparison.against == ()
    text = plain(comparison)
    assert "other  no verdict yet" in text
    assert re.search("in other, .*eval is not run", text)
    assert "No difference is estimated" in text
    shutil.rmtree(first.run.stage("eval"))
    assert "results" not in plain(compared(first, second)).split("No difference")[0]


@pytest.mark.parametrize(
    "text", ["", "3", '{"measures": {"ppo": {"mean": 3, "length": {"value": "x"}}}, "trained": "ppo"}']
)
def test_results_of_another_form_are_no_error(both: tuple[Bench, Bench], text: str) -> None:
    first, second = both
    second.files["eval"] = {"results.json": text, "answers.jsonl": text}
    first.go()
    second.go()
    assert "no verdict" in plain(compared(first, second))


def test_three_runs_are_each_compared_with_the_first(bench: Bench) -> None:
    bench.go()
    benches = [bench]
    for name in ("second", "third"):
        shutil.copytree(bench.run.root, bench.run.root.with_name(name))
        benches.append(Bench(RunDir(bench.run.root.with_name(name)), bench.sets))
    comparison = compared(*benches)
    assert [entry.run for entry in comparison.against] == [1, 2]
    assert "No setting differs." in plain(comparison)
    assert all(len(estimates) == 3 for estimates in comparison.measures.values())


def test_the_command(
    both: tuple[Bench, Bench], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = both
    results: dict[str, Any] = json.loads(json.dumps(RESULTS))
    results["verdict"] = {"call": "\x1b[31mred", "sentence": "x"}
    second.files["eval"]["results.json"] = json.dumps(results)
    first.go()
    second.go()
    monkeypatch.chdir(first.run.root.parent.parent)
    assert rlhf(["compare", "runs/mine", "runs/other"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "⟨U+001B⟩[31mred" in out
    assert rlhf(["compare", "runs/mine", "runs/other", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"] == {"ppo.kl_coef": [0.05, 0.2]}
    assert [entry["policy"] for entry in told["runs"]] == ["PPO", "PPO"]
    (entry,) = told["differences"]
    assert entry["prompts"] == 31
    assert entry["measures"]["score/gold"]["wins"]["value"] == 0.5
    assert set(entry["measures"]["length"]) == {"value", "low", "high", "n"}
    assert told["measures"]["score/gold"][0]["value"] == 0.78
    assert rlhf(["compare", "runs/mine"]) == 2
    assert rlhf(["compare", "runs/mine", "runs/none"]) == 2
    assert not list(Path("runs").rglob("report.html")), "nothing is written"


def test_older_runs_can_be_compared(bench: Bench) -> None:
    """The manifest of an evaluation that recorded no scorers."""
    bench.go()
    path = bench.run.stage("eval") / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["section"]["scorers"], manifest["sha256"]
    path.write_text(json.dumps(manifest))
    config = load_config(None, bench.sets)
    run = read_run(config, bench.run)
    assert run.results
    comparison = compare([run, run], ["a", "b"])
    assert difference(comparison, "length").difference.value == 0
    gold = difference(comparison, "score/gold").difference
    assert (gold.value, gold.reason) == (None, "the manifest does not record the judge")


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([("a", "bb", "c"), ("aaa", "b"), ("日本", "x", "y")]) == ["a     bb  c", "aaa   b", "日本  x   y"]
