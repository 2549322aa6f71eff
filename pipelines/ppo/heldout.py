"""Evaluation on held-out prompts during training, and the best policy by their scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.data.encode import EncodedPrompt
from pipelines.models.forward import TokenBatch
from pipelines.ppo.objective import k1, masked_sum
from pipelines.ppo.rollout import PpoContext, finite_scores

SAMPLES = 16
"""Number of answers that every evaluation writes to samples.jsonl."""
CRITERION = "highest mean held-out score among the evaluations whose held-out KL is at most ppo.kl_limit"

Log = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Heldout:
    """Answers held-out prompts with the current policy, always with the same random numbers.

    Attributes:
        context: models and settings.
        prompts: prompts of all processes; each process answers its share.
        log: writes one line to the named .jsonl.
    """

    context: PpoContext
    prompts: Sequence[EncodedPrompt]
    log: Log

    def evaluate(self, update: int) -> dict[str, float]:
        """Mean score, KL to the reference (k1, nats per response), length and finished share of the answers.

        The figures go to heldout.jsonl, and some answers to samples.jsonl. Empty without held-out prompts.
        """
        if not self.prompts:
            return {}
        accelerator = self.context.accelerator
        share = self.prompts[accelerator.process_index :: accelerator.num_processes]
        sums = accelerator.reduce(self._sums(share, update), reduction="sum")
        count, score, kl, length, finished = sums.tolist()
        figures = {
            "eval/score": score / count,
            "eval/kl": kl / count,
            "eval/response_length": length / count,
            "eval/finished": finished / count,
        }
        self.log("heldout", {"update": update, **figures})
        return figures

    @torch.no_grad()
    def _sums(self, prompts: Sequence[EncodedPrompt], update: int) -> Tensor:
        context, settings = self.context, self.context.settings
        if not prompts:
            return torch.zeros(5, device=context.accelerator.device)
        responses, batch = context.respond(prompts, context.seed)
        scores = finite_scores(context.reward(batch, prompts, responses))
        self._log_samples(update, prompts, responses, scores, batch)
        policy, reference = (
            logprobs(batch, settings.temperature, settings.rollout_forward_batch_size)
            for logprobs in (context.roles.policy_logprobs, context.roles.reference_logprobs)
        )
        kl = masked_sum(k1(policy, reference), batch.response_mask)
        tokens = batch.response_mask.sum()
        return torch.stack([scores.new_tensor(len(prompts)), scores.sum(), kl, tokens, batch.finished.sum()]).float()

    def _log_samples(
        self,
        update: int,
        prompts: Sequence[EncodedPrompt],
        responses: list[list[int]],
        scores: Tensor,
        batch: TokenBatch,
    ) -> None:
        rows = zip(prompts, responses, scores.tolist(), batch.finished.tolist(), strict=True)
        for prompt, response, score, finished in itertools.islice(rows, SAMPLES):
            sample = {
                "update": update,
                "prompt": [message.model_dump() for message in prompt["messages"]],
                "completion": self.context.encoder.decode(response),
                "score": score,
                "finished": finished,
            }
            self.log("samples", sample)


class Best:
    """The policy with the highest held-out score so far, its weights on the CPU.

    Attributes:
        update: number of the update that made it; 0 is the start, None: there is none yet.
        figures: figures of its evaluation.
        weights: parameters by name, for `load_state_dict` of the trained module.
    """

    def __init__(self) -> None:
        self.update: int | None = None
        self.figures: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def offer(self, update: int, figures: Mapping[str, float], weights: Callable[[], Mapping[str, Tensor]]) -> bool:
        """Keep the policy of `update` if it is better than the best so far.

        Args:
            update: number of the update.
            figures: result of `Heldout.evaluate`.
            weights: returns the parameters of the policy; they are copied.

        Returns:
            Whether it was kept.
        """
        if self.update is not None and figures["eval/score"] <= self.figures["eval/score"]:
            return False
        self.update, self.figures = update, dict(figures)
        self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights().items()}
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"update": self.update, "figures": self.figures, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.update, self.figures, self.weights = state["update"], state["figures"], state["weights"]
