"""Which alarms go off, and when: in PPO runs that are broken on purpose, and in healthy ones. Prints markdown.

python -m benchmarks.ppo_alarms --seeds 4
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

from tests.ppo.alarm_runs import BROKEN, HEALTHY, Run, alarms_of


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


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--updates", type=int, default=25)
    options.add_argument("--only", nargs="*", choices=BROKEN, default=list(BROKEN), help="these alarms")
    return options


if __name__ == "__main__":
    torch.set_num_threads(1)  # more than one is slower on models of this size
    arguments = parser().parse_args()
    for line in rows(arguments.seeds, arguments.updates, arguments.only):
        print(line, flush=True)
