"""`reward`: the reward model."""

from __future__ import annotations

from pydantic import Field

from pipelines.config.training import TrainerSection


class RewardSection(TrainerSection):
    """A pairwise (Bradley-Terry) reward model that starts from the SFT model."""

    learning_rate: float = Field(1e-5, gt=0)
    use_margin: bool = Field(True, description="Use the margin of the comparisons where they have one.")
    center_rewards_coefficient: float | None = Field(None, ge=0, description="Pull the mean score towards 0.")
    normalization_prompts: int = Field(
        128, ge=2, description="Held-out prompts whose SFT responses give the score's mean and deviation."
    )
