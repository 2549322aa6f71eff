"""Every alarm goes off in a real PPO run that is broken in its way, and none in healthy ones."""

from __future__ import annotations

import pytest

from pipelines.ppo.alarms.alarm_rules import RULES
from tests.ppo.alarm_runs import BROKEN, HEALTHY, alarms_of


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_sets_off_its_alarm(name: str) -> None:
    fired = alarms_of(BROKEN[name], until=name)
    assert name in [alarm.name for alarm in fired]


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_run_sets_off_none(seed: int) -> None:
    assert alarms_of(HEALTHY, seed) == []


def test_every_alarm_has_a_run() -> None:
    assert [rule.name for rule in RULES] == list(BROKEN)
