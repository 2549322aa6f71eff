"""The frontier of a training: what the answers on the way were worth, and where a judge's score turned down."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.chat import ChatEncoder
from pipelines.evaluate.conclusion import verdict_of
from pipelines.evaluate.frontier import FILE, Trail, frontier_of, turn_of
from pipelines.evaluate.results_table import markdown, plain
from pipelines.run.manifest import Manifest
from tests.evaluate.test_conclusion import EVEN, LOST, NAMES, WON, results
from tests.evaluate.test_results_table import RESULTS
from tests.tiny import tiny_tokenizer


def scores(mean: float, seed: int, n: int = 60) -> list[float]:
    rng = random.Random(seed)
    return [mean + rng.gauss(0, 0.3) for _ in range(n)]


RISING = {0: scores(0, 1), 10: scores(1, 2), 20: scores(2, 3), 30: scores(3, 4)}


@pytest.mark.parametrize(
    ("means", "turn"),
    [
        ((0.0, 1.0, 2.0, 3.0), None),
        ((0.0, 2.0, 1.0, 0.5), 10),
        ((0.0, 1.0, 1.0, 0.99), None),  # no detectable fall
        ((1.0, 0.5, 0.2, 0.1), 0),
    ],
)
def test_the_turn_is_the_last_best_update(means: tuple[float, ...], turn: int | None) -> None:
    judged = {update: scores(mean, 9 + update) for update, mean in zip(RISING, means, strict=True)}
    found = turn_of(30, RISING, judged, 500)
    assert (found and found["update"]) == turn
    if found:
        assert found["difference"]["high"] < 0


def test_a_fall_of_both_is_no_over_optimization_and_the_published_policy_counts() -> None:
    judged = {update: scores(mean, update) for update, mean in zip(RISING, (0.0, 2.0, 1.0, 0.5), strict=True)}
    falling = {update: scores(-update, update) for update in RISING}
    assert turn_of(30, falling, judged, 500) is None
    assert turn_of(10, RISING, judged, 500) is None, "the best of the held-out prompts was published"
    assert turn_of(0, RISING, judged, 500) is None


def test_a_small_loss_is_no_turn_however_sure() -> None:
    judged = {update: [mean] * 50 for update, mean in ((0, 0.0), (10, 1.0), (20, 2.0), (30, 1.85))}
    assert turn_of(30, RISING, judged, 500) is None
    turn = turn_of(30, RISING, judged | {30: [1.75] * 50}, 500)
    assert turn is not None
    assert turn["update"] == 20


def test_a_turn_makes_the_call_and_its_sentence() -> None:
    turn = {"update": 10, "difference": {"value": -0.2, "low": -0.3, "high": -0.1, "n": 60}}
    for rate in (WON, EVEN, LOST):
        told = results(reward_model=WON, gold=rate) | {"frontier": {"turns": {"gold": turn, "judge": turn}}}
        verdict = verdict_of(told, NAMES)
        assert verdict is not None
        assert verdict["call"] == "over-optimized"
        assert "its score has changed by -.20 [-.30, -.10] since update 10" in verdict["sentence"]
    other = results(reward_model=WON, gold=WON) | {"frontier": {"turns": {"judge": turn}}}
    assert (verdict_of(other, NAMES) or {})["call"] == "better", "gold saw no turn"


def write_trail(stage: Path, updates: range, *, published: int) -> None:
    stage.mkdir()
    with (stage / FILE).open("w") as file:
        for update in updates:
            for place in range(3):
                prompt = [{"role": "user", "content": f"prompt {place}"}]
                row = {"update": update, "prompt": prompt, "ids": [10 + place, 11], "finished": place > 0}
                file.write(json.dumps(row | {"score": update + place, "kl": 0.1 * update}) + "\n")
    empty: dict[str, Any] = {}
    notes = {"published_update": published}
    Manifest("ppo", "", empty, {}, [], {}, 0, {}, None, "", 0.0, 0, notes).write(stage)


def test_the_trail_is_read_as_it_was_written(tmp_path: Path) -> None:
    encoder = ChatEncoder(tiny_tokenizer())
    write_trail(tmp_path / "ppo", range(0, 9, 4), published=4)
    trail = Trail.read(tmp_path / "ppo", encoder)
    assert trail is not None
    assert (list(trail.answers), trail.published) == ([0, 4, 8], 4)
    assert trail.optimized[4] == [4.0, 5.0, 6.0]
    assert [answer.ids for answer in trail.answers[8]] == [(10, 11), (11, 11), (12, 11)]
    assert [answer.finished for answer in trail.answers[0]] == [False, True, True]
    frontier = frontier_of(trail, {"gold": trail.optimized}, 100)
    assert [point["optimized"]["value"] for point in frontier["points"]] == [1.0, 5.0, 9.0]
    assert [point["kl"]["value"] for point in frontier["points"]] == pytest.approx([0.0, 0.4, 0.8])
    assert (frontier["prompts"], frontier["published"], frontier["turns"]) == (3, 4, {})


def test_a_training_without_a_trail_has_no_frontier(tmp_path: Path) -> None:
    encoder = ChatEncoder(tiny_tokenizer())
    (tmp_path / "older").mkdir()
    assert Trail.read(tmp_path / "older", encoder) is None
    write_trail(tmp_path / "short", range(1), published=0)
    assert Trail.read(tmp_path / "short", encoder) is None


def test_the_tables_show_it(tmp_path: Path) -> None:
    write_trail(tmp_path / "ppo", range(0, 9, 4), published=8)
    trail = Trail.read(tmp_path / "ppo", ChatEncoder(tiny_tokenizer()))
    assert trail is not None
    told = RESULTS | {"frontier": frontier_of(trail, {"go|ld": trail.optimized}, 100)}
    assert "8 (published)" in plain(told, [])
    assert "| update | KL, nats | optimized reward | go\\|ld |" in markdown(told, [])
