"""What is logged of an update."""

from __future__ import annotations

import torch

from pipelines.ppo.objective import Reduce, alone, explained_variance, k1, k3, masked_mean, masked_sum
from pipelines.ppo.rollout import Timing
from pipelines.ppo.types import Rollout, Update


def update_metrics(
    rollout: Rollout, result: Update, kl_coef: float, timing: Timing, seconds: float, reduce: Reduce = alone
) -> dict[str, float]:
    """One line of metrics over all processes, under the names that TRL's PPO used; sums over a response per response.

    Args:
        rollout: the rows of this process.
        result: of the update made with it.
        kl_coef: that its rewards hold.
        timing, seconds: what the rollout and the whole update took on this process.
        reduce: sums over all processes.
    """
    mask = rollout.response_mask
    kl = k1(rollout.logprobs, rollout.ref_logprobs)
    rows, kl_sum, k3_sum, surprise, reward, score, finished, length, tokens = reduce(
        torch.stack(
            [
                sums.double()
                for sums in (
                    mask.new_tensor(len(rollout), dtype=torch.long),
                    masked_sum(kl, mask),
                    masked_sum(k3(rollout.logprobs, rollout.ref_logprobs), mask),
                    masked_sum(-rollout.logprobs, mask),
                    masked_sum(rollout.rewards, mask),
                    rollout.scores.sum(),
                    rollout.finished.sum(),
                    mask.sum(),
                    rollout.attention_mask.sum(),
                )
            ]
        )
    ).tolist()
    return {
        "objective/kl": kl_sum / rows,
        "objective/kl_k3": k3_sum / rows,
        "objective/kl_coef": kl_coef,
        "objective/entropy": surprise / rows,
        "objective/non_score_reward": -kl_coef * kl_sum / rows,
        "objective/rlhf_reward": reward / rows,
        "objective/scores": score / rows,
        "policy/approxkl_avg": result.approx_kl,
        "policy/clipfrac_avg": result.policy_clipfrac,
        "policy/entropy_avg": result.entropy,
        "policy/grad_norm": result.policy_grad_norm,
        "policy/stopped_early": float(result.stopped_early),
        "loss/policy_avg": result.policy_loss,
        "loss/value_avg": result.value_loss,
        "val/clipfrac_avg": result.value_clipfrac,
        "val/ratio": result.ratio_mean,
        "val/ratio_var": result.ratio_var,
        "val/first_ratio_deviation": result.first_ratio_deviation,
        "val/num_eos_tokens": finished,
        "val/finished": finished / rows,
        "val/response_length": length / rows,
        "val/value_mean": float(masked_mean(rollout.values, rollout.loss_mask, reduce)),
        "val/explained_variance": float(explained_variance(rollout.values, rollout.returns, rollout.loss_mask, reduce)),
        "val/grad_norm": result.value_grad_norm,
        "val/optimizer_steps": float(result.optimizer_steps),
        "time/seconds": seconds,
        "time/generation": timing.generation,
        "time/scoring": timing.scoring,
        "time/tokens_per_second": tokens / seconds,
    }
