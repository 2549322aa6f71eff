"""The policies of an evaluation, their answers, and how far each has moved from the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from pipelines.config import Config
from pipelines.data.encode import ChatEncoder, EncodedPrompt
from pipelines.models.forward import TokenBatch, per_token, response_logprobs
from pipelines.models.generate import sample
from pipelines.models.machine import autocast
from pipelines.models.policies import open_frozen_policy, open_tokenizer
from pipelines.scorers import Completion


class Policies:
    """The policies of a run by name: ``base``, ``sft``, ``ppo``, and ``ppo-2`` ... for later rounds of feedback."""

    def __init__(self, config: Config, inputs: Mapping[str, Path], device: torch.device) -> None:
        self._config = config
        self._inputs = inputs
        self._device = device

    @property
    def names(self) -> tuple[str, ...]:
        """The requested policies that exist, and always the baseline, in the order of training."""
        trained = [name for name in self._inputs if name.partition("-")[0] == "ppo"]
        existing = ["base", *(["sft"] if "sft" in self._inputs else []), *trained]
        requested = {*self._config.eval.policies, self.baseline}
        return tuple(name for name in existing if name.partition("-")[0] in requested)

    @property
    def baseline(self) -> str:
        """The policy that others are compared with, and the reference of the KL: SFT, or base where SFT is off."""
        return "sft" if "sft" in self._inputs else "base"

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Open the one tokenizer of the run, with its chat template."""
        return open_tokenizer(self._inputs.get("sft"), self._config.model)

    def open(self, name: str) -> nn.Module:
        """Open a policy; see `open_frozen_policy`."""
        config, stage_dir = self._config, self._inputs[name] if name != "base" else None
        return open_frozen_policy(stage_dir, config.model, self._device, self.tokenizer(), config.run.seed)


def answer(
    model: nn.Module,
    prompts: Sequence[EncodedPrompt],
    encoder: ChatEncoder,
    eos_token_id: Sequence[int],
    config: Config,
    on_batch: Callable[[int], None],
) -> list[Completion]:
    """Sample one answer to each prompt; every policy gets the same seed."""
    with autocast(config.model, next(model.parameters()).device):
        responses = sample(
            model,
            [prompt["prompt_ids"] for prompt in prompts],
            max_new_tokens=config.ppo.response_length,
            temperature=config.eval.temperature,
            eos_token_id=eos_token_id,
            batch_size=config.eval.batch_size,
            seed=config.run.seed,
            on_batch=on_batch,
        )
    return [Completion(encoder.decode(ids), tuple(ids), ids[-1] in eos_token_id) for ids in responses]


def sequence_logprobs(
    model: nn.Module,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    eos_token_id: Sequence[int],
    config: Config,
    on_batch: Callable[[int], None],
) -> list[float]:
    """Log-probability of each whole answer in nats, under the tempered policy that was sampled from.

    The mean over answers of a policy's own value minus the reference's is an unbiased estimate of the KL divergence
    between the two, per answer (k1 summed over the tokens; the EOS counts).
    """
    device = next(model.parameters()).device
    batch = TokenBatch.of(
        [prompt["prompt_ids"] for prompt in prompts], [answer.ids for answer in completions], eos_token_id
    )

    def batch_logprobs(part: TokenBatch) -> Tensor:
        logprobs = response_logprobs(model, part.to(device), config.eval.temperature)[0].cpu()
        on_batch(len(part))
        return logprobs

    with autocast(config.model, device):
        tokens = per_token(batch, config.eval.batch_size, batch_logprobs)
    totals: list[float] = torch.where(batch.response_mask, tokens.double(), 0.0).sum(-1).tolist()
    return totals
