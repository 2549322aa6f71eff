"""Alarms: what goes wrong in PPO shows in the metrics long before it shows in the answers. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.alarms.alarm_rules import RULES, History, Rule
from pipelines.ppo.alarms.trends import Series, Together

CLEAR_AFTER = 5
"""Updates in a row without its condition after which an alarm may fire again."""


@dataclass(frozen=True)
class Alarm:
    """Something that a person should look at.

    Attributes:
        name: of the rule, as ``length_running_away``.
        update: at which it fired, counted from 1.
        message: what is seen, with the figures.
        hint: what to do, with the names of options.
    """

    name: str
    update: int
    message: str
    hint: str


class Alarms:
    """Watches the metrics of a run. An alarm fires once, and again only after its condition was away for a while."""

    def __init__(self, settings: PpoSection) -> None:
        self._seen = History(settings.rollout_batch_size, settings.kl_limit, settings.max_grad_norm)
        self._away: dict[str, int] = {}  # of each alarm that is on: updates in a row without its condition

    def see(self, update: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Take in the metrics of one update.

        Args:
            update: counted from 1; every update is shown, in order.
            metrics: as `update_metrics` names them.

        Returns:
            The alarms that fire with this update.

        Raises:
            KeyError: a metric that a rule needs is not there.
        """
        self._seen.add(metrics)
        return [alarm for rule in RULES if (alarm := self._check(rule, update))]

    def _check(self, rule: Rule, update: int) -> Alarm | None:
        message = rule.found(self._seen)
        on = rule.name in self._away
        if message is not None:
            self._away[rule.name] = 0
            return None if on else Alarm(rule.name, update, message, rule.hint)
        if on:
            self._away[rule.name] += 1
            if self._away[rule.name] >= CLEAR_AFTER:
                del self._away[rule.name]
        return None

    def state_dict(self) -> dict[str, Any]:
        """What has been seen, as JSON holds it."""
        return {
            "series": {name: asdict(series) for name, series in self._seen.series.items()},
            "score_and_length": asdict(self._seen.score_and_length),
            "on": dict(self._away),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._seen.series |= {name: Series(**series) for name, series in state["series"].items()}
        self._seen.score_and_length = Together(**state["score_and_length"])
        self._away = dict(state["on"])
