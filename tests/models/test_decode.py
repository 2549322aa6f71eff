"""The decoding loop gives what `generate` of transformers gives, with less work."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from pipelines.models import generate
from pipelines.models.adapters import adapter, merged
from pipelines.models.decode import can_decode
from pipelines.models.generate import sample
from tests.models.decoders import TOKENIZER, tiny_decoder
from tests.models.helpers import outside_base
from tests.models.test_adapters import carrier, section
from tests.tiny import WINDOW, tiny_causal, tiny_llama

EOS = int(TOKENIZER.eos_token_id)
END = 2
PROMPTS = [[20, 21], [30, 31, 32, 33, 34], [30, 31, 32, 33, 34], list(range(40, 65)), [40, 41, 42], [5] * 12]
PLAIN = """
    bloom cohere deepseek_v3 falcon gemma gpt2 gpt_bigcode gpt_neox gptj granite llama mixtral mpt nanochat olmo2 opt
    phi qwen2 qwen3 qwen3_moe smollm3 stablelm starcoder2 xglm
"""
SPECIAL = "bamba falcon_h1 jamba lfm3 mamba mamba2 nemotron_h olmo_hybrid phi3 qwen3_5_text qwen3_next"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each of the two ways was taken."""
    counts: Counter[str] = Counter()
    for name in ("decode", "_generate"):
        whole = getattr(generate, name)
        monkeypatch.setattr(
            generate, name, lambda *inputs, name=name, whole=whole: (counts.update([name]), whole(*inputs))[1]
        )
    return counts


@pytest.fixture
def forwards() -> Callable[[PreTrainedModel], list[tuple[int, int]]]:
    """A function that gives a list to which each forward of a model adds its rows and its columns."""

    def watch(model: PreTrainedModel) -> list[tuple[int, int]]:
        shapes: list[tuple[int, int]] = []
        model.register_forward_pre_hook(
            lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
        )
        return shapes

    return watch


def likeliest(model: Any, prompts: list[list[int]], tokens: int, ends: list[int]) -> list[list[int]]:
    """Answers of greedy search by `generate`, each prompt alone."""
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=ends, pad_token_id=EOS)
    return [
        model.generate(input_ids=torch.tensor([prompt]), generation_config=config)[0, len(prompt) :].tolist()
        for prompt in prompts
    ]


@pytest.mark.parametrize("kind", PLAIN.split())
def test_greedy_search_gives_the_tokens_of_generate(kind: str, ways: Counter[str]) -> None:
    model = tiny_decoder(kind).eval()
    expected = likeliest(model, PROMPTS, 10, [EOS])
    ends = [EOS, expected[0][3], expected[3][6]]
    expected = likeliest(model, PROMPTS, 10, ends)
    assert len(set(map(len, expected))) > 1
    for batch_size in (len(PROMPTS), 4):
        assert sample(model, PROMPTS, max_new_tokens=10, eos_token_id=ends, batch_size=batch_size, top_k=1) == expected
    assert ways == {"decode": 3}


@pytest.mark.parametrize("kind", SPECIAL.split())
def test_special_caches_are_left_to_generate(kind: str, ways: Counter[str]) -> None:
    model = tiny_decoder(kind).eval()
    drawn = sample(model, PROMPTS[:2], max_new_tokens=4, eos_token_id=EOS, batch_size=2, top_k=1)
    assert drawn == likeliest(model, PROMPTS[:2], 4, [EOS])
    assert ways == {"_generate": 1}


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_a_window_that_no_row_outgrows_is_none(family: str) -> None:
    model = tiny_causal(family, TOKENIZER)
    assert can_decode(model, WINDOW)
    assert not can_decode(model, WINDOW + 1)
    prompts = [[20], [21, 22]]
    drawn = sample(model, prompts, max_new_tokens=3, eos_token_id=EOS, batch_size=2, top_k=1)
    assert drawn == likeliest(model, prompts, 3, [EOS])


def test_an_encoder_with_a_decoder_is_left_to_generate() -> None:
    class Whole(LlamaForCausalLM):
        pass

    model = Whole(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2))
    assert can_decode(model, 9)
    model.config.is_encoder_decoder = True
    assert not can_decode(model, 9)


