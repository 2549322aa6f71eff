"""Actions on alarms: the table, its limits, the last good state, and trainings that act."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo import good_state
from pipelines.ppo.alarms import alarms
from pipelines.ppo.alarms.actions import ACTIONS, MOST_RAISES, MOST_RETURNS, PATIENCE, PROVEN_AFTER, Action, Actions
from pipelines.ppo.alarms.alarm_rules import RULES, History, Rule
from pipelines.ppo.alarms.alarms import Alarm
from pipelines.ppo.good_state import GoodState
from pipelines.ppo.normalization import Normalizer
from pipelines.run.manifest import Manifest
from tests.ppo.alarm_runs import BROKEN, training_of
from tests.ppo.test_ppo_resume import LORA, settings
from tests.trainers.test_trainer_resume import Interrupter, Killed, go, kill, result, went_on


def alarm(name: str) -> Alarm:
    return Alarm(name, 1, "message", "hint")


def decided(state: Actions, update: int, *names: str) -> Action:
    return state.decide(update, [alarm(name) for name in names])


def test_every_alarm_has_an_action() -> None:
    assert list(ACTIONS) == [rule.name for rule in RULES]


def test_the_strongest_action_is_done() -> None:
    assert decided(Actions(), 1) is Action.NONE
    assert decided(Actions(), 1, "explained_variance") is Action.NONE
    assert decided(Actions(), 1, "explained_variance", "kl_high") is Action.RAISE_KL_COEF
    assert decided(Actions(), 1, "finished_falling", "kl_high") is Action.GO_BACK
    assert decided(Actions(), 1, "kl_high", "kl_negative", "finished_falling") is Action.STOP


def test_an_alarm_that_was_not_helped_gets_a_stronger_action() -> None:
    state = Actions()
    assert [decided(state, update, "kl_high") for update in range(1, MOST_RAISES + 1)] == [
        Action.RAISE_KL_COEF
    ] * MOST_RAISES
    assert decided(state, 9, "score_with_length") is Action.RAISE_KL_COEF, "each alarm has its own count"
    assert [decided(state, update, "kl_high") for update in range(10, 10 + MOST_RETURNS)] == [
        Action.GO_BACK
    ] * MOST_RETURNS
    assert state.stopped is None
    assert decided(state, 20, "kl_high") is Action.STOP
    assert state.stopped == 20


def test_whatever_fires_the_actions_come_to_an_end() -> None:
    for seed in range(20):
        draw, state, acted = Random(seed), Actions(), 0
        for update in range(1, 10_000):
            acted += decided(state, update, draw.choice(list(ACTIONS))) is not Action.NONE
            if state.stopped is not None:
                break
        assert state.stopped is not None
        assert acted <= 2 * MOST_RAISES + MOST_RETURNS + 1


def test_an_alarm_fires_again_only_if_it_raised_the_coefficient_and_after_a_while() -> None:
    state = Actions()
    decided(state, 5, "kl_high", "explained_variance")
    assert state.due_again(5 + PATIENCE - 1) == []
    assert state.due_again(5 + PATIENCE) == ["kl_high"]
    assert state.due_again(5 + 2 * PATIENCE) == [], "once"
    decided(state, 50, "kl_high")
    decided(state, 51, "finished_falling")
    assert state.due_again(50 + PATIENCE) == [], "the training went back"


def test_the_decisions_go_on_after_a_resume() -> None:
    state = Actions()
    decided(state, 3, "kl_high")
    decided(state, 7, "finished_falling")
    decided(state, 8, "score_with_length")
    state.returned = (7, 2)
    later = Actions()
    later.load_state_dict(json.loads(json.dumps(state.state_dict())))
    assert later == state
    assert (later.origin(7), later.origin(8), later.rate_factor) == (2, 8, 0.5)


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def trained_with_adam() -> tuple[Holder, torch.optim.Optimizer, Callable[[], None]]:
    module = Holder()
    optimizer = torch.optim.AdamW([module.weight], lr=0.1)

    def step() -> None:
        module.weight.grad = module.weight.detach() ** 2 - torch.tensor([1.0, -2.0, 3.0])
        optimizer.step()

    return module, optimizer, step


def test_a_state_is_good_once_enough_quiet_updates_came_after_it() -> None:
    module, optimizer, step = trained_with_adam()
    good = GoodState(module, {"optimizer": optimizer})
    good.begin()
    weights = {}
    for update in range(1, 2 * PROVEN_AFTER + 4):
        step()
        weights[update] = module.weight.detach().clone()
        good.see(update, quiet=update != 2)  # the trial that began at 1 ends, and another begins at 3
        assert good.update == (0 if update < 3 + PROVEN_AFTER else 3 if update < 3 + 2 * PROVEN_AFTER else 13)
    assert good.restore() == 13
    assert torch.equal(module.weight, weights[13])


def test_the_same_state_can_be_gone_back_to_again() -> None:
    """What is trained after a return, Adam's moments too, does not touch the copy."""
    module, optimizer, step = trained_with_adam()
    step()
    good = GoodState(module, {"optimizer": optimizer})
    good.begin()
    roads = []
    for _ in range(3):
        for _ in range(4):
            step()
        roads.append(module.weight.detach().clone())
        good.restore()
    assert torch.equal(roads[0], roads[1])
    assert torch.equal(roads[0], roads[2])


