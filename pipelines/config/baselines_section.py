"""`baselines`: PPO without a value model, to compare PPO with; all else is as in `ppo`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.config.section import Section

Baseline = Literal["rloo", "grpo"]


class BaselinesSection(Section):
    """Settings of `rlhf baseline` that are not those of `ppo`."""

    num_generations: int = Field(
        4,
        ge=2,
        description="Number of responses to each prompt in a rollout of the baselines rloo and grpo; must divide "
        "ppo.rollout_batch_size.",
    )
