from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from pipelines.config.model_section import ModelSection
from pipelines.errors import ArtifactError, UsageError
from pipelines.models.adapters import (
    AdapterState,
    adapter,
    adapter_state,
    add_adapter,
    add_reward_adapter,
    cast_trainable_to_fp32,
    lora_config,
    read_adapter,
    read_reward_adapter,
    set_trainable,
)
from pipelines.models.base_model import disable_dropout, load_causal, load_sequence_classifier
from pipelines.models.base_ref import BaseRef
from pipelines.models.publish import publish_model
from pipelines.models.sequence_scores import apply_head, pad_right, pool_last, position_ids, score_ids
from tests.models.helpers import outside_base
from tests.tiny import tiny_tokenizer

CPU = torch.device("cpu")
IDS = torch.tensor([[3, 20, 21, 22, 4, 30, 1], [3, 40, 41, 42, 4, 50, 1]])
ROWS = [[3, 20, 4, 30, 1], [3, 40, 41, 42, 43, 4, 50, 51, 1], [3, 4, 1]]
KINDS = [
    ("llama", False, "float32"),
    ("gpt2", False, "float32"),
    ("llama", True, "float32"),
    ("llama", True, "bfloat16"),
]
kinds = pytest.mark.parametrize(("kind", "four_bit", "dtype"), KINDS)


def section(base: Path, four_bit: bool = False, dtype: str = "float32", **fields: Any) -> ModelSection:
    fields = {"lora_r": 4, "lora_alpha": 8, "use_peft": True, **fields}
    return ModelSection(name_or_path=str(base), load_in_4bit=four_bit, allow_cpu_4bit=four_bit, dtype=dtype, **fields)


