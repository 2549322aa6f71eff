"""Held-out accuracy of a reward model against the number of rows that it has been trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from typing_extensions import override

from pipelines.report.estimates import Estimate
from pipelines.reward.initial_model import Objective
from pipelines.run.stage import StageContext

SHARES = (0.25, 0.5, 1.0)
"""Shares of the first epoch after which the model is judged; later epochs read no new rows."""
_LOG = "learning_curve"


class LearningCurve(TrainerCallback):
    """Judges the model on the way through its first epoch; `learning_curve.jsonl` gets the figures.

    Args:
        ctx: of the stage.
        objective: judges.
        args: of the trainer.
    """

    def __init__(self, ctx: StageContext, objective: Objective, args: TrainingArguments) -> None:
        self._ctx, self._objective = ctx, objective
        self._batch = args.train_batch_size * args.gradient_accumulation_steps
        self._steps = {math.ceil(share * objective.report.used / self._batch) for share in SHARES}

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step not in self._steps or state.global_step == state.max_steps:
            return
        training = model.training
        model.eval()
        self._log(state.global_step, self._objective.judge())
        model.train(training)

    def finish(self, step: int, figures: Mapping[str, float | None]) -> list[dict[str, Any]]:
        """Add the trained model, and return the curve.

        Args:
            step: number of the last step.
            figures: of the trained model, by `Objective.judge`.

        Returns:
            One entry a point: ``rows``, those trained on until then, beside the `Estimate` of the accuracy; empty where
            accuracy is not defined.
        """
        self._log(step, figures)
        path = self._ctx.out / f"{_LOG}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    def _log(self, step: int, figures: Mapping[str, float | None]) -> None:
        value, low, high = (figures[f"heldout_accuracy{end}"] for end in ("", "_low", "_high"))
        if value is not None:
            rows = min(step * self._batch, self._objective.report.used)
            self._ctx.log(_LOG, {"rows": rows} | Estimate(value, low, high, self._objective.num_heldout).as_dict())
