"""`ppo`: proximal policy optimization. Names follow TRL's PPOConfig where it had one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.config.base import Section, cosmetic
from pipelines.config.scorer import ScorerSection


class PpoSection(Section):
    """One update: `rollout_batch_size` episodes, then `num_ppo_epochs` x `num_mini_batches` optimizer steps."""

    enabled: bool = True
    reward: ScorerSection = ScorerSection()
    total_episodes: int = Field(10000, ge=1, description="Responses generated in all; rounded up to whole updates.")
    rollout_batch_size: int = Field(64, ge=1, description="Episodes per update.")
    num_ppo_epochs: int = Field(4, ge=1, description="Passes over each rollout.")
    num_mini_batches: int = Field(4, ge=1, description="Optimizer steps per pass.")
    per_device_train_batch_size: int = cosmetic(
        8, ge=1, description="Micro-batch: rows in one backward; memory only, never the result."
    )
    rollout_forward_batch_size: int = Field(
        32, ge=1, description="Rows in one generation or scoring forward; which numbers are drawn depends on it."
    )
    max_prompt_length: int = Field(512, ge=1, description="Most tokens of a prompt.")
    overlong: Literal["drop", "cut", "fail"] = Field(
        "drop", description="Longer prompts: drop; cut keeps their start, where no chat template is used; fail."
    )
    response_length: int = Field(128, ge=1, description="Most new tokens of a response.")
    temperature: float = Field(1.0, gt=0)
    learning_rate: float = Field(1e-5, gt=0, description="Of the policy.")
    value_learning_rate: float = Field(5e-5, gt=0)
    lr_scheduler_type: Literal["linear", "constant"] = Field("linear", description="linear: to 0 over the updates.")
    adam_eps: float = Field(1e-5, gt=0)
    max_grad_norm: float = Field(1.0, gt=0, description="Of the policy and of the value model, each by itself.")
    kl_coef: float = Field(0.05, ge=0, description="Weight of the per-token KL penalty (k1) in the reward.")
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    cliprange: float = Field(0.2, gt=0)
    cliprange_value: float | None = Field(
        0.2, gt=0, description="null: the value is not clipped; for rewards far from unit scale."
    )
    vf_coef: float = Field(0.1, gt=0)
    whiten_advantages: bool = True
    normalize_reward: bool = Field(
        True, description="Shift and scale the run's reward model to mean 0, deviation 1 on SFT responses."
    )
    reward_clip: float | None = Field(10.0, gt=0, description="Bound of the normalized score; other scores have none.")
    missing_eos_penalty: float = Field(1.0, ge=0, description="Subtracted where a response hit the length limit.")
    gradient_checkpointing: bool = cosmetic(False)
    logging_steps: int = cosmetic(1, ge=1, description="Updates between two lines of metrics.jsonl.")
    num_sample_prompts: int = cosmetic(16, ge=0, description="Held-out prompts answered at start, middle and end.")

    @model_validator(mode="after")
    def _divides(self) -> PpoSection:
        if self.rollout_batch_size % self.num_mini_batches:
            raise ValueError(
                f"rollout_batch_size {self.rollout_batch_size} is not a multiple of "
                f"num_mini_batches {self.num_mini_batches}"
            )
        if self.reward.uses("gold"):
            raise ValueError("the gold scorer judges; it must not train: use another kind for ppo.reward")
        return self

    @property
    def num_updates(self) -> int:
        """Rollouts in the whole training."""
        return -(-self.total_episodes // self.rollout_batch_size)
