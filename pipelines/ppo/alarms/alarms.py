"""Alarms on the metrics of a PPO training, which show a fault long before the answers do. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.alarms.alarm_rules import RULES, History, Rule
from pipelines.ppo.alarms.trends import MetricSeries, RunningCorrelation

CLEAR_AFTER = 5
"""Updates in a row without its condition after which an alarm may fire again."""


@dataclass(frozen=True)
class Alarm:
    """Warning that one rule gives at one update.

    Attributes:
        name: name of the rule, such as ``length_running_away``.
        update: number of the update at which it fired, counted from 1.
        message: the condition, with the figures.
        hint: what to do, with the names of options.
    """

    name: str
    update: int
    message: str
    hint: str


class Alarms:
    """Watches the metrics of a run. An alarm fires once, and again only after `CLEAR_AFTER` clear updates."""

    def __init__(self, settings: PpoSection) -> None:
        self._history = History(
            settings.rollout_batch_size, settings.kl_limit, settings.max_grad_norm, settings.has_value_model
        )
        self._clear_updates: dict[str, int] = {}  # of each active alarm: in a row, without its condition

    def see(self, update: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Check the metrics of one update.

        Args:
            update: number of the update, counted from 1; updates come in order, none left out.
            metrics: as `update_metrics` names them.

        Returns:
            The alarms that fire with this update.

        Raises:
            KeyError: a metric that a rule needs is missing.
        """
        self._history.add(metrics)
        return [alarm for rule in RULES if (alarm := self._check(rule, update))]

    @property
    def active(self) -> list[str]:
        """Names of the alarms that fired and have not cleared since."""
        return list(self._clear_updates)

    def rearm(self, name: str) -> None:
        """Let an active alarm fire again at the next update at which its condition holds."""
        self._clear_updates.pop(name, None)

    def _check(self, rule: Rule, update: int) -> Alarm | None:
        message = rule.check(self._history)
        active = rule.name in self._clear_updates
        if message is not None:
            self._clear_updates[rule.name] = 0
            return None if active else Alarm(rule.name, update, message, rule.hint)
        if active:
            self._clear_updates[rule.name] += 1
            if self._clear_updates[rule.name] >= CLEAR_AFTER:
                del self._clear_updates[rule.name]
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics so far and the active alarms, as JSON holds them."""
        return {
            "series": {name: asdict(series) for name, series in self._history.series.items()},
            "score_and_length": asdict(self._history.score_and_length),
            "on": dict(self._clear_updates),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._history.series |= {name: MetricSeries(**series) for name, series in state["series"].items()}
        self._history.score_and_length = RunningCorrelation(**state["score_and_length"])
        self._clear_updates = dict(state["on"])
