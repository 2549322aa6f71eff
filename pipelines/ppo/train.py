"""PPO from start to end: the only file that knows all its parts.

Every update is five steps: draw prompts, collect a rollout, learn from it, log, now and then answer held-out prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from transformers import get_scheduler

from pipelines.config.ppo import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.ppo.generation import RolloutEngine
from pipelines.ppo.learner import Learner
from pipelines.ppo.objective import explained_variance, k1, k3, masked_mean, masked_sum
from pipelines.ppo.roles import Roles
from pipelines.ppo.rollout import Reward, Timing, collect
from pipelines.ppo.types import Rollout, TokenBatch, Update
from pipelines.progress import Reporter

STARTING_POINT = ("objective/kl", "objective/scores", "val/finished", "val/response_length")
"""Metrics of the first update that are kept beside those of the last."""
Log = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Training:
    """What a PPO training is made of.

    Attributes:
        prompts: to be answered in training.
        held_out: answered at start, middle and end only, and written to samples.jsonl.
        log: writes one line to the named .jsonl.
    """

    roles: Roles
    engine: RolloutEngine
    reward: Reward
    encoder: ChatEncoder
    eos_token_id: int
    prompts: Sequence[EncodedPrompt]
    held_out: Sequence[EncodedPrompt]
    settings: PpoSection
    accelerator: Accelerator
    reporter: Reporter
    log: Log
    seed: int

    def run(self) -> dict[str, float]:
        """Train the policy in place.

        Returns:
            The metrics of the last update, and a few of the first under ``start/``.

        Raises:
            TrainingError: a score, a loss or a gradient is not finite.
        """
        settings, roles, accelerator = self.settings, self.roles, self.accelerator
        roles.freeze_but_trained()
        if settings.gradient_checkpointing:
            roles.enable_gradient_checkpointing()
        policy, value = roles.policy.parameters(), roles.value.parameters()
        optimizer = torch.optim.AdamW(
            [
                {"params": policy, "lr": settings.learning_rate},
                {"params": value, "lr": settings.value_learning_rate},
            ],
            eps=settings.adam_eps,
            weight_decay=0.0,
        )
        updates = settings.num_updates
        scheduler = get_scheduler(settings.lr_scheduler_type, optimizer, 0, updates)
        module = accelerator.prepare_model(roles.trained)
        learner = Learner(module, policy, value, optimizer, settings, accelerator)
        shuffle = torch.Generator().manual_seed(self.seed)
        stream = PromptStream(self.prompts, self.seed)
        metrics: dict[str, float] = {}
        first: dict[str, float] = {}
        self._answer_held_out(0)
        with self.reporter.task("ppo", updates) as progress:
            for update in range(1, updates + 1):
                started = time.perf_counter()
                prompts = stream.take(settings.rollout_batch_size)
                rollout, timing, figures = self._collect(prompts, update)
                result = learner.update(rollout, shuffle)
                seconds = time.perf_counter() - started
                metrics = update_metrics(rollout, result, settings, timing, seconds)
                metrics |= {
                    "lr": scheduler.get_last_lr()[0],
                    "episode": update * settings.rollout_batch_size,
                    **figures,
                }
                first = first or metrics
                scheduler.step()
                if update % settings.logging_steps == 0 or update in (1, updates):
                    self.log("metrics", {"update": update, **metrics})
                    accelerator.log(metrics, step=update)
                if update in (updates // 2, updates):
                    self._answer_held_out(update)
                progress.advance(
                    1,
                    kl=metrics["objective/kl"],
                    reward=metrics["objective/scores"],
                    tokens_per_second=metrics["time/tokens_per_second"],
                )
        return metrics | {f"start/{name}": first[name] for name in STARTING_POINT}

    def _collect(self, prompts: Sequence[EncodedPrompt], update: int) -> tuple[Rollout, Timing, Mapping[str, float]]:
        return collect(
            prompts,
            self.roles,
            self.engine,
            self.reward,
            self.settings,
            eos_token_id=self.eos_token_id,
            device=self.accelerator.device,
            seed=self.seed * 1_000_003 + update,
        )

    def _answer_held_out(self, update: int) -> None:
        """Answer the held-out prompts and write answers and scores to samples.jsonl."""
        if not self.held_out:
            return
        responses = self.engine.generate([prompt["prompt_ids"] for prompt in self.held_out], seed=self.seed)
        batch = TokenBatch.of([prompt["prompt_ids"] for prompt in self.held_out], responses, self.eos_token_id)
        scores = self.reward(batch.to(self.accelerator.device), self.held_out, responses).scores
        rows = zip(self.held_out, responses, scores.tolist(), batch.finished.tolist(), strict=True)
        for prompt, response, score, finished in rows:
            sample = {
                "update": update,
                "prompt": [message.model_dump() for message in prompt["messages"]],
                "completion": self.encoder.decode(response),
                "score": score,
                "finished": finished,
            }
            self.log("samples", sample)


class PromptStream:
    """Prompts without end: every pass over them in a new order, given by the seed and the number of the pass."""

    def __init__(self, prompts: Sequence[EncodedPrompt], seed: int) -> None:
        self.prompts, self.seed = prompts, seed
        self.position = 0
        self._pass, self._order = -1, torch.empty(0)

    def take(self, count: int) -> list[EncodedPrompt]:
        """The next `count` prompts."""
        taken = []
        for position in range(self.position, self.position + count):
            number, index = divmod(position, len(self.prompts))
            if number != self._pass:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
                self._pass, self._order = number, torch.randperm(len(self.prompts), generator=generator)
            taken.append(self.prompts[int(self._order[index])])
        self.position += count
        return taken


def update_metrics(
    rollout: Rollout, result: Update, settings: PpoSection, timing: Timing, seconds: float
) -> dict[str, float]:
    """One line of metrics, under the names that TRL's PPO used; sums over a response are averaged over rows."""
    mask, rows = rollout.response_mask, len(rollout)
    kl = k1(rollout.logprobs, rollout.ref_logprobs)
    kl_sum = masked_sum(kl, mask) / rows
    lengths = mask.sum(-1).float()
    non_score = -settings.kl_coef * kl_sum
    tokens = int(rollout.attention_mask.sum())
    return {
        "objective/kl": float(kl_sum),
        "objective/kl_k3": float(masked_sum(k3(rollout.logprobs, rollout.ref_logprobs), mask) / rows),
        "objective/entropy": float(masked_sum(-rollout.logprobs, mask) / rows),
        "objective/non_score_reward": float(non_score),
        "objective/rlhf_reward": float(torch.where(mask, rollout.rewards, 0.0).sum() / rows),
        "objective/scores": float(rollout.scores.mean()),
        "policy/approxkl_avg": result.approx_kl,
        "policy/clipfrac_avg": result.policy_clipfrac,
        "policy/entropy_avg": result.entropy,
        "policy/grad_norm": result.policy_grad_norm,
        "loss/policy_avg": result.policy_loss,
        "loss/value_avg": result.value_loss,
        "val/clipfrac_avg": result.value_clipfrac,
        "val/ratio": result.ratio_mean,
        "val/ratio_var": result.ratio_var,
        "val/first_ratio_deviation": result.first_ratio_deviation,
        "val/num_eos_tokens": float(rollout.finished.sum()),
        "val/finished": float(rollout.finished.float().mean()),
        "val/response_length": float(lengths.mean()),
        "val/value_mean": float(masked_mean(rollout.values, mask)),
        "val/explained_variance": float(explained_variance(rollout.values, rollout.returns, mask)),
        "val/grad_norm": result.value_grad_norm,
        "val/optimizer_steps": float(result.optimizer_steps),
        "time/seconds": seconds,
        "time/generation": timing.generation,
        "time/scoring": timing.scoring,
        "time/tokens_per_second": tokens / seconds,
    }
