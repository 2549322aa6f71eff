"""Metrics of an update over all processes, and the ones that the manifest keeps of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pipelines.ppo.objective import Reduce, alone, explained_variance, k1, k3, masked_mean, masked_sum
from pipelines.ppo.rollout import Timing
from pipelines.ppo.types import Rollout, Update


def update_metrics(
    rollout: Rollout, result: Update, kl_coef: float, timing: Timing, seconds: float, reduce: Reduce = alone
) -> dict[str, float]:
    """Return one line of metrics over all processes, under the names that TRL's PPO used.

    Those of the value model are left out where there is none.

    Args:
        rollout: rows of this process.
        result: result of the update made with it.
        kl_coef: weight of the KL in its rewards.
        timing: seconds of the rollout on this process.
        seconds: seconds of the whole update on this process.
        reduce: sums over all processes.
    """
    mask = rollout.response_mask
    kl = k1(rollout.logprobs, rollout.ref_logprobs)
    rows, kl_sum, k3_sum, surprise, reward, score, finished, length, tokens = reduce(
        torch.stack(
            [
                sums.double()
                for sums in (
                    mask.new_tensor(len(rollout), dtype=torch.long),
                    masked_sum(kl, mask),
                    masked_sum(k3(rollout.logprobs, rollout.ref_logprobs), mask),
                    masked_sum(-rollout.logprobs, mask),
                    masked_sum(rollout.rewards, mask),
                    rollout.scores.sum(),
                    rollout.finished.sum(),
                    mask.sum(),
                    rollout.attention_mask.sum(),
                )
            ]
        )
    ).tolist()
    return {
        "objective/kl": kl_sum / rows,
        "objective/kl_k3": k3_sum / rows,
        "objective/kl_coef": kl_coef,
        "objective/entropy": surprise / rows,
        "objective/non_score_reward": -kl_coef * kl_sum / rows,
        "objective/rlhf_reward": reward / rows,
        "objective/scores": score / rows,
        "policy/approxkl_avg": result.approx_kl,
        "policy/clipfrac_avg": result.policy_clipfrac,
        "policy/entropy_avg": result.entropy,
        "policy/grad_norm": result.policy_grad_norm,
        "policy/stopped_early": float(result.stopped_early),
        "loss/policy_avg": result.policy_loss,
        "val/ratio": result.ratio_mean,
        "val/ratio_var": result.ratio_var,
        "val/first_ratio_deviation": result.first_ratio_deviation,
        "val/num_eos_tokens": finished,
        "val/finished": finished / rows,
        "val/response_length": length / rows,
        **_metrics_of_advantages(rollout, result, reduce),
        "val/optimizer_steps": float(result.optimizer_steps),
        "time/seconds": seconds,
        "time/generation": timing.generation,
        "time/scoring": timing.scoring,
        "time/tokens_per_second": tokens / seconds,
    }


NO_ADVANTAGE = "objective/no_advantage"


def _metrics_of_advantages(rollout: Rollout, result: Update, reduce: Reduce) -> dict[str, float]:
    """Return the metrics of the value model or, where there is none, of the comparison of responses."""
    mask = rollout.loss_mask
    if rollout.values is None or rollout.returns is None:
        still = ~torch.where(rollout.response_mask, rollout.advantages, 0.0).any(-1)
        rows, unmoved = reduce(torch.stack([torch.ones_like(still).sum(), still.sum()]).double()).tolist()
        return {NO_ADVANTAGE: unmoved / rows}
    return {
        "loss/value_avg": result.value_loss,
        "val/clipfrac_avg": result.value_clipfrac,
        "val/value_mean": float(masked_mean(rollout.values, mask, reduce)),
        "val/explained_variance": float(explained_variance(rollout.values, rollout.returns, mask, reduce)),
        "val/grad_norm": result.value_grad_norm,
    }


COUNTED = "reward/"
"""Prefix of counts since the reward source was created; after a resume they continue from the checkpoint."""
AVERAGED = "scores/"
"""Prefix of means over the rows of one process; all processes have the same number of rows."""


class Counts:
    """Counts of a reward source over the whole run: those before the last resume are added to its own."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._now: dict[str, float] = {}

    def over_all(self, figures: Mapping[str, float], reduce: Reduce, processes: int) -> dict[str, float]:
        """Return the figures of one rollout: counts are summed over the processes, parts of the score averaged.

        Args:
            figures: figures of this process; every process has the same names.
            reduce: sums over all processes.
            processes: number of processes.
        """
        names = [name for name in figures if name.startswith((COUNTED, AVERAGED))]
        sums = reduce(torch.tensor([figures[name] for name in names], dtype=torch.float64)).tolist() if names else []
        shared = dict(figures)
        for name, total in zip(names, sums, strict=True):
            if name.startswith(COUNTED):
                self._now[name] = shared[name] = self._before.get(name, 0.0) + total
            else:
                shared[name] = total / processes
        return shared

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return dict(self._now)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._before, self._now = dict(state), dict(state)


STARTING_POINT = ("objective/kl", "objective/scores", "val/finished", "val/response_length")
"""Metrics of the first update that are kept beside those of the last."""


class Record:
    """Metrics of the first and the last update, the first and the last evaluation, and every alarm.

    Attributes:
        alarms: alarms that fired, in order, as JSON holds them.
    """

    def __init__(self) -> None:
        self.alarms: list[dict[str, Any]] = []
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._first_evaluation: dict[str, float] = {}
        self._last_evaluation: dict[str, float] = {}

    def see(self, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an update."""
        self._last = dict(metrics)
        self._first = self._first or self._last

    def evaluated(self, figures: Mapping[str, float]) -> None:
        """Record an evaluation on held-out prompts."""
        self._last_evaluation = dict(figures)
        self._first_evaluation = self._first_evaluation or self._last_evaluation

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the last update and evaluation, some of the first under ``start/``, and the number of alarms."""
        start = {name: self._first[name] for name in STARTING_POINT} | self._first_evaluation
        return {
            **self._last,
            **self._last_evaluation,
            **{f"start/{name}": value for name, value in start.items()},
            "alarms": len(self.alarms),
        }

    def progress(self) -> dict[str, float]:
        """Return the figures shown on the progress line."""
        return {
            "kl": self._last["objective/kl"],
            "reward": self._last["objective/scores"],
            "tokens_per_second": self._last["time/tokens_per_second"],
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "alarms": self.alarms,
            "first": self._first,
            "last": self._last,
            "first_evaluation": self._first_evaluation,
            "last_evaluation": self._last_evaluation,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.alarms = list(state["alarms"])
        self._first, self._last = state["first"], state["last"]
        self._first_evaluation, self._last_evaluation = state["first_evaluation"], state["last_evaluation"]
