"""`eval`: the comparison of base, SFT and PPO on held-out prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.config.scorer_section import ScorerSection
from pipelines.config.section import Section, cosmetic


class EvalSection(Section):
    """All policies answer the same prompts; every scorer judges; intervals by bootstrap over prompts."""

    enabled: bool = True
    policies: list[Literal["base", "sft", "ppo"]] = Field(["base", "sft", "ppo"])
    num_prompts: int = Field(200, ge=2)
    temperature: float = Field(1.0, gt=0)
    scorers: list[ScorerSection] = Field(
        [], description="Empty: the reward that PPO trained on, and the gold scorer of a self-made task."
    )
    bootstrap_samples: int = Field(2000, ge=100)
    batch_size: int = Field(32, ge=1, description="Rows in one generation; which numbers are drawn depends on it.")
    side_by_side: int = cosmetic(3, ge=0, description="Prompts shown with both answers under the table.")
