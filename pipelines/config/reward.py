"""`reward`: the reward model."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from pipelines.config.training import TrainerSection


class RewardSection(TrainerSection):
    """A pairwise (Bradley-Terry) reward model that starts from the SFT model, or from a base of its own."""

    base: str | None = Field(
        None,
        description="Hub id or directory of another base, encoder or decoder: read with its own tokenizer and trained "
        "whole in fp32, whatever `model` says of LoRA and dtype. null: the SFT model.",
    )
    base_revision: str | None = Field(None, description="Commit of the hub repository of `base`.")
    learning_rate: float = Field(1e-5, gt=0)
    use_margin: bool = Field(True, description="Use the margin of the comparisons where they have one.")
    center_rewards_coefficient: float | None = Field(None, ge=0, description="Pull the mean score towards 0.")
    normalization_prompts: int = Field(
        128, ge=2, description="Held-out prompts whose SFT responses give the score's mean and deviation."
    )

    @field_validator("base")
    @classmethod
    def _directory_from_anywhere(cls, value: str | None) -> str | None:
        """A directory by its full path: the run is found again from elsewhere."""
        path = Path(value or "").expanduser()
        return str(path.absolute()) if value and path.is_dir() else value

    @model_validator(mode="after")
    def _revision_of_a_base(self) -> RewardSection:
        if self.base_revision is not None and self.base is None:
            raise ValueError("base_revision needs base")
        return self
