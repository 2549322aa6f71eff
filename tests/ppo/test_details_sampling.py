"""Details of sampling that no other test would miss; the numbers are those of the table in docs/ppo.md."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig

from pipelines.config.model_section import ModelSection
from pipelines.models.forward import TokenBatch
from pipelines.models.generate import sample
from pipelines.models.machine import autocast
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.roles import PolicyAndValue, Roles
from pipelines.ppo.schedules import PromptStream
from tests.ppo.test_update import BUILDERS, EOS, TOKENIZER, make, prompts

CPU = torch.device("cpu")


def in_bf16(roles: Roles) -> Roles:
    """The same roles with the forwards of `model.dtype: bfloat16`."""
    precision = functools.partial(autocast, ModelSection(dtype="bfloat16"), CPU)
    return replace(roles, trained=PolicyAndValue(roles.policy, roles.value, precision))


def test_04_pads_are_ids_that_every_embedding_has() -> None:
    """A tokenizer's own pad id may be one beyond the model's embedding."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    roles = make("llama", "full")
    rows = roles.policy.model.get_input_embeddings().num_embeddings
    assert tokenizer.pad_token_id >= rows
    engine = TransformersEngine(roles, EOS, 12, 1.0, 4)
    ids = [prompt["prompt_ids"] for prompt in prompts()]
    batch = TokenBatch.of(ids, [*engine.generate(ids[:-1], seed=0), [EOS]], EOS)
    assert not batch.attention_mask.all()
    assert int(batch.input_ids.max()) < rows
    assert set(batch.input_ids[~batch.attention_mask].tolist()) == {0}
    assert torch.isfinite(roles.policy_logprobs(batch, 1.0, 4)).all()


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_07_no_least_length_keeps_a_response_from_ending(model: str) -> None:
    policy = BUILDERS[model](TOKENIZER).eval()
    policy.generation_config = GenerationConfig(min_new_tokens=4, min_length=30, eos_token_id=None)
    prompt = prompts()[1]["prompt_ids"]
    with torch.no_grad():
        likeliest = int(policy(input_ids=torch.tensor([prompt])).logits[0, -1].argmax())
    settings = {"max_new_tokens": 6, "temperature": 1e-4, "batch_size": 2}
    assert sample(policy, [prompt] * 2, eos_token_id=likeliest, **settings) == [[likeliest]] * 2


def test_41_sampling_under_bf16_leaves_the_fp32_weights_as_they_are() -> None:
    roles = in_bf16(make("llama", "lora", sft=True))
    before = {name: tensor.clone() for name, tensor in roles.policy.model.state_dict().items()}
    TransformersEngine(roles, EOS, 6, 1.0, 4).generate([prompt["prompt_ids"] for prompt in prompts()], seed=0)
    for name, tensor in roles.policy.model.state_dict().items():
        assert tensor.dtype == before[name].dtype, name
        assert torch.equal(tensor, before[name]), name


def test_42_every_pass_over_the_prompts_has_an_order_of_its_own() -> None:
    rows = prompts()
    stream = PromptStream(rows, seed=3)
    passes = [[rows.index(prompt) for prompt in stream.take(len(rows))] for _ in range(3)]
    assert all(sorted(order) == list(range(len(rows))) for order in passes)
    assert len({tuple(order) for order in passes}) == 3
    again = PromptStream(rows, seed=3)
    assert [rows.index(prompt) for prompt in again.take(2 * len(rows))] == passes[0] + passes[1]
    other = PromptStream(rows, seed=4)
    assert [rows.index(prompt) for prompt in other.take(len(rows))] != passes[0]
