"""`sft`, and the settings that it shares with `reward`. Names are those of TrainingArguments."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipelines.config.section import Section, by_kind, cosmetic


class TrainerSection(Section):
    """Length, batches, schedule; any further field of the trainer's config goes through `trainer`."""

    enabled: bool = Field(True, description="Whether the run has this stage.")
    max_length: int = Field(1024, ge=8, description="Maximum length of a row in tokens, prompt and answer together.")
    overlong: Literal["drop", "cut", "fail"] = Field(
        "drop", description="Treatment of rows above max_length: drop, cut or fail."
    )
    num_train_epochs: float = Field(1.0, gt=0, description="Number of passes over the training rows.")
    max_steps: int = Field(-1, description="Number of optimizer steps; overrides num_train_epochs if positive.")
    per_device_train_batch_size: int = Field(8, ge=1, description="Number of rows in one forward and backward pass.")
    per_device_eval_batch_size: int = cosmetic(
        32, ge=1, description="Number of rows in one forward pass of an evaluation."
    )
    gradient_accumulation_steps: int = Field(1, ge=1, description="Number of backward passes in one optimizer step.")
    learning_rate: float = by_kind("sft.learning_rate", gt=0, description="Peak learning rate of the AdamW optimizer.")
    lr_scheduler_type: str = Field("cosine", description="Learning rate schedule, by transformers' names.")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Share of the steps over which the learning rate rises from 0."
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of the AdamW optimizer.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="Maximum norm of the gradient; larger gradients are scaled down."
    )
    gradient_checkpointing: bool = by_kind(
        "sft.gradient_checkpointing",
        affects_results=False,
        description="Whether to recompute activations in the backward pass: less memory, more time.",
    )
    logging_steps: int | None = cosmetic(
        None, ge=1, description="Number of optimizer steps between two log lines; null: a tenth of all, at most 10."
    )
    save_steps: int = cosmetic(100, ge=1, description="Number of optimizer steps between two checkpoints.")
    save_total_limit: int = cosmetic(2, ge=1, description="Maximum number of checkpoints kept while the stage runs.")
    trainer: dict[str, Any] = Field(
        {}, description="Further fields of TRL's configuration of this stage, by their names."
    )


class SftSection(TrainerSection):
    """Supervised fine-tuning on demonstrations; `enabled: false` starts from an instruct model."""

    train_on: Literal["all", "last"] = Field(
        "all", description="Assistant turns that contribute to the loss: all of them, or only the last one."
    )
    packing: bool = Field(False, description="Whether to fill sequences of max_length with several rows.")
