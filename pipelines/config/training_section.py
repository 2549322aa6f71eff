"""Settings that the stages trained by a Hugging Face trainer share. Names are TrainingArguments' own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipelines.config.section import Section, cosmetic


class TrainerSection(Section):
    """Length, batches, schedule; any further field of the trainer's config goes through `trainer`."""

    enabled: bool = True
    max_length: int = Field(1024, ge=8, description="Tokens of prompt and answer together.")
    overlong: Literal["drop", "cut", "fail"] = Field("drop", description="What happens to rows above max_length.")
    num_train_epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, description="Overrides num_train_epochs where positive.")
    per_device_train_batch_size: int = Field(8, ge=1)
    per_device_eval_batch_size: int = cosmetic(32, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = cosmetic(False)
    logging_steps: int = cosmetic(10, ge=1)
    save_steps: int = cosmetic(100, ge=1, description="Optimizer steps between two checkpoints.")
    save_total_limit: int = cosmetic(2, ge=1, description="Checkpoints that are kept while the stage runs.")
    trainer: dict[str, Any] = Field({}, description="Further fields of TRL's config for this stage, by their names.")


class SftSection(TrainerSection):
    """Supervised fine-tuning on demonstrations; `enabled: false` starts from an instruct model."""

    train_on: Literal["all", "last"] = Field("all", description="Assistant turns that carry loss.")
    packing: bool = Field(False, description="Fill sequences of max_length with several rows.")
