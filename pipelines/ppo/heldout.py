"""Held-out prompts answered during the training, and the best policy by what they say."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pipelines.config.ppo_section import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.models.forward import TokenBatch
from pipelines.ppo.engines.transformers_engine import RolloutEngine
from pipelines.ppo.objective import k1, masked_sum
from pipelines.ppo.roles import Roles
from pipelines.ppo.rollout import Reward, finite_scores

SHOWN = 16
"""Answers that every evaluation writes to samples.jsonl."""
CRITERION = "highest mean held-out score among the evaluations whose held-out KL is at most ppo.kl_limit"

Log = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Heldout:
    """Answers the held-out prompts with the policy as it is, always with the same random numbers.

    Attributes:
        prompts: of all processes; each answers its share.
        log: writes one line to the named .jsonl.
    """

    prompts: Sequence[EncodedPrompt]
    roles: Roles
    engine: RolloutEngine
    reward: Reward
    encoder: ChatEncoder
    settings: PpoSection
    eos_token_id: int | Sequence[int]
    accelerator: Accelerator
    log: Log
    seed: int

    def evaluate(self, update: int) -> dict[str, float]:
        """Mean score, KL to the reference (k1, nats per response), length and finished share of the answers.

        They go to heldout.jsonl, and some answers to samples.jsonl. Nothing where there is no held-out prompt.
        """
        if not self.prompts:
            return {}
        share = self.prompts[self.accelerator.process_index :: self.accelerator.num_processes]
        sums = self.accelerator.reduce(self._sums(share, update), reduction="sum")
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
        device = self.accelerator.device
        if not prompts:
            return torch.zeros(5, device=device)
        ids = [prompt["prompt_ids"] for prompt in prompts]
        responses = self.engine.generate(ids, seed=self.seed)
        batch = TokenBatch.of(ids, responses, self.eos_token_id).to(device)
        scores = finite_scores(self.reward(batch, prompts, responses))
        self._show(update, prompts, responses, scores, batch)
        chunk, temperature = self.settings.rollout_forward_batch_size, self.settings.temperature
        policy = self.roles.policy_logprobs(batch, temperature, chunk)
        reference = self.roles.reference_logprobs(batch, temperature, chunk)
        kl = masked_sum(k1(policy, reference), batch.response_mask)
        counted = batch.response_mask.sum()
        return torch.stack([scores.new_tensor(len(prompts)), scores.sum(), kl, counted, batch.finished.sum()]).float()

    def _show(
        self,
        update: int,
        prompts: Sequence[EncodedPrompt],
        responses: list[list[int]],
        scores: Tensor,
        batch: TokenBatch,
    ) -> None:
        rows = zip(prompts, responses, scores.tolist(), batch.finished.tolist(), strict=True)
        for prompt, response, score, finished in itertools.islice(rows, SHOWN):
            sample = {
                "update": update,
                "prompt": [message.model_dump() for message in prompt["messages"]],
                "completion": self.encoder.decode(response),
                "score": score,
                "finished": finished,
            }
            self.log("samples", sample)


class Best:
    """The policy with the highest held-out score so far, its weights on the CPU.

    Attributes:
        update: after which it stood; 0 is the start, None: none was offered.
        figures: of that evaluation.
        weights: by name, as `load_state_dict` of the trained module would want them.
    """

    def __init__(self) -> None:
        self.update: int | None = None
        self.figures: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def offer(self, update: int, figures: Mapping[str, float], weights: Callable[[], Mapping[str, Tensor]]) -> bool:
        """Keep the policy of `update` if it is better than the best so far; say whether it is.

        Args:
            figures: of `Heldout.evaluate`.
            weights: gives the parameters of the policy; they are copied.
        """
        if self.update is not None and figures["eval/score"] <= self.figures["eval/score"]:
            return False
        self.update, self.figures = update, dict(figures)
        self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights().items()}
        return True

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"update": self.update, "figures": self.figures, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        self.update, self.figures, self.weights = state["update"], state["figures"], state["weights"]
