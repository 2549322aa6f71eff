"""`reward`: the reward model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config.model_section import full_path
from pipelines.config.section import by_kind
from pipelines.config.training_section import TrainerSection


class RewardSection(TrainerSection):
    """A reward model that starts from the SFT model, or from a base of its own."""

    enabled: bool = Field(
        True,
        description="Whether the run has this stage. Where it is not said, the stage is off if ppo.reward is another "
        "source, no scorer of the evaluation is the run's reward model, and no labels are collected.",
    )
    objective: Literal["pairwise", "pointwise"] = Field(
        "pairwise",
        description="Training objective: pairwise (Bradley-Terry: the better of two answers scores higher), or "
        "pointwise (a classifier of the probability that an answer is good, trained on judgements, comparisons with "
        "each side as a row, or both).",
    )
    output: Literal["sigmoid", "softmax"] = Field(
        "sigmoid",
        description="Output of a pointwise model: sigmoid of one logit, or softmax over two classes (bad, good), which "
        "needs `base`.",
    )
    lower_is_better: bool = Field(
        False,
        description="Whether a high label means bad, such as toxic (pointwise). The labels are reversed; the model "
        "always predicts the probability of good.",
    )
    label_range: tuple[float, float] | None = Field(
        None,
        strict=False,
        description="Smallest and largest label of a scale, such as [1, 5] (pointwise); null: those of the training "
        "rows, file by file.",
    )
    base: str | None = Field(
        None,
        description="Hub id or directory of another base, encoder or decoder. It is read with its own tokenizer and "
        "trained whole in fp32, whatever `model` says about LoRA and dtype. null: the SFT model.",
    )
    base_revision: str | None = Field(None, description="Commit of the hub repository of `base`; null: the newest one.")
    learning_rate: float = by_kind(
        "reward.learning_rate", gt=0, description="Peak learning rate of the AdamW optimizer."
    )
    use_margin: bool = Field(
        False,
        description="Whether the margins of comparisons that have one count (pairwise). They are divided by their root "
        "mean square, so that their unit does not matter, and cut at 3.",
    )
    center_rewards_coefficient: float | None = Field(
        None, ge=0, description="Weight of a loss that pulls the mean score towards 0 (pairwise); null: no such loss."
    )
    normalization_prompts: int = Field(
        128,
        ge=2,
        description="Maximum number of prompts whose SFT responses give the mean and standard deviation of the "
        "scores, taken by hash from those that PPO trains on; without these, from the held-out ones.",
    )

    @field_validator("base")
    @classmethod
    def _directory_from_anywhere(cls, value: str | None) -> str | None:
        """A directory by its full path: the run is found again from elsewhere."""
        path = Path(value or "").expanduser()
        return full_path(path) if value and path.is_dir() else value

    @model_validator(mode="after")
    def _revision_of_a_base(self) -> RewardSection:
        if self.base_revision is not None and self.base is None:
            raise ValueError("base_revision needs base")
        return self

    @model_validator(mode="after")
    def _fields_fit_the_objective(self) -> RewardSection:
        other, fields = _OF_ONE_OBJECTIVE[self.objective]
        for name in fields:
            if name == "use_margin":  # true was the default, so that older pointwise runs have it
                continue
            if getattr(self, name) != RewardSection.model_fields[name].default:
                raise ValueError(f"{name} belongs to objective: {other}")
        if self.output == "softmax" and self.base is None:
            raise ValueError(
                "output: softmax needs base: on the SFT model the head has one logit, and its sigmoid is the softmax "
                "over two classes that differ by it"
            )
        if self.label_range is not None and not self.label_range[0] < self.label_range[1]:
            raise ValueError(
                "label_range goes from the smallest label to the largest; lower_is_better says which of them is good"
            )
        return self

    def results_view(self) -> dict[str, Any]:
        """Values that affect results, without those of the other objective, so that older runs stay complete."""
        _, foreign = _OF_ONE_OBJECTIVE[self.objective]
        left_out = {*foreign, *(["objective"] if self.objective == "pairwise" else [])}
        return {key: value for key, value in super().results_view().items() if key not in left_out}


_OF_ONE_OBJECTIVE = {
    "pairwise": ("pointwise", ("output", "lower_is_better", "label_range")),
    "pointwise": ("pairwise", ("use_margin", "center_rewards_coefficient")),
}
"""What an objective has no use for, and the one that has."""
