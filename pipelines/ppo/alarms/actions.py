"""Actions on alarms: the table from alarm to action, and the limits that keep a training from acting for ever.

Pure Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

from pipelines.ppo.alarms.alarms import Alarm
from pipelines.ppo.alarms.trends import LONG_WINDOW

MOST_RAISES = 2
"""Times that one alarm raises the KL coefficient; the next time the training goes back."""
MOST_RETURNS = 2
"""Times that a training goes back; the next time it stops."""
PATIENCE = LONG_WINDOW
"""Updates after which an alarm that raised the coefficient, and still holds, fires again."""
PROVEN_AFTER = LONG_WINDOW
"""Updates without an alarm after which a state is good: a fault shows up in means over as many updates at most."""
KL_COEF_FACTOR, LEAST_KL_COEF = 2.0, 0.05
"""By what the coefficient is raised, and what it is at least afterwards: 0 times two is 0."""
RATE_FACTOR = 0.5
"""By what both learning rates are lowered at every return, or the same steps would lead to the same place."""


class Action(IntEnum):
    """Reaction to an alarm, the mildest first."""

    NONE = 0
    RAISE_KL_COEF = 1
    GO_BACK = 2
    STOP = 3

    @property
    def word(self) -> str:
        """Name of the action in ``alarms.jsonl``."""
        return self.name.lower()


ACTIONS = {
    "kl_high": Action.RAISE_KL_COEF,
    "kl_negative": Action.STOP,
    "length_running_away": Action.GO_BACK,
    "length_collapsing": Action.GO_BACK,
    "finished_falling": Action.GO_BACK,
    "entropy_collapse": Action.RAISE_KL_COEF,
    "clip_fraction": Action.NONE,
    "explained_variance": Action.NONE,
    "score_with_length": Action.RAISE_KL_COEF,
    "scores_clipped": Action.NONE,
    "ratio_at_start": Action.STOP,
    "grad_norm": Action.NONE,
}
"""First action of every alarm.

A drift that the penalty can hold raises the coefficient; low entropy may also be that of a policy that has learned. A
policy that changed its kind of answer goes back. Rollouts that are not the policy's end the training: no setting that
moves in it would repair them. A value model that predicts nothing and scores at the bound slow learning down, but spoil
no policy; large steps and gradients are clipped, and where they spoil one, another alarm tells. Going back for these,
or for low entropy, made runs worse (benchmarks/results/2026-11-30-on-alarm.md)."""


@dataclass
class Actions:
    """Decisions of one training: what was done so far, and what the next alarms call for.

    Attributes:
        raises: number of times that each alarm raised the KL coefficient.
        waiting: update at which an alarm last raised it, of every alarm that may fire again.
        returns: number of times the training went back.
        returned: update after which it last went back, and the update it went back to.
        stopped: update after which an alarm stopped it; None: it goes on.
    """

    raises: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    returns: int = 0
    returned: tuple[int, int] | None = None
    stopped: int | None = None

    def due_again(self, update: int) -> list[str]:
        """Alarms that raised the coefficient `PATIENCE` updates ago; those that still hold are to fire again."""
        due = [name for name, at in self.waiting.items() if update - at >= PATIENCE]
        self.waiting = {name: at for name, at in self.waiting.items() if name not in due}
        return due

    def decide(self, update: int, alarms: Sequence[Alarm]) -> Action:
        """Return the one action that the alarms of an update call for, the strongest, and count it.

        Args:
            update: number of the update, counted from 1.
            alarms: alarms that fired with it.
        """
        called_for = {alarm.name: self._called_for(alarm.name) for alarm in alarms}
        action = max(called_for.values(), default=Action.NONE)
        if action is Action.RAISE_KL_COEF:
            for name in (name for name, each in called_for.items() if each is action):
                self.raises[name] = self.raises.get(name, 0) + 1
                self.waiting[name] = update
        elif action is Action.GO_BACK:
            self.returns += 1
            self.waiting = {}
        elif action is Action.STOP:
            self.stopped = update
        return action

    def _called_for(self, name: str) -> Action:
        action = ACTIONS[name]
        if action is Action.RAISE_KL_COEF and self.raises.get(name, 0) >= MOST_RAISES:
            action = Action.GO_BACK
        if action is Action.GO_BACK and self.returns >= MOST_RETURNS:
            action = Action.STOP
        return action

    def origin(self, update: int) -> int:
        """Return the update that made the policy of a training after `update`: an earlier one if it went back."""
        if self.returned is not None and self.returned[0] == update:
            return self.returned[1]
        return update

    @property
    def rate_factor(self) -> float:
        """Factor of both learning rates."""
        return RATE_FACTOR**self.returns

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.raises, self.waiting = dict(state["raises"]), dict(state["waiting"])
        self.returns, self.stopped = state["returns"], state["stopped"]
        self.returned = None if state["returned"] is None else (state["returned"][0], state["returned"][1])


def is_quiet(active: Sequence[str]) -> bool:
    """Whether none of the `active` alarms calls for an action."""
    return all(ACTIONS[name] is Action.NONE for name in active)
