"""A callback that completes and resumes the checkpoints of a Hugging Face trainer, and saves no diverged state.

It also saves what the trainer's own state leaves out: the sums of figures that are not logged yet, and the time. So a
training that was interrupted reports the same figures as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

import torch
from torch.nn.utils import get_total_norm
from transformers import Trainer, TrainerCallback

from pipelines.errors import TrainingError
from pipelines.run.checkpoints import Checkpoint
from pipelines.run.disk import write_atomic
from pipelines.run.stage import StageContext

_SUMS = "sums.json"


class NoStepLeft(Exception):
    """The checkpoint that the trainer has loaded was written after the last step."""


class CheckpointCallback(TrainerCallback):
    """Saves, stops and resumes a training.

    Args:
        ctx: has the checkpoints and the request to stop.
        trainer: the trainer that calls it.
        checkpoint: the trainer resumes from it; None: it starts at the beginning.
    """

    def __init__(self, ctx: StageContext, trainer: Trainer, checkpoint: Checkpoint | None) -> None:
        self._ctx, self._checkpoint = ctx, checkpoint
        self._trainer: Any = trainer
        self._seconds_before = 0.0
        self._loss_total = 0.0
        self._sums: dict[str, Any] = (
            {} if checkpoint is None else json.loads((checkpoint.path / _SUMS).read_text(encoding="utf-8"))
        )

    @property
    def by_length(self) -> bool:
        """Whether rows of similar length go together: not where an older version began, and drew another order."""
        return bool(self._sums.get("by_length", self._checkpoint is None))

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def mean_loss(self) -> float:
        """Mean training loss over all steps; known when the training is over."""
        steps: int = self._trainer.state.global_step
        return self._loss_total / max(steps, 1)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the sums of the checkpoint.

        Raises:
            NoStepLeft: no step is left to do; the trainer would do one more.
        """
        self._started = time.monotonic()
        if self._checkpoint is None:
            return
        state.compute_steps(args, state.max_steps)  # the intervals of logging and saving may have changed
        trainer, sums = self._trainer, self._sums
        trainer._tr_loss += sums["loss_not_logged"]
        trainer._total_loss_scalar = sums["loss_logged"]
        trainer._globalstep_last_logged = sums["last_logged"]
        if hasattr(trainer, "_metrics"):  # one of TRL's; a plain trainer keeps no figures of its own
            trainer._metrics["train"].update(sums["figures_not_logged"])
            trainer._total_train_tokens = sums["tokens"]
        self._seconds_before = sums["seconds"]
        if state.global_step >= state.max_steps:
            self._loss_total = sums["loss_logged"] + sums["loss_not_logged"]
            raise NoStepLeft

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse a step along a gradient that is not finite."""
        gradients = [value.grad for value in self._trainer.model.parameters() if value.grad is not None]
        loss, norm = self._trainer._tr_loss, get_total_norm(gradients)
        if not bool(torch.isfinite(loss + norm)):  # one transfer from the device instead of two
            refuse_not_finite(state.global_step + 1, loss=float(loss), grad_norm=float(norm))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop where that was asked for, and make room for what is saved."""
        if self._ctx.stop.requested:
            control.should_save = control.should_training_stop = True
        if control.should_save:
            _refuse_broken_weights(self._trainer.model, state.global_step)
            self._ctx.checkpoints.begin(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Complete the checkpoint that the trainer has saved."""
        trainer = self._trainer
        of_trl = hasattr(trainer, "_metrics")
        sums = {
            "loss_not_logged": float(trainer._tr_loss),
            "loss_logged": trainer._total_loss_scalar,
            "last_logged": trainer._globalstep_last_logged,
            "figures_not_logged": dict(trainer._metrics["train"]) if of_trl else {},
            "tokens": trainer._total_train_tokens if of_trl else 0,
            "by_length": self.by_length,
            "seconds": round(self.seconds, 3),
        }
        path = self._ctx.out / "checkpoints" / f"checkpoint-{state.global_step}" / _SUMS
        write_atomic(path, json.dumps(sums) + "\n")
        self._ctx.checkpoints.complete(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the sum of all losses: by now the trainer has added those that were not logged."""
        self._loss_total = self._trainer._total_loss_scalar


def refuse_not_finite(step: int, **figures: float) -> None:
    """Raise TrainingError where a figure is not a finite number."""
    for name, value in figures.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} at step {step}: training diverged",
                hint="lower learning_rate, raise warmup_ratio, or lower max_grad_norm",
            )


def _refuse_broken_weights(model: torch.nn.Module, step: int) -> None:
    trained = [value.detach() for value in model.parameters() if value.requires_grad]
    refuse_not_finite(step, **{"the norm of the weights": float(get_total_norm(trained))})