@torch.no_grad()
def enumerated(model: Any, prompt: list[int], tokens: int, adjust: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Every response with its probability, from forwards without cache, padding or mask."""
    vocabulary = range(model.config.vocab_size)
    open_ones, closed = {(): 1.0}, {}
    for _ in range(tokens):
        longer = {}
        for response, weight in open_ones.items():
            logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, -1]
            for token, share in zip(vocabulary, adjust(logits).softmax(-1).tolist(), strict=True):
                (closed if token == END else longer)[*response, token] = weight * share
        open_ones = longer
    return open_ones | closed


CUTS: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], torch.Tensor]]] = {
    "plain": ({}, lambda logits: logits),
    "temperature": ({"temperature": 0.6}, lambda logits: logits / 0.6),
    "top_k": ({"top_k": 3}, lambda logits: logits.masked_fill(logits < logits.topk(3).values[-1], -torch.inf)),
    "top_p": (
        {"top_p": 0.7},
        lambda logits: logits.masked_fill(
            # the likeliest tokens whose likelier ones have less than .7 together
            (logits.softmax(-1)[:, None] < logits.softmax(-1)).float() @ logits.softmax(-1) >= 0.7,
            -torch.inf,
        ),
    ),
}


@pytest.mark.parametrize("cut", CUTS)
def test_responses_have_their_enumerated_probabilities(cut: str) -> None:
    """Over whole responses, with early ends and rows that leave, for prompts of unlike length in one batch."""
    settings, adjust = CUTS[cut]
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(**shape, vocab_size=6, initializer_range=0.6, eos_token_id=END, bos_token_id=None)
    ).eval()
    prompts, draws = [[2, 3], [4, 5, 2, 3, 2], [3] * 20], 4000
    drawn = sample(
        *(model, [prompt for prompt in prompts for _ in range(draws)]),
        **{"max_new_tokens": 4, "eos_token_id": END, "batch_size": 600, "seed": 3} | settings,
    )
    for index, prompt in enumerate(prompts):
        expected = {key: share * draws for key, share in enumerated(model, prompt, 4, adjust).items() if share > 0}
        counts = Counter(map(tuple, drawn[index * draws : (index + 1) * draws]))
        assert set(counts) <= set(expected)
        assert min(map(len, counts)) < max(map(len, counts)) == 4
        rare = [key for key, number in expected.items() if number < 5]
        common = [key for key in expected if key not in set(rare)]
        observed = [*(counts[key] for key in common), sum(counts[key] for key in rare)]
        wanted = [*(expected[key] for key in common), sum(expected[key] for key in rare)]
        pairs = [(o, w) for o, w in zip(observed, wanted, strict=True) if w > 0]
        assert len(pairs) > 8
        assert chisquare(*np.array(pairs).T, sum_check=False).pvalue > 1e-3


def test_draws_depend_on_seed_prompts_and_batch_size_alone() -> None:
    model = tiny_llama(TOKENIZER)
    settings: dict[str, Any] = {"max_new_tokens": 8, "eos_token_id": [EOS, *range(40, 80)], "batch_size": 4}
    first = sample(model, PROMPTS, seed=0, **settings)
    torch.manual_seed(9)
    assert sample(model, PROMPTS, seed=0, **settings) == first
    assert sample(model, PROMPTS, seed=1, **settings) != first


def test_only_what_is_needed_is_computed(forwards: Any) -> None:
    """One prefill for equal prompts, of like lengths together; each step has the rows that go on, about."""
    model = tiny_llama(TOKENIZER)
    shapes = forwards(model)
    ends = [EOS, *range(20, 90)]
    prompts = [[3, 4]] * 30 + [[5, 6, 7]] * 30 + [list(range(40))] * 4
    drawn = sample(model, prompts, max_new_tokens=30, eos_token_id=ends, batch_size=64, seed=0)
    assert sorted(shapes[:2]) == [(1, 40), (2, 3)]
    steps = shapes[2:]
    assert all(columns == 1 for _, columns in steps)
    assert len(steps) == max(map(len, drawn)) - 1
    going = [sum(len(row) > step + 1 for row in drawn) for step in range(len(steps))]
    assert going[0] > going[-1]
    for (rows, _), number in zip(steps, going, strict=True):
        assert number <= rows <= max(number * 8 / 7, number + 1)


def test_no_step_of_a_batch_waits_twice_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: Counter[str] = Counter()
    for name in ("__int__", "item", "tolist", "nonzero"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, name=name, plain=plain: (waits.update([name]), plain(self))[1]
        )
    sample(tiny_llama(TOKENIZER), PROMPTS, max_new_tokens=9, eos_token_id=[-1], batch_size=6, seed=0)
    assert waits["__int__"] == 9
    assert waits["tolist"] == 1
    assert waits["item"] == waits["nonzero"] == 0


def test_an_adapter_is_merged_for_sampling_and_taken_out_bit_for_bit(tmp_path: Any) -> None:
    carried = carrier(section(outside_base(tmp_path)), "policy", "value")
    before = {name: tensor.clone() for name, tensor in carried.state_dict().items()}
    ids = torch.tensor([[20, 21, 22]])
    with torch.no_grad(), adapter(carried, "policy"):
        unmerged = carried(input_ids=ids).logits
        with contextlib.suppress(KeyError), merged(carried):
            torch.testing.assert_close(carried(input_ids=ids).logits, unmerged, atol=1e-5, rtol=1e-4)
            changed = [name for name, tensor in carried.state_dict().items() if not torch.equal(tensor, before[name])]
            assert changed
            assert all(".base_layer.weight" in name for name in changed)
            raise KeyError
        assert torch.equal(carried(input_ids=ids).logits, unmerged)
    assert all(torch.equal(tensor, before[name]) for name, tensor in carried.state_dict().items())
    with adapter(carried, None), merged(carried):
        assert all(torch.equal(tensor, before[name]) for name, tensor in carried.state_dict().items())


@pytest.mark.parametrize("case", ["bfloat16", "tied head"])
def test_weights_that_a_merge_would_round_or_share_stay(case: str) -> None:
    model: Any = tiny_causal("qwen3", TOKENIZER)
    if case == "bfloat16":
        model = model.to(torch.bfloat16)
    target = ["q_proj"] if case == "bfloat16" else ["lm_head"]
    carried = get_peft_model(model, LoraConfig(r=2, target_modules=target, init_lora_weights=False))
    before = {name: tensor.clone() for name, tensor in carried.state_dict().items()}
    with merged(carried):
        assert all(torch.equal(tensor, before[name]) for name, tensor in carried.state_dict().items())
