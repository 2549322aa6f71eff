"""The prompts of an evaluation, the policies that answer them, and how far each has moved from the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from pipelines.config import Config
from pipelines.data.canonical import read_rows
from pipelines.data.encode import ChatEncoder, cut_prompt
from pipelines.data.rows import Message, Prompt
from pipelines.data.split import FEWEST_EVALUATED, prompt_key
from pipelines.errors import DataError
from pipelines.models.generate import sample
from pipelines.models.machine import autocast
from pipelines.models.policies import open_frozen_policy, open_tokenizer
from pipelines.ppo.forward import per_token, response_logprobs
from pipelines.ppo.types import TokenBatch
from pipelines.scorers import Completion

ORDER_SEED = 1
"""Of the hash that chooses prompts; another one than the split's, whose hashes of held-out prompts are all small."""


@dataclass(frozen=True)
class EvalPrompt:
    """A held-out prompt.

    Attributes:
        messages: the dialogue to be answered.
        ids: its tokens, the beginning of the assistant's turn included.
    """

    messages: tuple[Message, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class PromptCounts:
    """What became of the held-out prompts.

    Attributes:
        heldout: rows in the file.
        repeated: rows whose prompt had come before.
        too_long: prompts above the limit (see `prompt_limit`), left out.
        used: prompts that are answered.
    """

    heldout: int
    repeated: int
    too_long: int
    used: int


def choose_prompts(
    path: Path, encoder: ChatEncoder, config: Config, limit: int
) -> tuple[list[EvalPrompt], PromptCounts]:
    """Up to `eval.num_prompts` held-out prompts in the order of their hashes: the same in every run and for every seed.

    Raises:
        ArtifactError: the file is missing or damaged.
        DataError: fewer than 2 prompts are left.
    """
    rows = [row.prompt for row in read_rows(path, Prompt)]
    distinct = {prompt_key(prompt, ORDER_SEED): prompt for prompt in reversed(rows)}
    fitting = []
    for _, prompt in sorted(distinct.items()):
        length, encoded = cut_prompt(Prompt(prompt=prompt), encoder, limit)
        if encoded is not None and (length <= limit or config.ppo.overlong == "cut"):
            fitting.append(EvalPrompt(encoded["messages"], tuple(encoded["prompt_ids"])))
    chosen = fitting[: config.eval.num_prompts]
    counts = PromptCounts(len(rows), len(rows) - len(distinct), len(distinct) - len(fitting), len(chosen))
    if len(chosen) < FEWEST_EVALUATED:
        raise DataError(
            f"the evaluation needs at least {FEWEST_EVALUATED} held-out prompts and has {len(chosen)}: {len(rows)} are "
            f"held out, {counts.too_long} of them are longer than {limit} tokens",
            where=str(path),
            hint="give more prompts, or raise data.eval_fraction or ppo.max_prompt_length",
        )
    return chosen, counts


class Policies:
    """The policies of a run by name: ``base``, ``sft``, ``ppo``, and ``ppo-2`` ... of later rounds of feedback."""

    def __init__(self, config: Config, inputs: Mapping[str, Path], device: torch.device) -> None:
        self._config = config
        self._inputs = inputs
        self._device = device

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are asked for and there, and always the baseline; in the order of the road."""
        trained = [name for name in self._inputs if name.partition("-")[0] == "ppo"]
        road = ["base", *(["sft"] if "sft" in self._inputs else []), *trained]
        wanted = {*self._config.eval.policies, self.baseline}
        return tuple(name for name in road if name.partition("-")[0] in wanted)

    @property
    def baseline(self) -> str:
        """Whom the others are compared with, and what KL is measured from: SFT, or base where SFT is off."""
        return "sft" if "sft" in self._inputs else "base"

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The one tokenizer of the run, with its chat template."""
        return open_tokenizer(self._inputs.get("sft"), self._config.model)

    def open(self, name: str) -> nn.Module:
        """The policy in evaluation mode."""
        config, stage_dir = self._config, self._inputs[name] if name != "base" else None
        return open_frozen_policy(stage_dir, config.model, self._device, self.tokenizer(), config.run.seed)


def answer(
    model: nn.Module,
    prompts: Sequence[EvalPrompt],
    encoder: ChatEncoder,
    eos_token_id: Sequence[int],
    config: Config,
    on_batch: Callable[[int], None],
) -> list[Completion]:
    """One sampled answer to each prompt; every policy gets the same seed."""
    with autocast(config.model, next(model.parameters()).device):
        responses = sample(
            model,
            [prompt.ids for prompt in prompts],
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
    prompts: Sequence[EvalPrompt],
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
    batch = TokenBatch.of([prompt.ids for prompt in prompts], [answer.ids for answer in completions], eos_token_id)

    def logprobs(part: TokenBatch) -> Tensor:
        found = response_logprobs(model, part.to(device), config.eval.temperature)[0].cpu()
        on_batch(len(part))
        return found

    with autocast(config.model, device):
        tokens = per_token(batch, config.eval.batch_size, logprobs)
    totals: list[float] = torch.where(batch.response_mask, tokens.double(), 0.0).sum(-1).tolist()
    return totals
