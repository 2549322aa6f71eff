"""Every decoder that transformers trains and peft adapts goes through all stages, or is refused before SFT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipelines.errors import UsageError
from pipelines.models.adapters import adapter_state, add_adapter, add_reward_adapter, lora_config
from pipelines.models.base_model import load_causal, load_sequence_classifier
from pipelines.models.own_head import OwnHead
from tests.models.decoders import DECODERS, REFUSED, STAGES, TOKENIZER, run_all_stages, tiny_decoder
from tests.models.helpers import config_for
from tests.tiny import save_pair

CPU = torch.device("cpu")
ALWAYS = {
    *(("llama", 0), ("qwen2", 1)),  # a classifier of transformers
    *(("granite", 0), ("cohere2", 1)),  # none
    *(("mixtral", 0), ("glm4_moe", 1)),  # experts, with and without one
    *(("mamba", 1), ("falcon_h1", 0)),  # states instead of attention
    *(("ctrl", 0), ("modernbert-decoder", 1)),  # a classifier with another head
    *(("opt", 0),),  # a forward that passes its own trunk by
    *(("cpmant", 0), ("longcat_flash", 1)),  # refused
}
"""Two of each kind, one of them under LoRA; the rest of the product is slow."""


@pytest.mark.parametrize(
    ("kind", "use_peft"),
    [
        pytest.param(kind, use_peft, marks=() if (kind, use_peft) in ALWAYS else pytest.mark.slow)
        for kind in DECODERS
        for use_peft in (0, 1)
    ],
)
def test_a_decoder_goes_through_all_stages_or_is_refused_before_sft(tmp_path: Path, kind: str, use_peft: int) -> None:
    if (kind, use_peft) in REFUSED:
        with pytest.raises(UsageError) as refused:
            run_all_stages(kind, bool(use_peft), tmp_path)
        assert refused.value.where == str(tmp_path / "base")
        assert REFUSED[kind, use_peft] in refused.value.message
        assert not (tmp_path / "run" / "sft").exists()
        return
    metrics = run_all_stages(kind, bool(use_peft), tmp_path)
    assert tuple(metrics) == STAGES
    assert metrics["sft"]["heldout_loss_after"] != metrics["sft"]["heldout_loss_before"]
    assert metrics["reward"]["heldout_margin_after"] != metrics["reward"]["heldout_margin_before"]


@pytest.mark.parametrize("kind", ["mixtral", "granitemoe", "doge"])
def test_what_trl_sets_for_a_router_is_not_published(tmp_path: Path, kind: str) -> None:
    run_all_stages(kind, False, tmp_path)
    before = json.loads((tmp_path / "base" / "config.json").read_text())
    for stage in ("sft", "ppo"):
        after = json.loads((tmp_path / "run" / stage / "model" / "config.json").read_text())
        for name in ("output_router_logits", "router_aux_loss_coef", "use_cache", "num_experts"):
            assert after.get(name) == before.get(name), (stage, name)
        AutoModelForCausalLM.from_pretrained(tmp_path / "run" / stage / "model").generate(
            input_ids=torch.tensor([[20, 21]]), max_new_tokens=2, do_sample=False
        )


def test_a_base_that_asks_for_router_logits_is_loaded_without(tmp_path: Path) -> None:
    model = tiny_decoder("mixtral")
    model.config.output_router_logits = True
    save_pair(model, TOKENIZER, tmp_path)
    assert load_causal(config_for(tmp_path).model, tmp_path, CPU).config.output_router_logits is False


def test_an_adapter_keeps_its_whole_shape_in_every_role(tmp_path: Path) -> None:
    """Ranks by pattern and adapted parameters of experts; with the sizes alone the weights would not fit."""
    save_pair(tiny_decoder("mixtral"), TOKENIZER, tmp_path)
    section = config_for(tmp_path, model={"use_peft": True, "lora_r": 2}).model
    shape = lora_config(section, "CAUSAL_LM")
    shape.target_modules, shape.target_parameters = ["q_proj", "v_proj"], ["mlp.experts.gate_up_proj"]
    shape.rank_pattern, shape.alpha_pattern = {"v_proj": 4}, {"v_proj": 16}
    policy = add_adapter(load_causal(section, tmp_path, CPU), "default", shape, trainable=True)
    state = adapter_state(policy, "default")
    classifier = load_sequence_classifier(section, tmp_path, CPU, new_head=True)
    for other in (
        add_reward_adapter(classifier, section, state),
        add_adapter(load_causal(section, tmp_path, CPU), "default", state, trainable=False),
    ):
        copied = other.peft_config["default"]
        for name in ("target_parameters", "rank_pattern", "alpha_pattern", "r", "lora_alpha", "use_rslora"):
            assert getattr(copied, name) == getattr(state.config, name)
        again = adapter_state(other, "default")
        assert again.tensors.keys() == state.tensors.keys()
        assert all(torch.equal(again.tensors[name], value) for name, value in state.tensors.items())


def test_buffers_of_a_classifier_with_our_own_head_have_their_values(tmp_path: Path) -> None:
    """transformers leaves them unset in classes that it takes for code from outside; Falcon-H1 multiplies by one."""
    model = tiny_decoder("falcon_h1")
    save_pair(model, TOKENIZER, tmp_path)
    classifier = load_sequence_classifier(config_for(tmp_path).model, tmp_path, CPU, new_head=True)
    assert isinstance(classifier, OwnHead)
    expected = dict(model.named_buffers())
    assert any("mup_vector" in name for name in expected)
    for name, value in classifier.named_buffers():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("kind", ["mamba", "granite"])
def test_a_decoder_with_our_own_head_is_quantized(tmp_path: Path, kind: str) -> None:
    save_pair(tiny_decoder(kind), TOKENIZER, tmp_path)
    section = config_for(tmp_path, model={"use_peft": True, "load_in_4bit": True, "allow_cpu_4bit": True}).model
    causal = load_causal(section, tmp_path, CPU)
    classifier = load_sequence_classifier(section, tmp_path, CPU, new_head=True)
    assert any(type(part).__name__ == "Linear4bit" for part in classifier.modules())
    ids = torch.tensor([[20, 21, 22]])
    hidden = [model.base_model(input_ids=ids).last_hidden_state for model in (causal, classifier)]
    assert torch.allclose(*hidden, atol=1e-2)
    assert bool(torch.isfinite(causal(input_ids=ids).logits).all())
