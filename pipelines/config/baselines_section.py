"""`baselines`: policies to compare PPO's with, trained without a value model, or without any reward model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.config.section import Section, by_kind

Estimator = Literal["rloo", "grpo"]
"""Baselines that are PPO with another source of advantages."""
Baseline = Literal["dpo", "rloo", "grpo"]


class DpoSection(Section):
    """Direct preference optimization on the pairs of the reward model; all else is as in `reward`."""

    beta: float = Field(
        0.1, gt=0, description="Weight of the KL to the SFT model: higher keeps the policy closer to it."
    )
    learning_rate: float = by_kind(
        "baselines.dpo.learning_rate", gt=0, description="Peak learning rate of the AdamW optimizer."
    )
    num_train_epochs: float = Field(1.0, gt=0, le=100_000, description="Number of passes over the pairs.")


class BaselinesSection(Section):
    """Settings of `rlhf baseline` that are not those of `ppo`."""

    num_generations: int = Field(
        4,
        ge=2,
        description="Number of responses to each prompt in a rollout of the baselines rloo and grpo; must divide "
        "ppo.rollout_batch_size.",
    )
    dpo: DpoSection = Field(DpoSection(), description="The baseline dpo.")
