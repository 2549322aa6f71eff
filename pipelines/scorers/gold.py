"""The gold scorer of a self-made task: it knows the true utility, so it only judges and is never trained on."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.scorers.protocol import Completion, Dialogue, Progress, checked_scores
from pipelines.tasks import SelfMadeTask

GOLD = "gold"


class GoldScorer:
    """Adapts `SelfMadeTask.gold`; its parts are the task's attributes, each in [0, 1]."""

    def __init__(self, name: str, task: SelfMadeTask, *, progress: Progress | None = None) -> None:
        self.name = name
        self._task = task
        self._progress = progress

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The task's hidden utility of each answer."""
        return self.with_parts(prompts, completions)[0]

    def with_parts(
        self, prompts: Sequence[Dialogue], completions: Sequence[Completion]
    ) -> tuple[list[float], dict[str, list[float]]]:
        """The utility, and each attribute by its name."""
        rows = [
            self._task.gold(prompt, completion.text) for prompt, completion in zip(prompts, completions, strict=True)
        ]
        if self._progress is not None:
            self._progress(len(rows))
        parts = {name: [row[name] for row in rows] for name in self._task.attributes}
        return checked_scores(f"the gold scorer {self.name}", (row[GOLD] for row in rows), len(prompts)), parts
