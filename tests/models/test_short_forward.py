"""What a forward leaves out changes no number: pads, logits of prompts, and a second table of logits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from pipelines.models import log_probabilities
from pipelines.models.forward import TokenBatch, response_logprobs, state_values
from pipelines.models.log_probabilities import linear_logprobs, token_entropy, token_logprobs
from pipelines.models.own_head import trunk_of
from pipelines.models.short_forward import linear_head, takes_lines, try_short_ways
from tests.models.decoders import DECODERS, REFUSED, tiny_decoder
from tests.ppo.cast import cast
from tests.ppo.test_update import SETTINGS, gradients, rollout_of, scorer_role
from tests.tiny import FAMILIES, WINDOW, tiny_causal, tiny_llama, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
EOS = int(TOKENIZER.eos_token_id)
PROMPTS = [[20, 21], [30, 31, 32, 33, 34, 35, 36, 37, 38], [40, 41, 42, 43, 44]]
RESPONSES = [[50, 51, 52, 53, 54, 55, 56, 57], [60, EOS], [70, 71, 72, EOS]]
BATCH = TokenBatch.of(PROMPTS, RESPONSES, EOS)
WHOLE = {
    *("bamba", "bloom", "codegen", "doge", "falcon", "falcon_h1", "falcon_mamba", "flint", "gemma2", "gpt_neo"),
    *("gpt_neox_japanese", "gpt_oss", "gptj", "granite_swa", "granitemoe_swa", "granitemoehybrid", "jamba"),
    *("lfm2_moe", "lfm3", "mamba", "mamba2", "mimo_v2_flash", "minimax", "mpt", "nemotron_h", "olmo_hybrid"),
    *("openai-gpt", "opt", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "vaultgemma", "xglm"),
}
"""Families that keep their pads: other masks or positions than by attention's interface, states, or no "sdpa"."""


def of_plain_logits(states: Tensor, weight: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = nn.functional.linear(states, weight)[None]
    return token_logprobs(logits, tokens[None], temperature)[0], token_entropy(logits.detach(), temperature)[0]


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("learns", ["both", "states", "weight"])
def test_a_linear_heads_logprobs_entropy_and_gradients_are_those_of_its_logits(
    monkeypatch: pytest.MonkeyPatch, learns: str, parts: int
) -> None:
    torch.manual_seed(0)
    rows, hidden, vocabulary = 11, 16, 300
    monkeypatch.setattr(log_probabilities, "LARGEST", -(-rows // parts) * vocabulary)
    monkeypatch.setattr(log_probabilities, "CACHED", 2 * vocabulary)
    tokens, factors = torch.randint(0, vocabulary, (rows,)), torch.randn(rows)
    results = []
    for function in (of_plain_logits, linear_logprobs):
        torch.manual_seed(1)
        states, weight = (torch.randn(size, hidden) for size in (rows, vocabulary))
        states.requires_grad_(learns != "weight")
        weight.requires_grad_(learns != "states")
        logprobs, entropy = function(states, weight, tokens, 0.7)
        assert logprobs.requires_grad > entropy.requires_grad
        (logprobs * factors).sum().backward()
        results.append([logprobs.detach(), entropy, *(leaf.grad for leaf in (states, weight) if leaf.requires_grad)])
    assert len(results[1]) == {"both": 4}.get(learns, 3)
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_logprobs_of_a_linear_head_are_fp32_where_its_products_are_bf16() -> None:
    torch.manual_seed(0)
    states, weight, tokens = torch.randn(5, 16), torch.randn(300, 16, requires_grad=True), torch.arange(5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = nn.functional.linear(states, weight)
        expected = torch.log_softmax(logits.double(), -1)[range(5), tokens]
        logprobs, _ = linear_logprobs(states, weight, tokens, 1.0)
    assert logits.dtype == torch.bfloat16
    assert logprobs.dtype == torch.float32
    assert float((logprobs.double() - expected).abs().max()) < 1e-5
    logprobs.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def learning(model: PreTrainedModel, batch: TokenBatch) -> list[Tensor]:
    """Log-probabilities, entropy, values where they count, and the gradients of a sum of them."""
    head = nn.Linear(trunk_of(model)[1].config.hidden_size, 1)
    nn.init.ones_(head.weight)
    nn.init.zeros_(head.bias)
    logprobs, entropy, hidden = response_logprobs(model, batch, 0.7, with_entropy=True)
    assert entropy is not None
    tensors = [tensor[batch.response_mask] for tensor in (logprobs, entropy, state_values(hidden, batch, head))]
    model.zero_grad()
    (tensors[0] - 0.1 * tensors[2]).sum().backward()
    return [*tensors, *(weight.grad for weight in model.parameters() if weight.grad is not None)]


def check(model: PreTrainedModel, *, lines: bool) -> None:
    expected = learning(copy.deepcopy(model), BATCH)
    try_short_ways(model)
    assert takes_lines(trunk_of(model)[1]) == lines
    for one, two in zip(learning(model, BATCH), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-5 * float(two.abs().max().clamp(min=1)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_same_numbers_and_gradients_by_the_short_way(family: str) -> None:
    assert max(map(sum, BATCH.lengths)) > WINDOW
    model = tiny_causal(family, TOKENIZER)
    check(model, lines=family not in WHOLE)
    assert (linear_head(model) is not None) == (family not in {"gemma2", "granite"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in DECODERS if (kind, 0) not in REFUSED and kind != "opt"])
def test_so_does_every_decoder(kind: str) -> None:
    check(tiny_decoder(kind).eval(), lines=kind not in WHOLE)


def test_logits_that_are_scaled_or_capped_are_no_linear_head() -> None:
    changes: list[dict[str, Any]] = [{"final_logit_softcapping": 1000.0}, {"final_logit_softcapping": None}]
    capped, free = (tiny_causal("gemma2", TOKENIZER, **change) for change in changes)
    for model in (capped, free):
        try_short_ways(model)
    assert linear_head(capped) is None
    assert linear_head(free) is not None


class Sizes(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def test_an_update_holds_no_table_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = scorer_role(cast(tiny_llama(TOKENIZER, hidden=16)))
    rollout = rollout_of(roles)
    answers, vocabulary = int(rollout.response_mask.sum()), roles.policy.model.config.vocab_size
    monkeypatch.setattr(log_probabilities, "LARGEST", 5 * vocabulary)
    settings = SETTINGS.model_copy(update={"per_device_train_batch_size": 8})
    weights = max(weight.numel() for weight in roles.policy.model.parameters())
    with Sizes() as sizes:
        gradients(roles, rollout, settings)
    assert answers * vocabulary > 2 * weights
    assert sizes.largest <= max(weights, 5 * vocabulary)