def trained(state: AdapterState, seed: int) -> AdapterState:
    """As if it had been trained: no LoRA B is zero."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(value.shape, generator=generator) * 0.1 for name, value in state.tensors.items()}
    return AdapterState(state.config, tensors, state.head)


def carrier(model: ModelSection, *names: str) -> PeftModel:
    """One base with several different trainable adapters."""
    base: Any = load_causal(model, str(model.name_or_path), CPU)
    for seed, name in enumerate(names):
        fresh = add_adapter(base, name, lora_config(model, "CAUSAL_LM"), trainable=True)
        state = trained(adapter_state(fresh, name), seed)
        fresh.load_state_dict({_key(key, name): value for key, value in state.tensors.items()}, strict=False)
        base = fresh
    return base


def _key(key: str, name: str) -> str:
    return key.removesuffix(".weight") + f".{name}.weight"


def logits(model: PeftModel, name: str | None) -> Tensor:
    with adapter(model, name):
        return model(input_ids=IDS).logits


@kinds
def test_a_copy_gives_exactly_the_same_and_the_base_stays_the_base(
    tmp_path: Path, kind: str, four_bit: bool, dtype: str
) -> None:
    model = section(outside_base(tmp_path / "base", kind), four_bit, dtype)
    bare = load_causal(model, tmp_path / "base", CPU)(input_ids=IDS).logits
    carried = add_adapter(
        carrier(model, "policy"), "reference", adapter_state(carrier(model, "policy"), "policy"), trainable=False
    )
    assert torch.equal(logits(carried, "policy"), logits(carried, "reference"))
    assert torch.equal(logits(carried, None), bare)
    assert not torch.allclose(logits(carried, "policy"), bare, atol=1e-2)


@kinds
def test_gradients_reach_both_adapters_and_only_their_own(
    tmp_path: Path, kind: str, four_bit: bool, dtype: str
) -> None:
    carried = carrier(section(outside_base(tmp_path / "base", kind), four_bit, dtype), "policy", "value", "reference")
    set_trainable(carried, "reference", False)
    disable_dropout(carried)
    carried.train()
    flags = {name: parameter.requires_grad for name, parameter in carried.named_parameters()}

    policy, value = logits(carried, "policy"), logits(carried, "value")
    assert {name: parameter.requires_grad for name, parameter in carried.named_parameters()} == flags
    (policy.float().square().mean() + 2 * value.float().square().mean()).backward()
    together = {name: parameter.grad for name, parameter in carried.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[-2] for name in together} == {"policy", "value"}
    assert all(float(gradient.abs().sum()) > 0 for gradient in together.values())

    for name, weight in (("policy", 1), ("value", 2)):
        carried.zero_grad()
        (weight * logits(carried, name).float().square().mean()).backward()
        for key, parameter in carried.named_parameters():
            if f".{name}." in key:
                assert torch.allclose(parameter.grad, together[key], atol=1e-6)


def test_switching_restores_what_was_active_even_after_an_error(tmp_path: Path) -> None:
    carried = carrier(section(outside_base(tmp_path / "base")), "policy", "value")
    carried.set_adapter("value")
    value = carried(input_ids=IDS).logits
    with pytest.raises(RuntimeError), adapter(carried, "policy"):
        raise RuntimeError
    assert carried.active_adapter == "value"
    with adapter(carried, "policy"), adapter(carried, None), adapter(carried, "policy"):
        assert carried.active_adapter == "policy"
    assert torch.equal(carried(input_ids=IDS).logits, value)
    with pytest.raises(KeyError, match="policy, value"), adapter(carried, "reward"):
        pass


def test_switching_gives_what_peft_itself_gives(tmp_path: Path) -> None:
    carried = carrier(section(outside_base(tmp_path / "base")), "policy", "value")
    for name in ("policy", "value"):
        ours = logits(carried, name)
        carried.set_adapter(name)
        assert torch.equal(carried(input_ids=IDS).logits, ours)
    ours = logits(carried, None)
    with carried.disable_adapter():
        assert torch.equal(carried(input_ids=IDS).logits, ours)


@kinds
def test_reward_adapter_on_a_causal_base_gives_the_reward_models_scores(
    tmp_path: Path, kind: str, four_bit: bool, dtype: str
) -> None:
    base = outside_base(tmp_path / "base", kind)
    model, ref = section(base, four_bit, dtype), BaseRef(name_or_path=str(base))
    carried = carrier(model, "policy")
    classifier = add_reward_adapter(
        load_sequence_classifier(model, base, CPU, new_head=True), model, adapter_state(carried, "policy")
    )
    assert {parameter.dtype for parameter in classifier.parameters() if parameter.requires_grad} == {torch.float32}
    scores = score_ids(classifier, ROWS, 2)
    publish_model(classifier, tiny_tokenizer(), tmp_path / "reward", base=ref, run_dir=tmp_path)

    add_adapter(carried, "value", tmp_path / "reward", trainable=True)
    ids, mask = pad_right(ROWS, CPU)
    trunk = carried.get_base_model().base_model
    with adapter(carried, "value"):
        hidden = trunk(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).last_hidden_state
    head = torch.nn.Linear(hidden.shape[-1], 1, bias=False)
    head.weight = torch.nn.Parameter(read_reward_adapter(tmp_path / "reward").head)
    values = apply_head(head, pool_last(hidden, mask))
    # the batches differ, which moves a bf16 forward by its rounding
    assert values.tolist() == pytest.approx(scores, abs=1e-5 if dtype == "float32" and not four_bit else 0.05)
    publish_model(carried, tiny_tokenizer(), tmp_path / "p", base=ref, run_dir=tmp_path, adapter="policy")
    with pytest.raises(ArtifactError, match="head was lost"):
        read_reward_adapter(tmp_path / "p")


def test_one_of_several_adapters_is_published(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base")
    carried = carrier(section(base), "policy", "value")
    for name in ("policy", "value"):
        publish_model(
            carried,
            tiny_tokenizer(),
            tmp_path / name,
            base=BaseRef(name_or_path=str(base)),
            run_dir=tmp_path,
            adapter=name,
        )
        opened = PeftModel.from_pretrained(load_causal(section(base), base, CPU), tmp_path / name)
        assert torch.equal(opened(input_ids=IDS).logits, logits(carried, name))


def test_trainable_weights_are_fp32_on_a_bf16_base(tmp_path: Path) -> None:
    carried = carrier(section(outside_base(tmp_path / "base"), dtype="bfloat16"), "policy")
    assert {parameter.dtype for parameter in carried.parameters() if parameter.requires_grad} == {torch.float32}
    for parameter in carried.parameters():
        parameter.data = parameter.data.bfloat16()
    cast_trainable_to_fp32(carried)
    kinds_of = {(parameter.requires_grad, parameter.dtype) for parameter in carried.parameters()}
    assert kinds_of == {(True, torch.float32), (False, torch.bfloat16)}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base")
    other = outside_base(tmp_path / "gpt2", "gpt2")
    carried = carrier(section(base), "policy")
    state = adapter_state(carried, "policy")
    with pytest.raises(ArtifactError, match="does not fit"):
        add_adapter(load_causal(section(other), other, CPU), "policy", state, trainable=True)
    with pytest.raises(UsageError, match="no adapter can be put"):
        add_adapter(
            load_causal(section(base), base, CPU),
            "policy",
            lora_config(section(base, lora_target_modules=["nothing"]), "CAUSAL_LM"),
            trainable=True,
        )
    half = AdapterState(state.config, dict(list(state.tensors.items())[:3]))
    with pytest.raises(ArtifactError, match="does not fit"):
        add_adapter(load_causal(section(base), base, CPU), "policy", half, trainable=True)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_adapter(tmp_path / "nowhere")


def test_all_linear_leaves_out_the_heads(tmp_path: Path) -> None:
    model = section(outside_base(tmp_path / "base"))
    carried = carrier(model, "policy")
    classifier = add_reward_adapter(load_sequence_classifier(model, tmp_path / "base", CPU, new_head=True), model, None)
    for wrapped in (carried, classifier):
        names = {name for name, _ in wrapped.named_parameters() if ".lora_A." in name}
        assert len(names) == 14
        assert not any("lm_head" in name or "score" in name for name in names)
