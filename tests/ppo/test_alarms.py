"""The rules of the alarms on made-up metrics: figures, bounds, noise, firing once, resume."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from random import Random
from statistics import correlation

import pytest

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.alarms.alarm_rules import METRICS, RULES
from pipelines.ppo.alarms.alarms import Alarm, Alarms
from pipelines.ppo.alarms.trends import MetricSeries, RunningCorrelation

SETTINGS = PpoSection(rollout_batch_size=64, kl_limit=20.0)
QUIET = {
    "objective/kl": 1.0,
    "objective/scores": 0.5,
    "objective/scores_clipped": 0.0,
    "policy/clipfrac_avg": 0.05,
    "policy/entropy_avg": 2.0,
    "policy/grad_norm": 0.5,
    "val/explained_variance": 0.4,
    "val/finished": 0.9,
    "val/first_ratio_deviation": 1e-5,
    "val/grad_norm": 0.5,
    "val/response_length": 40.0,
}


def seen(metric: str, values: list[float], alarms: Alarms | None = None, start: int = 1) -> list[Alarm]:
    """What fires when one metric takes these values and the others stay quiet."""
    alarms = alarms or Alarms(SETTINGS)
    return [
        alarm
        for update, value in enumerate(values, start)
        for alarm in alarms.see(update, {**QUIET, metric: value, "update": update})
    ]


@pytest.mark.parametrize(
    ("name", "metric", "start", "within", "beyond", "at", "figures"),
    [
        ("kl_high", "objective/kl", 1.0, 19.9, 20.1, 14, "20.1 nats per response; ppo.kl_limit is 20"),
        ("kl_negative", "objective/kl", 0.0, -0.049, -0.06, 20, "-0.054 nats per response over 10 updates"),
        ("length_running_away", "val/response_length", 40.0, 79.0, 81.0, 16, "2 times as long as at the start (81 aga"),
        ("length_collapsing", "val/response_length", 40.0, 20.5, 19.5, 16, "0.49 times as long as at the start (19.5"),
        ("finished_falling", "val/finished", 0.9, 0.61, 0.59, 16, "59% against 90%"),
        ("entropy_collapse", "policy/entropy_avg", 2.1, 0.71, 0.69, 16, "0.33 times that of the start (0.69"),
        ("clip_fraction", "policy/clipfrac_avg", 0.3, 0.3, 0.31, 12, "30% of the tokens"),
        ("explained_variance", "val/explained_variance", 0.3, 0.06, 0.04, 21, "explained variance 0.04 over 10"),
        ("scores_clipped", "objective/scores_clipped", 0.1, 0.1, 0.11, 12, "10% of the scores"),
        ("ratio_at_start", "val/first_ratio_deviation", 0.0, 0.19, 0.21, 13, "a factor of up to 1.21"),
        ("grad_norm", "policy/grad_norm", 0.2, 1.9, 2.1, 14, "of the policy has grown from 0.2 to 2.1"),
        ("grad_norm", "val/grad_norm", 0.01, 0.9, 1.1, 14, "of the value model has grown from 0.01 to 1.1"),
    ],
)
def test_an_alarm_has_its_bound(
    name: str, metric: str, start: float, within: float, beyond: float, at: int, figures: str
) -> None:
    """Eleven updates at the start; from then on just within the bound, or just beyond it."""
    assert seen(metric, [start] * 11 + [within] * 30) == []
    (alarm,) = seen(metric, [start] * 11 + [beyond] * 30)
    assert alarm.name == name
    assert figures in alarm.message
    assert at <= alarm.update <= at + 1  # exact but for rounding of means


def test_one_wild_update_is_no_alarm() -> None:
    wild = {
        "objective/kl": 40.0,
        "objective/scores": 9.0,
        "objective/scores_clipped": 0.4,
        "policy/clipfrac_avg": 0.9,
        "policy/entropy_avg": 0.1,
        "policy/grad_norm": 99.0,
        "val/explained_variance": -3.0,
        "val/finished": 0.2,
        "val/first_ratio_deviation": 9.0,
        "val/grad_norm": 99.0,
        "val/response_length": 120.0,
    }
    assert wild.keys() == QUIET.keys() == set(METRICS)
    for metric, value in wild.items():
        assert seen(metric, [QUIET[metric]] * 30 + [value] + [QUIET[metric]] * 30) == []


def length_and_score(update: int, *, longer: float, better: float) -> dict[str, float]:
    share = min(update, 40) / 40
    wobble = (-1) ** update
    return {
        **QUIET,
        "val/response_length": 40 + share * longer + wobble,
        "objective/scores": share * better + 0.02 * wobble,
    }


@pytest.mark.parametrize(
    ("longer", "better", "fires"), [(20.0, 1.0, True), (20.0, 0.0, False), (20.0, -1.0, False), (10.0, 1.0, False)]
)
def test_score_with_length_needs_both(longer: float, better: float, fires: bool) -> None:
    alarms = Alarms(SETTINGS)
    fired = [
        alarm
        for update in range(1, 60)
        for alarm in alarms.see(update, length_and_score(update, longer=longer, better=better))
    ]
    assert [alarm.name for alarm in fired] == ["score_with_length"] * fires
    if fires:
        assert re.search(
            r"score 0\.\d\d against 0\.0\d, length 5\d against 41 tokens, correlation 0\.9", fired[0].message
        )


def test_growth_before_the_score_rises_does_not_count() -> None:
    """Both end higher, but not together: the length rises first and falls back half the way while the score rises."""
    alarms = Alarms(SETTINGS)
    fired: list[str] = []
    for update in range(1, 101):
        length = 40 + (update if update <= 50 else 90 - 0.6 * (update - 10))
        line = {**QUIET, "val/response_length": min(length, 79), "objective/scores": max(0.0, (update - 60) / 40)}
        fired += [alarm.name for alarm in alarms.see(update, line)]
    assert fired == []


def test_length_that_goes_on_while_the_score_falls_back_does_not_count() -> None:
    alarms = Alarms(SETTINGS)
    fired: list[Alarm] = []
    for update in range(1, 1009):
        share = update / 1000
        length, score = (60.0 if update > 1000 else 40 + 13 * share), (share if update <= 992 else 0.0)
        fired += alarms.see(update, {**QUIET, "val/response_length": length, "objective/scores": score})
    assert fired == []


def test_too_few_updates_are_not_compared() -> None:
    assert seen("val/response_length", [40.0] * 3 + [90.0] * 4) == []


def test_a_kl_estimate_that_scatters_around_zero_is_quiet() -> None:
    assert seen("objective/kl", [-0.5, 0.3] * 20) == []


def test_noise_alone_is_quiet() -> None:
    """Ten runs of 200 updates of 32 rows; lengths vary as in real answers, by as much as their mean."""
    fired = []
    for seed in range(10):
        draw, alarms = Random(seed), Alarms(PpoSection(rollout_batch_size=32))
        for update in range(1, 201):
            lengths = [1 + draw.expovariate(1 / 30) for _ in range(32)]
            line = {
                "objective/kl": draw.gauss(0.02, 0.04),
                "objective/scores": draw.gauss(0, 0.2) + 0.02 * sum(lengths) / 32,
                "objective/scores_clipped": 0.0,
                "policy/clipfrac_avg": abs(draw.gauss(0.1, 0.1)),
                "policy/entropy_avg": draw.gauss(2, 0.3),
                "policy/grad_norm": draw.lognormvariate(0, 0.5),
                "val/explained_variance": draw.gauss(0.2, 0.2),
                "val/finished": sum(draw.random() < 0.5 for _ in range(32)) / 32,
                "val/first_ratio_deviation": min(0.15, abs(draw.gauss(0.05, 0.05))),
                "val/grad_norm": draw.lognormvariate(0, 0.7),
                "val/response_length": sum(lengths) / 32,
            }
            fired += alarms.see(update, line)
    assert fired == []


def test_an_alarm_fires_once_and_again_only_after_it_had_cleared() -> None:
    alarms = Alarms(SETTINGS)
    high, low = [30.0] * 10, [1.0] * 10
    assert [alarm.update for alarm in seen("objective/kl", high, alarms)] == [1]
    # away for three updates only: the mean of three is below the limit for fewer than five
    assert seen("objective/kl", [1.0] * 3 + high, alarms, start=11) == []
    assert seen("objective/kl", low, alarms, start=24) == []
    (again,) = seen("objective/kl", high, alarms, start=34)
    assert again.update == 35  # the mean of three: 1, 30, 30


def test_a_resumed_run_has_the_same_alarms() -> None:
    lines = [
        length_and_score(update, longer=50.0, better=1.0) | {"objective/kl": 30.0 * (10 < update < 20 or update > 40)}
        for update in range(1, 60)
    ]
    whole = Alarms(SETTINGS)
    expected = [alarm for update, line in enumerate(lines, 1) for alarm in whole.see(update, line)]
    assert [alarm.name for alarm in expected] == ["kl_high", "score_with_length", "length_running_away", "kl_high"]
    state, got = json.dumps(Alarms(SETTINGS).state_dict()), []
    for update, line in enumerate(lines, 1):
        resumed = Alarms(SETTINGS)
        resumed.load_state_dict(json.loads(state))
        got += resumed.see(update, line)
        state = json.dumps(resumed.state_dict())
    assert got == expected
    assert len(state) < 10_000  # whatever the length of the run


def test_a_policy_that_waits_has_no_gradient_to_compare_with() -> None:
    assert seen("policy/grad_norm", [0.0] * 10 + [1.5] * 20) == []


def test_a_metric_that_is_not_there_is_an_error_and_not_silence() -> None:
    for metric in METRICS:
        with pytest.raises(KeyError, match=metric):
            Alarms(SETTINGS).see(1, {name: value for name, value in QUIET.items() if name != metric})


def test_hints_name_options_that_exist() -> None:
    named = {option for rule in RULES for option in re.findall(r"ppo\.(\w+)", rule.hint)}
    assert len(named) > 5
    assert named <= PpoSection.model_fields.keys()


def test_correlation_is_pearsons() -> None:
    draw, pair = Random(0), RunningCorrelation()
    x = [draw.gauss(1000, 3) for _ in range(50)]
    y = [0.5 * value + draw.gauss(0, 2) for value in x]
    assert pair.correlation == 0.0
    for both in zip(x, y, strict=True):
        pair.add(*both)
    assert pair.correlation == pytest.approx(correlation(x, y))


def test_a_rise_is_measured_by_the_noise_between_neighbors() -> None:
    flat, jump = MetricSeries(), MetricSeries()
    draw = Random(1)
    for update in range(30):
        flat.add(draw.gauss(5, 1))
        jump.add(draw.gauss(5, 1) if update < 1 else draw.gauss(25, 1))
    assert abs(flat.rise()) < 3
    assert jump.rise() > 5  # one jump is no noise
    assert flat.level() == pytest.approx(5, abs=1.5)


def test_alarms_never_import_torch() -> None:
    code = "import sys, pipelines.ppo.alarms.alarms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_updates_that_learned_nothing_measure_nothing() -> None:
    """All responses were masked: entropy, clip fraction and their like are 0 because there was no token."""
    nothing = {"val/optimizer_steps": 0.0, "policy/entropy_avg": 0.0, "val/explained_variance": 0.0}
    alarms = Alarms(SETTINGS)
    for update in range(1, 41):
        learned = update > 3 and update % 5 == 0
        assert alarms.see(update, {**QUIET, "val/optimizer_steps": 4.0} if learned else {**QUIET, **nothing}) == []
