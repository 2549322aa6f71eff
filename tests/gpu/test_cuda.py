"""What only a CUDA machine can show. Run by `python -m benchmarks.gpu_suite`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.config import Config
from pipelines.models.forward import TokenBatch
from pipelines.models.generate import sample
from pipelines.ppo.load_roles import RoleSources, build_roles
from pipelines.ppo.roles import Roles
from pipelines.ppo.types import AS_IT_IS
from tests.tiny import save_pair, tiny_llama, tiny_tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is to be seen"),
]
TOKENIZER = tiny_tokenizer()


def roles(directory: Path, **model: object) -> Roles:
    save_pair(tiny_llama(TOKENIZER, hidden=256), TOKENIZER, directory / "base")
    section = {"name_or_path": str(directory / "base"), "dtype": "bfloat16", **model}
    cast = build_roles(
        RoleSources(Config.model_validate({"model": section}), directory, None, None, AS_IT_IS, torch.device("cuda"))
    )
    cast.freeze_but_trained()
    return cast


KINDS = [{}, {"use_peft": True}, {"use_peft": True, "load_in_4bit": True}]


@pytest.mark.parametrize("kind", KINDS, ids=["full", "lora", "nf4"])
def test_kl_is_zero_and_gradients_arrive(tmp_path: Path, kind: dict[str, object]) -> None:
    cast = roles(tmp_path, **kind)
    prompts = [TOKENIZER("the cat sat").input_ids, TOKENIZER("hello").input_ids] * 4
    with cast.policy.active() as model, cast.precision():
        responses = sample(model, prompts, max_new_tokens=16, eos_token_id=TOKENIZER.eos_token_id, batch_size=8, seed=0)
    batch = TokenBatch.of(prompts, responses, TOKENIZER.eos_token_id).to(torch.device("cuda"))
    assert torch.equal(cast.policy_logprobs(batch, 1.0, 8), cast.reference_logprobs(batch, 1.0, 8))
    logprobs, _, values = cast.trained(batch, 1.0)
    (logprobs.sum() + values.sum()).backward()
    for role in (cast.policy, replace(cast.value, head=None) if cast.value.adapter else cast.policy):
        gradients = [p.grad for p in role.parameters() if p.grad is not None]
        assert gradients
        assert all(p.dtype == torch.float32 for p in role.parameters())


def test_checkpointing_gives_the_same_gradients_in_nf4(tmp_path: Path) -> None:
    found = []
    for saving in (False, True):
        cast = roles(tmp_path, use_peft=True, load_in_4bit=True)
        if saving:
            cast.enable_gradient_checkpointing()
        prompts = [[5, 6, 7, 8]] * 4
        batch = TokenBatch.of(prompts, [[9, 10, 11, 12]] * 4, TOKENIZER.eos_token_id).to(torch.device("cuda"))
        torch.manual_seed(0)
        for name, parameter in cast.policy.model.named_parameters():
            if ".lora_B.policy" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        logprobs, _, values = cast.trained(batch, 1.0)
        (logprobs.sum() + values.sum()).backward()
        found.append([p.grad for p in cast.policy.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-2, atol=1e-4)
