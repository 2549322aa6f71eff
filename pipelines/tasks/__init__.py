"""Self-made tasks: a generator of data, simulated annotators and a gold scorer that knows the truth.

To the rest of the program a task is one more source of rows and its gold one more scorer.
"""

from __future__ import annotations

from pipelines.errors import UsageError, nearest_name
from pipelines.tasks.support import Support
from pipelines.tasks.task import AnnotatorPool, Probe, SelfMadeTask

__all__ = ["AnnotatorPool", "Probe", "SelfMadeTask", "load_task"]

_TASKS: dict[str, type[SelfMadeTask]] = {"support": Support}


def load_task(name: str) -> SelfMadeTask:
    """The task of that name.

    Raises:
        UsageError: there is none; the hint gives the nearest name.
    """
    if name in _TASKS:
        return _TASKS[name]()
    hint = nearest_name(name, _TASKS, f"the tasks are: {', '.join(sorted(_TASKS))}")
    raise UsageError(f"there is no task named {name!r}", hint=hint)
