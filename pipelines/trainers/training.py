"""Arguments of the composed trainers, and their training with checkpoints and progress."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
from peft import PeftModel
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from pipelines.config import Config
from pipelines.config.training_section import TrainerSection
from pipelines.errors import EnvironmentProblem, UsageError, nearest_name
from pipelines.run.stage import StageContext, tracked_as
from pipelines.trainers.checkpoint_callback import CheckpointCallback, NoStepLeft, refuse_not_finite
from pipelines.trainers.length_sampler import LengthSampler


def trainer_arguments(
    kind: type[TrainingArguments],
    config: Config,
    name: str,
    out: Path,
    device: torch.device,
    own: Mapping[str, Any],
) -> Any:
    """The arguments of one of TRL's trainers: every default of TRL that matters is set, then the user's further fields.

    Args:
        kind: SFTConfig, RewardConfig or DPOConfig.
        name: the section, "sft" or "reward".
        out: the stage's working directory.
        own: fields of this trainer alone.

    Raises:
        UsageError: a further field does not exist, is ours to set, or has a value that the trainer refuses.
        EnvironmentProblem: several GPUs are visible to this one process.
    """
    section: TrainerSection = getattr(config, name)
    _refuse_several_gpus(device)
    ours: dict[str, Any] = {
        "output_dir": str(out / "checkpoints"),
        "seed": config.run.seed,
        "num_train_epochs": section.num_train_epochs,
        "max_steps": section.max_steps,
        "per_device_train_batch_size": section.per_device_train_batch_size,
        "per_device_eval_batch_size": section.per_device_eval_batch_size,
        "gradient_accumulation_steps": section.gradient_accumulation_steps,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": section.lr_scheduler_type,
        "warmup_steps": section.warmup_ratio,
        "weight_decay": section.weight_decay,
        "max_grad_norm": section.max_grad_norm,
        "activation_checkpointing": section.gradient_checkpointing,
        "logging_steps": section.logging_steps or DEFAULT_LOGGING,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "report_to": config.run.report_to or "none",
        "disable_tqdm": True,
        "save_strategy": "steps",
        "save_steps": section.save_steps,
        "save_total_limit": None,  # `Checkpoints` decides which are kept: the trainer does not know which are complete
        "save_only_model": False,
        "eval_strategy": "no",
        "use_cpu": device.type == "cpu",
        "bf16": config.model.dtype == "bfloat16",
        "fp16": False,
        "dataloader_pin_memory": device.type == "cuda",
        **own,
    }
    if config.run.report_to:  # the trainer's own place is below the checkpoints, which do not stay
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(out.parent / "trackers" / out.name.removesuffix(".partial"))
    project, run_name = tracked_as(out)
    further = {"project": project, "run_name": run_name} | _checked(section.trainer, kind, name, ours)
    try:
        return kind(**ours, **further)
    except (ValueError, TypeError) as error:
        raise UsageError(f"the trainer refuses its settings: {error}", where=name) from error


@dataclass(frozen=True)
class TrainingResult:
    """Figures of a finished training; where it was interrupted, of all its parts together.

    Attributes:
        steps: optimizer steps.
        loss: mean training loss over them.
        epochs: how often the rows were read.
        seconds: time of the training.
    """

    steps: int
    loss: float
    epochs: float
    seconds: float


@contextlib.contextmanager
def settings_kept(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Give the model back with its own settings: TRL's trainers leave theirs on it, and would be published with it.

    These are a patched forward, special tokens, and of a mixture of experts the router's loss, which fails in sampling.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    text = base.config.get_text_config()
    kept = [
        (config, name, getattr(config, name))
        for config in (base.config, text)
        for name in _SETTINGS
        if hasattr(config, name)
    ]
    generation = copy.deepcopy(getattr(base, "generation_config", None))
    lacks_num_experts = not hasattr(text, "num_experts") and hasattr(text, "num_local_experts")
    if not _has_router(base):
        text.router_aux_loss_coef = 0.0
    if lacks_num_experts:
        text.num_experts = text.num_local_experts  # TRL reads only the first of both names
    try:
        yield
    finally:
        if lacks_num_experts:
            del text.num_experts
        for config, name, value in kept:
            setattr(config, name, value)
        base.generation_config = generation
        for patched in {id(model): model, id(base): base}.values():
            for name in _ATTRIBUTES & vars(patched).keys():
                delattr(patched, name)


def _has_router(model: PreTrainedModel) -> bool:
    """Whether the model is a mixture of experts in fact: Doge has the settings of one, and may be none."""
    kinds = [getattr(part, "_can_record_outputs", None) or {} for part in model.modules()]
    entries = [entry for recorded in kinds if (entry := recorded.get("router_logits")) is not None]
    routers = [one for entry in entries for one in (entry if isinstance(entry, list | tuple) else [entry])]
    classes = tuple({getattr(entry, "target_class", entry) for entry in routers})
    return any(isinstance(part, classes) for part in model.modules()) if classes else not routers


_SETTINGS = (
    *("output_router_logits", "router_aux_loss_coef", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
_ATTRIBUTES = {"forward", "_original_forward", "model_tags"}
"""Names in the configuration, and of the model's own attributes, that the trainers of TRL 1.16 and accelerate set."""


