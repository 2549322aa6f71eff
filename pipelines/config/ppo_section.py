"""`ppo`: proximal policy optimization. Names follow TRL's PPOConfig where it had one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pipelines.config.scorer_section import ScorerSection
from pipelines.config.section import Section, by_kind, cosmetic

_VALUE_SETTINGS = (
    "value_learning_rate",
    "lam",
    "cliprange_value",
    "vf_coef",
    "value_model",
    "value_warmup_updates",
)
"""Settings that only a training with a value model reads."""


class PpoSection(Section):
    """One update: `rollout_batch_size` episodes, then `num_ppo_epochs` x `num_mini_batches` optimizer steps."""

    enabled: bool = Field(True, description="Whether the run has PPO.")
    reward: ScorerSection = Field(ScorerSection(), description="Source of the scores that PPO maximizes.")
    reward_gate: Literal["refuse", "warn"] = cosmetic(
        "refuse",
        description="Treatment of a reward model whose accuracy on at least 200 held-out pairs may be chance, or is no "
        "better than choosing by length: refuse (exit code 7), or warn and go on.",
    )

    # how much, and in what pieces
    total_episodes: int = Field(
        10000, ge=1, description="Total number of generated responses; rounded up to whole updates."
    )
    rollout_batch_size: int = by_kind(
        "ppo.rollout_batch_size",
        ge=1,
        description="Number of episodes (responses) in one update, over all processes.",
    )
    num_generations: int = Field(
        1,
        ge=1,
        description="Number of responses to each prompt in a rollout; must divide rollout_batch_size. At least 2 with "
        "advantage_estimator rloo and grpo.",
    )
    last_update: int | None = Field(
        None,
        ge=1,
        description="Number of the update after which training stops, with the learning rates of the whole training; "
        "null: it goes on to the end. `rlhf ppo --use-best` sets it.",
    )
    num_ppo_epochs: int = Field(2, ge=1, description="Number of passes over each rollout.")
    num_mini_batches: int = Field(4, ge=1, description="Number of optimizer steps in one pass.")
    per_device_train_batch_size: int = cosmetic(
        8,
        ge=1,
        description="Micro-batch size: number of rows of full width in one backward pass, or more shorter ones. "
        "Affects memory, never the result.",
    )
    rollout_forward_batch_size: int = Field(
        32, ge=1, description="Number of rows in one generation or scoring pass; the sampled tokens depend on it."
    )

    # prompts and responses
    max_prompt_length: int = Field(512, ge=1, description="Maximum length of a prompt in tokens.")
    overlong: Literal["drop", "cut", "fail"] = Field(
        "drop",
        description="Treatment of longer prompts: drop; cut (keep the start, only without a chat template); or fail.",
    )
    response_length: int = by_kind("ppo.response_length", ge=1, description="Maximum length of a response in tokens.")
    stop_tokens: list[str] = Field(
        [], description="Tokens that end a response, beside EOS; each must be a single token of the tokenizer."
    )
    temperature: float = Field(
        1.0, gt=0, description="Sampling temperature; the policy in training is the tempered one."
    )
    top_k: int = Field(
        0,
        ge=0,
        description="Number of most likely tokens to sample from; 0: all tokens. Ratio and KL remain those of the "
        "whole policy.",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Probability mass of the most likely tokens to sample from. Ratio and KL remain those of the whole "
        "policy.",
    )

    # optimizer
    learning_rate: float = by_kind(
        "ppo.learning_rate", gt=0, description="Learning rate of the policy's Adam optimizer."
    )
    value_learning_rate: float = by_kind(
        "ppo.value_learning_rate",
        gt=0,
        description="Learning rate of the value model's Adam optimizer, or of its head alone if the value model is "
        "shared.",
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        "linear",
        description="Schedule of both learning rates after the warm-up: linear and cosine fall to 0, constant does "
        "not.",
    )
    warmup_updates: int | None = Field(
        None,
        ge=0,
        description="Number of updates (rollouts) over which both learning rates rise from 0; null: a tenth of the "
        "training, at most 5.",
    )
    adam_eps: float = Field(1e-8, gt=0, description="Epsilon of both Adam optimizers.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="Maximum norm of the gradient, applied to the policy and to the value model separately."
    )
    gradient_checkpointing: bool = cosmetic(
        False, description="Whether to recompute activations in the backward pass: less memory, more time."
    )

    # the penalty for leaving the reference
    kl_coef: float = Field(
        0.05,
        ge=0,
        description="Weight of the per-token KL penalty (k1) in the reward; with kl_target, its initial value.",
    )
    kl_target: float | None = Field(
        None, gt=0, description="KL per response, in nats, that kl_coef is adapted to reach; null: kl_coef is fixed."
    )
    kl_horizon: int = Field(
        10000,
        ge=1,
        description="Number of episodes in which kl_coef changes by about a fifth at most (with kl_target).",
    )
    kl_early_stop: float | None = Field(
        None,
        gt=0,
        description="KL per token between the updated and the sampling policy at which the rest of an update is "
        "skipped; null: never.",
    )
    kl_limit: float = Field(
        50.0, gt=0, description="Maximum KL per response, in nats, of a policy that may count as the best."
    )

    # advantages and losses
    advantage_estimator: Literal["gae", "rloo", "grpo"] = Field(
        "gae",
        description="Source of the advantages: gae (generalized advantage estimation with a value model); rloo (reward "
        "of a response, less the mean of the other responses to its prompt); or grpo (reward of a response at mean 0 "
        "and standard deviation 1 among the responses to its prompt). rloo and grpo have no value model: its settings "
        "and lam have no effect.",
    )
    gamma: float = Field(1.0, gt=0, le=1, description="Discount factor per token.")
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of generalized advantage estimation.")
    cliprange: float = Field(0.2, gt=0, description="Clip range of the probability ratio.")
    cliprange_high: float | None = Field(
        None,
        gt=0,
        description="Clip range of the probability ratio above 1, where cliprange is that below; null: cliprange is "
        "both.",
    )
    cliprange_value: float | None = Field(
        0.2, gt=0, description="Clip range of the value; null: no clipping, for rewards far from unit scale."
    )
    vf_coef: float = Field(0.1, gt=0, description="Weight of the value loss.")
    whiten_advantages: bool | None = Field(
        None,
        description="Whether to scale the advantages of a rollout to mean 0 and variance 1; null: yes with gae, no "
        "with rloo and grpo, whose advantages are centered by prompt.",
    )
    mask_truncated_completions: bool = Field(
        False, description="Whether to leave responses that reach the length limit out of whitening and losses."
    )
    value_model: Literal["reward", "zero", "shared"] = Field(
        "reward",
        description="Start of the value model: reward (the run's reward model if it is the reward or a part of it, "
        "else as zero); zero (the SFT policy with a head of zeros); or shared (such a head on the policy itself, with "
        "one forward pass for both).",
    )
    value_warmup_updates: int = Field(
        0, ge=0, description="Number of first updates in which only the value model is trained."
    )

    # scores
    reward_normalization: Literal["model", "running", "none"] | None = Field(
        None,
        description="Scaling of scores to mean 0 and standard deviation 1: model uses the scores of SFT responses, "
        "measured with the run's reward model (other sources are not scaled); running uses all scores so far;"
        " none does nothing. null: model if the run's reward model is the source or a part of it, else running.",
    )
    reward_clip: float | None = Field(
        10.0, gt=0, description="Maximum absolute value of a score after normalization; null: no limit."
    )
    missing_eos_penalty: float = Field(
        1.0,
        ge=0,
        description="Penalty on the score of a response that reaches the length limit without EOS or a stop token.",
    )
    length_penalty: float = Field(
        0.0,
        ge=0,
        description="Penalty on the score of a response of response_length tokens; it grows linearly from 0 at "
        "length_penalty_start.",
    )
    length_penalty_start: int | None = Field(
        None,
        ge=0,
        description="Number of tokens from which on length_penalty grows; null: half of response_length.",
    )

    # watching and keeping
    on_alarm: Literal["warn", "act"] = Field(
        "warn",
        description="Reaction to an alarm: warn only; or act, by the table in docs/ppo.md: raise kl_coef, go back to "
        "the last good state, or stop and publish it.",
    )
    logging_steps: int = cosmetic(1, ge=1, description="Number of updates between two lines of metrics.jsonl.")
    eval_steps: int | None = Field(
        None,
        ge=1,
        description="Number of updates between two evaluations on held-out prompts; null: a tenth of the training.",
    )
    num_eval_prompts: int = Field(
        64, ge=0, description="Number of held-out prompts that are answered and scored in every evaluation."
    )
    load_best_model_at_end: bool = Field(
        False,
        description="Whether to publish the policy with the best held-out objective (scores as rewarded, less the KL "
        "penalty) within kl_limit instead of the last one.",
    )
    save_steps: int = cosmetic(20, ge=1, description="Number of updates between two checkpoints.")
    save_total_limit: int = cosmetic(2, ge=1, description="Maximum number of checkpoints kept.")

    @model_validator(mode="after")
    def _agrees(self) -> PpoSection:
        for name in ("num_mini_batches", "num_generations"):
            if self.rollout_batch_size % getattr(self, name):
                raise ValueError(
                    f"rollout_batch_size {self.rollout_batch_size} is not a multiple of {name} {getattr(self, name)}"
                )
        if not self.has_value_model:
            if self.num_generations < 2:
                raise ValueError(
                    f"advantage_estimator {self.advantage_estimator} compares the responses to one prompt: set "
                    f"num_generations to 2 or more (it is {self.num_generations})"
                )
            if self.value_warmup_updates:
                raise ValueError(
                    f"value_warmup_updates {self.value_warmup_updates}: advantage_estimator {self.advantage_estimator} "
                    "has no value model"
                )
            if self.gamma != 1:
                raise ValueError(
                    f"gamma {self.gamma:g}: advantage_estimator {self.advantage_estimator} takes a whole response as "
                    "one action, so nothing is discounted; gamma must be 1"
                )
        for name in ("warmup_updates", "value_warmup_updates"):
            if (getattr(self, name) or 0) >= self.num_updates:
                raise ValueError(f"{name} {getattr(self, name)} fills the whole training of {self.num_updates} updates")
        if (self.last_update or 0) > self.num_updates:
            raise ValueError(f"last_update {self.last_update} is above the {self.num_updates} updates of the training")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target multiplies kl_coef, which must be above 0")
        if self.kl_target is not None and self.kl_horizon < self.rollout_batch_size:
            raise ValueError(f"kl_horizon {self.kl_horizon} is below rollout_batch_size {self.rollout_batch_size}")
        if self.length_penalty and self.penalized_from >= self.response_length:
            raise ValueError(
                f"length_penalty_start {self.penalized_from} leaves no room below response_length "
                f"{self.response_length}"
            )
        if self.reward.uses("gold"):
            raise ValueError("the gold scorer judges; it must not train: use another kind for ppo.reward")
        return self

    def results_view(self) -> dict[str, Any]:
        """Values that affect results; what is new and off is left out, so that older runs stay complete."""
        view = super().results_view() | {
            "reward_normalization": self.normalization,
            "warmup_updates": self.warmup,
            "whiten_advantages": self.whitens,
        }
        off = [name for name in ("length_penalty", "length_penalty_start") if not self.length_penalty]
        off += ["on_alarm"] if self.on_alarm == "warn" else []
        off += ["last_update"] if self.last_update is None else []
        off += ["cliprange_high"] if self.cliprange_high is None else []
        off += ["advantage_estimator"] if self.has_value_model else _VALUE_SETTINGS
        return {name: value for name, value in view.items() if name not in off}

    @property
    def normalization(self) -> Literal["model", "running", "none"]:
        """`reward_normalization`, or the one for this reward source."""
        return self.reward_normalization or ("model" if self.reward.uses("run") else "running")

    @property
    def has_value_model(self) -> bool:
        """Whether a value model is trained beside the policy."""
        return self.advantage_estimator == "gae"

    @property
    def idle_settings(self) -> list[str]:
        """Settings other than by default that have no effect, because there is no value model to read them."""
        fields = type(self).model_fields
        # the default of value_learning_rate depends on the kind of training, so a value does not tell who set it
        names = [name for name in _VALUE_SETTINGS if name != "value_learning_rate"]
        return [] if self.has_value_model else [name for name in names if getattr(self, name) != fields[name].default]

    @property
    def whitens(self) -> bool:
        """`whiten_advantages`, or the default of the estimator."""
        return self.has_value_model if self.whiten_advantages is None else self.whiten_advantages

    @property
    def warmup(self) -> int:
        """Updates over which the learning rates rise."""
        return min(self.num_updates // 10, 5) if self.warmup_updates is None else self.warmup_updates

    @property
    def cuts_sampling(self) -> bool:
        """Whether responses come from a part of the policy's distribution alone."""
        return self.top_k > 0 or self.top_p < 1

    @property
    def penalized_from(self) -> int:
        """Tokens from which on `length_penalty` grows."""
        start = self.length_penalty_start
        return self.response_length // 2 if start is None else start

    @property
    def num_updates(self) -> int:
        """Rollouts in the whole training."""
        return -(-self.total_episodes // self.rollout_batch_size)

    @property
    def evaluation_interval(self) -> int:
        """Updates between two evaluations on held-out prompts."""
        return self.eval_steps or max(1, self.num_updates // 10)