def lines_of(name: str, updates: int, **changes: Any) -> tuple[dict[str, list[dict[str, Any]]], Any]:
    """The log lines of a broken run that acts, by the name of the log, and the training."""
    logs: dict[str, list[dict[str, Any]]] = {}

    def log(kind: str, values: Mapping[str, Any]) -> None:
        logs.setdefault(kind, []).append(dict(values))

    training = training_of(BROKEN[name], updates=updates, log=log, on_alarm="act", **changes)
    training.run()
    return logs, training


def test_a_high_kl_raises_the_coefficient() -> None:
    logs, training = lines_of("kl_high", 8, learning_rate=3e-3, kl_limit=1.0)
    first = next(line for line in logs["alarms"] if line["name"] == "kl_high")
    assert first["action"] == "raise_kl_coef"
    assert first["done"] == "kl_coef was raised from 0 to 0.05"
    coefs = {line["update"]: line["objective/kl_coef"] for line in logs["metrics"]}
    assert (coefs[first["update"]], coefs[first["update"] + 1]) == (0.0, 0.05)
    assert training.actions.stopped is None


def test_a_policy_that_collapses_goes_back_and_stops_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[dict[str, Any]] = []
    monkeypatch.setattr(Normalizer, "load_state_dict", lambda self, state: scales.append(state))
    logs, training = lines_of("entropy_collapse", 40, lr_scheduler_type="constant", warmup_updates=0)
    acted = {line["update"]: line for line in logs["alarms"] if line["action"] != "none"}
    assert [line["action"] for line in acted.values()] == ["go_back"] * MOST_RETURNS + ["stop"]
    rates = {line["update"]: line["lr"] for line in logs["metrics"]}
    first, *_, last = acted
    assert acted[first]["done"].startswith("went back to the state after update 0, with half the learning rates; ")
    assert (rates[1], rates[first], rates[first + 1]) == (1.0, 1.0, 0.5)
    assert (training.last_update, max(rates), rates[last]) == (last, last, 0.25)
    assert [state["count"] for state in scales] == [0, 0, 0], "the scale of the scores goes back too"
    at_start = training_of(BROKEN["entropy_collapse"], updates=1, log=lambda *line: None).policy_weights()
    for name, weights in training.policy_weights().items():
        assert torch.equal(weights, at_start[name]), name


def test_rollouts_of_another_policy_stop_the_training() -> None:
    logs, training = lines_of("ratio_at_start", 10)
    assert [line["action"] for line in logs["alarms"] if line["name"] == "ratio_at_start"] == ["stop"]
    assert training.last_update == training.actions.stopped == logs["metrics"][-1]["update"] < 10


def fires_at(**counts: int) -> tuple[Rule, ...]:
    """Rules that fire where the alarms have seen so many updates since the start, or since the state gone back to."""

    def check(count: int) -> Callable[[History], str | None]:
        return lambda history: "now" if history["objective/kl"].count == count else None

    return tuple(Rule(name, check(count), "hint") for name, count in counts.items())


CASES: dict[str, tuple[dict[str, int], dict[int, str], int]] = {
    "raise": ({"kl_high": 3}, {3: "raise_kl_coef"}, 6),
    "back": ({"finished_falling": 4}, {4: "go_back", 6: "go_back"}, 2),
    "stop": ({"explained_variance": 2, "kl_negative": 5}, {2: "none", 5: "stop"}, 3),
}
"""Counts at which alarms fire, actions by update, and the update whose policy is published."""


@pytest.mark.parametrize("case", CASES)
def test_killed_before_and_after_an_action_it_is_the_same_to_the_byte(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, expected, published = CASES[case]
    monkeypatch.setattr(alarms, "RULES", fires_at(**counts))
    monkeypatch.setattr(good_state, "PROVEN_AFTER", 1)
    go(tmp_path / "never", settings(tmp_path, LORA, on_alarm="act"), "ppo")
    never = result(tmp_path / "never", "ppo")
    lines = [json.loads(line) for line in never["files"]["alarms.jsonl"].splitlines()]
    assert {line["update"]: line["action"] for line in lines} == expected
    manifest = Manifest.read(tmp_path / "never" / "ppo")
    assert manifest is not None
    assert manifest.notes["published_update"] == published
    assert manifest.notes.get("stopped_after_update") == (5 if case == "stop" else None)
    if case == "back":
        heldout = {line["update"]: line for line in map(json.loads, never["files"]["heldout.jsonl"].splitlines())}
        assert len({heldout[update]["eval/kl"] for update in (2, 4, 6)}) == 1, "the policy that goes on answers"
        assert manifest.notes["best"]["update"] not in (4, 6), "a policy is named by the update that made it"

    often = settings(tmp_path, LORA, on_alarm="act", save_steps=2)
    for updates, resumed in ((3, []), (1, ["update 2"]), (2, ["update 2"]), (1, ["update 4"])):
        reporter = Interrupter(updates, kill)
        with pytest.raises(Killed):
            go(tmp_path / "killed", often, "ppo", reporter)
        assert went_on(reporter.said) == resumed
    last = Interrupter()
    go(tmp_path / "killed", often, "ppo", last)
    assert result(tmp_path / "killed", "ppo") == never
    if case == "stop":
        assert any("an alarm stopped it after update 5 of 6: the policy after update 3" in line for line in last.said)


def test_acting_is_another_training_and_warning_the_one_of_before() -> None:
    assert "on_alarm" not in PpoSection().results_view()
    assert PpoSection(on_alarm="act").results_view()["on_alarm"] == "act"
