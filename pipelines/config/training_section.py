"""`sft`, and the settings that it shares with `reward`. Names are those of TrainingArguments."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from pipelines.config.section import Section, by_kind, cosmetic

SET_ELSEWHERE = {
    "output_dir": "it follows from the run directory",
    "seed": "use run.seed",
    "data_seed": "use run.seed",
    "use_cpu": "use run.device",
    "bf16": "use model.dtype",
    "fp16": "use model.dtype: bfloat16",
    "report_to": "use run.report_to",
    "trust_remote_code": "use model.trust_remote_code",
    "model_init_kwargs": "use the model section",
    "chat_template_path": "use model.chat_template",
    "assistant_only_loss": "use sft.train_on",
    "completion_only_loss": "use sft.train_on",
    "eval_packing": "use sft.packing",
    "padding_free": "use sft.packing",
    "packing": "use sft.packing",
    "center_rewards_coefficient": "use reward.center_rewards_coefficient",
    "warmup_steps": "use warmup_ratio",
    "activation_checkpointing": "use gradient_checkpointing",
}
"""Fields that the program sets, with where a user sets them instead; those of the section itself come on top."""
_ALWAYS = """
    disable_tqdm logging_nan_inf_filter save_strategy eval_strategy eval_steps push_to_hub hub_token hub_model_id
    resume_from_checkpoint dataset_kwargs eos_token pad_token remove_unused_columns skip_memory_metrics save_only_model
    ignore_data_skip restore_callback_states_from_checkpoint enable_jit_checkpoint
"""
SET_ELSEWHERE |= dict.fromkeys(_ALWAYS.split(), "the program sets it")


class TrainerSection(Section):
    """Length, batches, schedule; any further field of the trainer's config goes through `trainer`."""

    enabled: bool = Field(True, description="Whether the run has this stage.")
    max_length: int = Field(1024, ge=8, description="Maximum length of a row in tokens, prompt and answer together.")
    overlong: Literal["drop", "cut", "fail"] = Field(
        "drop", description="Treatment of rows above max_length: drop, cut or fail."
    )
    num_train_epochs: float = Field(1.0, gt=0, le=100_000, description="Number of passes over the training rows.")
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

    @field_validator("trainer")
    @classmethod
    def _further_fields_only(cls, further: dict[str, Any]) -> dict[str, Any]:
        for key in further:
            if key in SET_ELSEWHERE or key in cls.model_fields:
                instead = SET_ELSEWHERE.get(key, f"use `{key}` of the section itself")
                raise ValueError(f"`{key}` cannot be set here: {instead}")
        return further


class SftSection(TrainerSection):
    """Supervised fine-tuning on demonstrations; `enabled: false` starts from an instruct model."""

    train_on: Literal["all", "last"] = Field(
        "all", description="Assistant turns that contribute to the loss: all of them, or only the last one."
    )
    packing: bool = Field(False, description="Whether to fill sequences of max_length with several rows.")