DEFAULT_LOGGING = 10
"""Steps between two log lines of a long training."""
LEAST_LOGGED = 10
"""Log lines of a training that is shorter than `DEFAULT_LOGGING` times as many steps."""


def train(
    trainer: Trainer,
    ctx: StageContext,
    section: TrainerSection,
    label: str,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Run a trainer under our reporter, from the newest complete checkpoint where there is one.

    A signal to stop lets the step end and saves it; then it does what it would have done. Rows of similar length go
    together, unless the user sets another `train_sampling_strategy`.

    Args:
        trainer: with the arguments of `trainer_arguments`.
        ctx: of the stage.
        section: its settings.
        label: of the progress line.
        callbacks: further ones.

    Raises:
        TrainingError: a loss, a gradient or a weight is not finite.
    """
    for printer in (PrinterCallback, ProgressCallback):  # stdout is for data
        trainer.remove_callback(printer)
    checkpoint = ctx.checkpoints.newest()
    if checkpoint is not None:
        ctx.checkpoints.restore_logs(checkpoint)
        ctx.reporter.info(f"{label}: goes on from step {checkpoint.step}")
    saver = CheckpointCallback(ctx, trainer, checkpoint)
    if saver.by_length and section.trainer.get("train_sampling_strategy", BY_LENGTH) == BY_LENGTH:
        _group_by_length(trainer)
    with ctx.stop.deferred(), ExitStack() as stack, contextlib.suppress(NoStepLeft):
        often = section.logging_steps is None
        for callback in (saver, _ProgressCallback(ctx, label, stack, saver, often=often), *callbacks):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    refuse_not_finite(trainer.state.global_step, train_loss=saver.mean_loss)
    return TrainingResult(trainer.state.global_step, saver.mean_loss, float(trainer.state.epoch or 0), saver.seconds)


BY_LENGTH = "group_by_length"


def _group_by_length(trainer: Any) -> None:
    """Let the rows of a micro-batch have similar lengths; packed rows have them already."""
    rows = trainer.train_dataset
    if getattr(trainer.args, "packing", False):
        return
    columns = [rows[name] for name in ("input_ids", "chosen_ids", "rejected_ids") if name in rows.column_names]
    lengths = [max(map(len, texts)) for texts in zip(*columns, strict=True)]
    sampler = LengthSampler(lengths, trainer.args.train_batch_size, trainer.args.seed)
    trainer._get_train_sampler = lambda dataset=None: sampler


class _ProgressCallback(TrainerCallback):
    """Updates the progress line and metrics.jsonl.

    Args:
        ctx: of the stage.
        label: of the progress line.
        stack: closes the progress line.
        checkpoints: knows the seconds of the training.
        often: whether a short training logs `LEAST_LOGGED` times at least.
    """

    def __init__(
        self, ctx: StageContext, label: str, stack: ExitStack, checkpoints: CheckpointCallback, *, often: bool
    ) -> None:
        self._ctx, self._label, self._stack, self._checkpoints, self._often = ctx, label, stack, checkpoints, often
        self._fields: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._often:
            state.logging_steps = max(1, min(DEFAULT_LOGGING, state.max_steps // LEAST_LOGGED))
        task = self._ctx.reporter.task(self._label, state.max_steps, state.global_step)
        self._task = self._stack.enter_context(task)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._task.advance(1, **self._fields)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        values = {key: _number(value) for key, value in (logs or {}).items() if _number(value) is not None}
        if "loss" not in values:  # the summary at the end, which becomes the stage's metrics
            return
        self._fields = {key: values[key] for key in ("loss", "accuracy") if key in values}  # type: ignore[misc]
        self._ctx.log("metrics", {"step": state.global_step, "seconds": round(self._checkpoints.seconds, 3), **values})


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _checked(
    further: Mapping[str, Any], kind: type[TrainingArguments], name: str, ours: Mapping[str, Any]
) -> dict[str, Any]:
    known = {field.name for field in fields(kind) if field.init}
    for key in further:
        where = f"{name}.trainer.{key}"
        if key not in known:
            hint = nearest_name(key, known, "see TRL's documentation")
            raise UsageError(f"{kind.__name__} has no field `{key}`", where=where, hint=hint)
        if key in ours:
            raise UsageError(f"`{key}` cannot be set here", where=where, hint=f"use {name}.{key}")
    return dict(further)


def _refuse_several_gpus(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.device_count() > 1 and not torch.distributed.is_torchelastic_launched():
        raise EnvironmentProblem(
            f"{torch.cuda.device_count()} GPUs are visible to this one process",
            hint="make one visible: CUDA_VISIBLE_DEVICES=0",
        )


def no_telemetry() -> None:
    """Switch off the usage reports of TRL's trainers: nothing leaves the machine that the user did not ask for."""
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
