"""Imported by every Python that has this folder on PYTHONPATH: stages that only pretend, told how by RLHF_FAKE.

``RLHF_FAKE="ppo=oom"`` makes the ppo stage run out of memory; see `_behave` for the others.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from typing import Any

MODULES = {
    "sft": "pipelines.sft.stage",
    "reward": "pipelines.reward.stage",
    "ppo": "pipelines.ppo.stage",
    "eval": "pipelines.evaluate.stage",
    "sample": "pipelines.sampling.stage",
    "labels": "pipelines.labels.stage",
    "pairs": "pipelines.labels.pairs.stage",
}


class OutOfMemoryError(RuntimeError):
    """Known by its name, as torch's own is."""


def _behave(what: str, context: Any) -> None:
    if what == "oom":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    if what == "bug":
        raise ValueError("something odd")
    if what == "diverge":
        from pipelines.errors import TrainingError

        raise TrainingError("the loss is not finite", where="step 3", hint="lower the learning rate")
    if what == "wait":
        from pipelines.errors import PeopleNeeded

        raise PeopleNeeded("12 answers to 5 tasks are still needed", hint="open the page: rlhf label --run-dir run")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(23)
    if what == "noise":
        print("a library prints on stdout")
    if what == "sleep":
        try:
            (context.out / "pid").write_text(str(os.getpid()))
            for _ in range(6000):  # one long sleep would not notice a signal that came just before it
                time.sleep(0.01)
        finally:
            (context.out.parent / "tidied").write_text("yes")


def _runner(name: str) -> Any:
    def run(context: Any) -> dict[str, Any]:
        with context.reporter.task(name, 2) as task:
            task.advance(kl=0.5)
            wanted = dict(entry.split("=") for entry in os.environ.get("RLHF_FAKE", "").split(",") if entry)
            _behave(wanted.get(name, ""), context)
            task.advance(kl=0.25)
        (context.out / "model").mkdir()
        for file in ("model/weights", "metrics.jsonl", "golden.json", "samples.jsonl", "results.json"):
            (context.out / file).write_text(f"{name} {context.config.ppo.kl_coef}\n")
        (context.out / "answers.jsonl").write_text(os.environ.get("TOKENIZERS_PARALLELISM", ""))
        (context.out / "table.md").write_text("| policy | score |\n")
        (context.out / "table.txt").write_text("policy  score\nppo     1.00\n")
        context.reporter.info(f"model text: \x1b[31m{name}")
        return {"score": 1.0, "odd": float("nan")}

    return run


for _name, _module in MODULES.items():
    sys.modules[_module] = types.ModuleType(_module)
    setattr(sys.modules[_module], _name if _name in ("labels", "pairs") else "run", _runner(_name))
