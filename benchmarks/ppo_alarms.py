"""Which alarms go off, and when: in PPO runs that are broken on purpose, and in healthy ones. Prints markdown.

python -m benchmarks.ppo_alarms --seeds 4
python -m benchmarks.ppo_alarms --act --seeds 1 --updates 40

With ``--act`` every run is made twice, with `ppo.on_alarm` warn and act. Gold is what the answers are worth, whatever
the broken reward says: the share of `a` among the first four words, 0 for an answer that does not end.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

import torch

from pipelines.errors import RlhfError
from pipelines.models.generate import sample
from pipelines.ppo.train import Training
from tests.ppo.alarm_runs import BROKEN, EOS, HEALTHY, PROMPTS, Run, a_first, alarms_of, training_of

ANSWERS = 512
"""Answers that gold is the mean of."""


def rows(seeds: int, updates: int, names: list[str]) -> Iterator[str]:
    """A table, line by line: a run a line, the update at which the alarm fired for each seed."""
    yield f"| alarm | what is wrong | fired at update, {seeds} seeds | fired too |"
    yield "|---|---|---|---|"
    for name in names:
        yield _row(name, BROKEN[name], seeds, updates)
    yield _row("", HEALTHY, seeds, updates)


def _row(name: str, run: Run, seeds: int, updates: int) -> str:
    fired = [{alarm.name: alarm.update for alarm in alarms_of(run, seed, updates=updates)} for seed in range(seeds)]
    at = ", ".join(str(seen.get(name, "-")) for seen in fired) if name else "none is meant to"
    others = {other: sum(other in seen for seen in fired) for seen in fired for other in seen if other != name}
    too = ", ".join(f"{other} ({count} of {seeds})" for other, count in sorted(others.items()))
    return f"| {name} | {run.what} | {at} | {too or 'none'} |"


def acting_rows(seeds: int, updates: int, names: list[str]) -> Iterator[str]:
    """A table, line by line: a run and a seed a line, gold at its start and its ends, warning and acting.

    A run is saved where acting leaves a policy of higher gold than warning, by more than two standard errors.
    """
    yield "| run | seed | gold before | after `warn` | after `act` | actions of `act` | saved | stopped |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in names:
        for seed in range(seeds):
            yield _acting_row(name, BROKEN[name], seed, updates)
    for seed in range(seeds):
        yield _acting_row("healthy", HEALTHY, seed, updates)


@dataclass(frozen=True)
class _End:
    gold: float
    error: float
    actions: str
    stopped: int | None

    def __str__(self) -> str:
        return f"{self.gold:.3f} ± {self.error:.3f}"


def _acting_row(name: str, run: Run, seed: int, updates: int) -> str:
    start, warned, acted = (_end(run, seed, updates, reaction) for reaction in (None, "warn", "act"))
    noise = 2 * math.hypot(warned.error, acted.error)
    difference = acted.gold - warned.gold
    saved = "yes" if difference > noise else "worse" if difference < -noise else "no difference"
    stopped = "no" if acted.stopped is None else f"after {acted.stopped}"
    return f"| {name} | {seed} | {start} | {warned} | {acted} | {acted.actions or 'none'} | {saved} | {stopped} |"


def _end(run: Run, seed: int, updates: int, reaction: Literal["warn", "act"] | None) -> _End:
    """Gold at the end of a run; at its start with None."""
    done: dict[str, list[str]] = {}  # the alarms of an action

    def see(name: str, values: Mapping[str, Any]) -> None:
        if name == "alarms" and values.get("action", "none") != "none":
            done.setdefault(f"{values['action']} at {values['update']}", []).append(values["name"])

    training = training_of(run, seed, updates=updates, log=see, on_alarm=reaction or "warn")
    if reaction is not None:
        try:
            training.run()
        except RlhfError as error:
            done["an error"] = [str(error)]
    gold = _gold(training)
    actions = "; ".join(f"{action} ({', '.join(names)})" for action, names in done.items())
    return _End(fmean(gold), stdev(gold) / math.sqrt(len(gold)), actions, training.actions.stopped)


def _gold(training: Training) -> list[float]:
    """Gold of answers that the policy itself gives, without the broken engine."""
    settings, context = training.context.settings, training.context
    prompts = [prompt["prompt_ids"] for prompt in PROMPTS] * (ANSWERS // len(PROMPTS))
    with context.roles.policy.active() as model:
        responses = sample(
            model.eval(),
            prompts,
            max_new_tokens=settings.response_length,
            temperature=settings.temperature,
            eos_token_id=EOS,
            batch_size=ANSWERS,
            seed=1,
        )
    return [a_first(context.encoder.decode(response).split()) if EOS in response else 0.0 for response in responses]


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--updates", type=int, default=25)
    options.add_argument("--only", nargs="*", choices=BROKEN, default=list(BROKEN), help="these alarms")
    options.add_argument("--act", action="store_true", help="every run with ppo.on_alarm warn and act, and their gold")
    return options


if __name__ == "__main__":
    torch.set_num_threads(1)  # more than one is slower on models of this size
    arguments = parser().parse_args()
    table = acting_rows if arguments.act else rows
    for line in table(arguments.seeds, arguments.updates, arguments.only):
        print(line, flush=True)
