"""`ppo`: proximal policy optimization. Names follow TRL's PPOConfig where it had one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.config.scorer_section import ScorerSection
from pipelines.config.section import Section, cosmetic


class PpoSection(Section):
    """One update: `rollout_batch_size` episodes, then `num_ppo_epochs` x `num_mini_batches` optimizer steps."""

    enabled: bool = Field(True, description="false: the run has no PPO.")
    reward: ScorerSection = Field(ScorerSection(), description="The source of the scores that PPO trains on.")

    # how much, and in what pieces
    total_episodes: int = Field(10000, ge=1, description="Responses generated in all; rounded up to whole updates.")
    rollout_batch_size: int = Field(64, ge=1, description="Episodes (responses) per update, over all processes.")
    num_generations: int = Field(
        1, ge=1, description="Responses to each prompt in a rollout; rollout_batch_size is a multiple of it."
    )
    num_ppo_epochs: int = Field(4, ge=1, description="Passes over each rollout.")
    num_mini_batches: int = Field(4, ge=1, description="Optimizer steps per pass.")
    per_device_train_batch_size: int = cosmetic(
        8, ge=1, description="Micro-batch: rows in one backward; memory only, never the result."
    )
    rollout_forward_batch_size: int = Field(
        32, ge=1, description="Rows in one generation or scoring forward; which numbers are drawn depends on it."
    )

    # prompts and responses
    max_prompt_length: int = Field(512, ge=1, description="Most tokens of a prompt.")
    overlong: Literal["drop", "cut", "fail"] = Field(
        "drop", description="Longer prompts: drop; cut keeps their start, where no chat template is used; fail."
    )
    response_length: int = Field(128, ge=1, description="Most new tokens of a response.")
    stop_tokens: list[str] = Field(
        [], description="Tokens that end a response beside EOS; each must be one token of the tokenizer."
    )
    temperature: float = Field(
        1.0, gt=0, description="Of the sampling; the policy that is trained is the tempered one."
    )
    top_k: int = Field(
        0,
        ge=0,
        description="Sample from the k likeliest tokens; 0: from all. Ratio and KL stay those of the whole policy.",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Sample from the likeliest tokens with this probability together; ratio and KL as for top_k.",
    )

    # optimizer
    learning_rate: float = Field(1e-5, gt=0, description="Of the policy.")
    value_learning_rate: float = Field(5e-5, gt=0, description="Of the value model, or of its head where it is shared.")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="linear and cosine fall to 0 over the updates, after the warm-up."
    )
    warmup_updates: int = Field(0, ge=0, description="Updates (rollouts) over which both learning rates rise from 0.")
    adam_eps: float = Field(1e-5, gt=0, description="Epsilon of Adam.")
    max_grad_norm: float = Field(1.0, gt=0, description="Of the policy and of the value model, each by itself.")
    gradient_checkpointing: bool = cosmetic(False, description="Less memory, one more forward in every backward.")

    # the penalty for leaving the reference
    kl_coef: float = Field(
        0.05, ge=0, description="Weight of the per-token KL penalty (k1) in the reward; with kl_target the first one."
    )
    kl_target: float | None = Field(
        None, gt=0, description="Move kl_coef so that the KL per response (nats) comes to this; null: it stays."
    )
    kl_horizon: int = Field(
        10000, ge=1, description="With kl_target: episodes in which kl_coef moves by up to a fifth."
    )
    kl_early_stop: float | None = Field(
        None,
        gt=0,
        description="Skip the rest of an update once its policy is this far (KL per token) from the one that sampled.",
    )
    kl_limit: float = Field(50.0, gt=0, description="KL per response (nats) beyond which a policy is never the best.")

    # advantages and losses
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of generalized advantage estimation.")
    cliprange: float = Field(0.2, gt=0, description="Clip of the probability ratio.")
    cliprange_value: float | None = Field(
        0.2, gt=0, description="null: the value is not clipped; for rewards far from unit scale."
    )
    vf_coef: float = Field(0.1, gt=0, description="Weight of the value loss.")
    whiten_advantages: bool = Field(True, description="Advantages of a rollout get mean 0 and variance 1.")
    mask_truncated_completions: bool = Field(
        False, description="Responses that hit the length limit take no part in whitening and losses."
    )
    value_model: Literal["reward", "zero", "shared"] = Field(
        "reward",
        description="Start of the value model: the run's reward model where PPO trains on it (else as zero); "
        "zero: the SFT policy with a head of zeros; shared: such a head on the policy itself, one forward for both.",
    )
    value_warmup_updates: int = Field(0, ge=0, description="First updates in which only the value model trains.")

    # scores
    reward_normalization: Literal["model", "running", "none"] = Field(
        "model",
        description="model: scores to mean 0, deviation 1 by what the run's reward model gave SFT responses (other "
        "sources stay as they are); running: by all scores of the training so far.",
    )
    reward_clip: float | None = Field(10.0, gt=0, description="Bound of every score after normalization; null: none.")
    missing_eos_penalty: float = Field(
        1.0, ge=0, description="Subtracted where a response hit the length limit without EOS or a stop token."
    )

    # watching and keeping
    logging_steps: int = cosmetic(1, ge=1, description="Updates between two lines of metrics.jsonl.")
    eval_steps: int | None = Field(
        None, ge=1, description="Updates between two evaluations on held-out prompts; null: a tenth of the training."
    )
    num_eval_prompts: int = Field(64, ge=0, description="Held-out prompts answered and scored in every evaluation.")
    load_best_model_at_end: bool = Field(
        False, description="Publish the best policy by held-out score within kl_limit instead of the last."
    )
    save_steps: int = cosmetic(20, ge=1, description="Updates between two checkpoints.")
    save_total_limit: int = cosmetic(2, ge=1, description="Checkpoints kept.")

    @model_validator(mode="after")
    def _agrees(self) -> PpoSection:
        for name in ("num_mini_batches", "num_generations"):
            if self.rollout_batch_size % getattr(self, name):
                raise ValueError(
                    f"rollout_batch_size {self.rollout_batch_size} is not a multiple of {name} {getattr(self, name)}"
                )
        for name in ("warmup_updates", "value_warmup_updates"):
            if getattr(self, name) >= self.num_updates and getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} fills the whole training of {self.num_updates} updates")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target multiplies kl_coef, which must be above 0")
        if self.kl_target is not None and self.kl_horizon < self.rollout_batch_size:
            raise ValueError(f"kl_horizon {self.kl_horizon} is below rollout_batch_size {self.rollout_batch_size}")
        if self.reward.uses("gold"):
            raise ValueError("the gold scorer judges; it must not train: use another kind for ppo.reward")
        return self

    @property
    def num_updates(self) -> int:
        """Rollouts in the whole training."""
        return -(-self.total_episodes // self.rollout_batch_size)

    @property
    def evaluation_interval(self) -> int:
        """Updates between two evaluations on held-out prompts."""
        return self.eval_steps or max(1, self.num_updates // 10)
