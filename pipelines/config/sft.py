"""`sft`: supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.config.training import TrainerSection


class SftSection(TrainerSection):
    """Supervised fine-tuning on demonstrations; `enabled: false` starts from an instruct model."""

    train_on: Literal["all", "last"] = Field("all", description="Assistant turns that carry loss.")
    packing: bool = Field(False, description="Fill sequences of max_length with several rows.")
