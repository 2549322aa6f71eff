"""The verdict: who decides, and that what PPO optimized cannot say better."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config.scorer_section import ScorerSection
from pipelines.evaluate.conclusion import role_of, verdict_of

NAMES = {"sft": "SFT", "ppo": "PPO"}


def scorer(**values: Any) -> ScorerSection:
    return ScorerSection.model_validate(values)


@pytest.mark.parametrize(
    ("judge", "reward", "role"),
    [
        ({"kind": "run"}, {"kind": "run"}, "optimized"),
        ({"kind": "gold"}, {"kind": "run"}, "independent"),
        ({"kind": "gold"}, {"kind": "gold"}, "optimized"),
        ({"kind": "judge"}, {"kind": "run"}, "independent"),
        ({"kind": "classifier", "path": "a"}, {"kind": "classifier", "path": "b"}, "independent"),
        ({"kind": "classifier", "path": "a", "label": 1}, {"kind": "classifier", "path": "a"}, "optimized"),
        ({"kind": "run"}, {"kind": "sum", "parts": [{"kind": "run"}, {"kind": "repetition"}]}, "optimized"),
        ({"kind": "sum", "parts": [{"kind": "run"}, {"kind": "gold"}]}, {"kind": "run"}, "optimized"),
        ({"kind": "length", "target": 5}, {"kind": "run"}, "rule"),
        ({"kind": "length", "target": 5}, {"kind": "length", "target": 5}, "optimized"),
        ({"kind": "sum", "parts": [{"kind": "repetition"}]}, {"kind": "run"}, "rule"),
    ],
)
def test_the_role_of_a_scorer(judge: dict[str, Any], reward: dict[str, Any], role: str) -> None:
    assert role_of(scorer(**judge), scorer(**reward)) == role


WON, EVEN, LOST = (0.7, 0.64, 0.76), (0.51, 0.44, 0.58), (0.3, 0.24, 0.36)


def results(**rates: tuple[float, float, float]) -> dict[str, Any]:
    """Win rates of PPO by the name of the scorer, whose kind and role it tells."""
    roles = {"reward_model": "optimized", "length": "rule"}
    return {
        "baseline": "sft",
        "trained": "ppo",
        "scorers": [{"name": name, "kind": name, "role": roles.get(name, "independent")} for name in rates],
        "measures": {
            "sft": {},
            "ppo": {
                "win_rate": {
                    name: dict(zip(("value", "low", "high", "n"), (*rate, 200), strict=True))
                    for name, rate in rates.items()
                }
            },
        },
    }


@pytest.mark.parametrize(
    ("rates", "call", "scorer"),
    [
        ({"reward_model": WON, "gold": WON}, "better", "gold"),
        ({"reward_model": WON, "gold": EVEN}, "no detectable difference", "gold"),
        ({"reward_model": WON, "gold": LOST}, "over-optimized", "gold"),
        ({"reward_model": EVEN, "gold": LOST}, "worse", "gold"),
        ({"reward_model": WON, "judge": WON, "gold": EVEN}, "no detectable difference", "gold"),
        ({"http": EVEN, "judge": WON, "reward_model": WON}, "better", "judge"),
        ({"reward_model": WON, "http": WON}, "better", "http"),
        ({"reward_model": WON}, "not judged", "reward_model"),
        ({"reward_model": EVEN}, "no detectable difference", "reward_model"),
        ({"reward_model": LOST, "length": WON}, "worse", "reward_model"),
        ({"length": WON}, "not judged", None),
    ],
)
def test_the_call(rates: dict[str, Any], call: str, scorer: str | None) -> None:
    verdict = verdict_of(results(**rates), NAMES)
    assert verdict is not None
    assert (verdict["call"], verdict["scorer"]) == (call, scorer)
    assert verdict["independent"] is (scorer in ("gold", "judge", "http"))
    assert len(verdict["opinions"]) == len(rates.keys() - {"length"})
    if verdict["independent"]:
        assert verdict["sentence"].startswith(call)
    elif scorer:
        assert verdict["sentence"].startswith("judged by what it was trained on")


def test_the_sentence_holds_the_figure() -> None:
    verdict = verdict_of(results(reward_model=WON, judge=LOST), NAMES)
    assert verdict is not None
    assert verdict["sentence"] == (
        "over-optimized: judge prefers PPO's answers to SFT's on 30 % [24, 36] of 200 prompts, while the reward that "
        "PPO optimized rose"
    )


@pytest.mark.parametrize(
    ("judge", "unlike", "call"),
    [
        ("judge", 0.2, "better"),
        ("judge", 0.6, "not judged"),
        ("classifier", 0.6, "not judged"),
        ("gold", 0.9, "better"),
    ],
)
def test_a_judge_that_learned_cannot_praise_answers_unlike_all_it_knows(judge: str, unlike: float, call: str) -> None:
    told = results(reward_model=WON, **{judge: WON})
    told["measures"]["ppo"]["unlike"] = {"value": unlike}
    verdict = verdict_of(told, NAMES)
    assert verdict is not None
    assert verdict["call"] == call
    assert ("60% of them are unlike SFT's" in verdict["sentence"]) is (call == "not judged")


def test_a_language_model_decides_before_the_judge_and_after_gold() -> None:
    reader = {"name": "reader", "win_rate": dict(zip(("value", "low", "high", "n"), (*LOST, 80), strict=True))}
    told = results(reward_model=WON, judge=WON) | {"language_model": reader}
    verdict = verdict_of(told, NAMES)
    assert verdict is not None
    assert (verdict["call"], verdict["scorer"]) == ("over-optimized", "reader")
    assert (verdict_of(results(reward_model=WON, gold=WON) | {"language_model": reader}, NAMES) or {})[
        "scorer"
    ] == "gold"


def test_nothing_trained_has_no_verdict() -> None:
    assert verdict_of(results(gold=WON) | {"trained": None}, NAMES) is None
