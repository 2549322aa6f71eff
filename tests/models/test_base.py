from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.config.model_section import ModelSection
from pipelines.config.run_section import RunSection
from pipelines.errors import ArtifactError, EnvironmentProblem, HubError, UsageError
from pipelines.models.adapters import add_adapter, lora_config
from pipelines.models.base_model import disable_dropout, explain, load_causal, load_sequence_classifier
from pipelines.models.base_ref import BaseRef
from pipelines.models.machine import choose_threads, resolve_device
from pipelines.run.reporting import SilentReporter
from tests.models.helpers import config_for, outside_base
from tests.tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
IDS = torch.tensor([[3, 20, 21, 22, 4, 30, 1]])


def nf4(base: Path, **fields: Any) -> ModelSection:
    return ModelSection(name_or_path=str(base), use_peft=True, load_in_4bit=True, allow_cpu_4bit=True, **fields)


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        ({}, torch.float32),
        ({"dtype": "bfloat16"}, torch.float32),
        ({"use_peft": True}, torch.float32),
        ({"use_peft": True, "dtype": "bfloat16"}, torch.bfloat16),
    ],
)
def test_trained_weights_are_fp32_and_a_frozen_base_has_the_models_dtype(
    tmp_path: Path, fields: dict[str, Any], dtype: torch.dtype
) -> None:
    base = outside_base(tmp_path)
    loaded = load_causal(ModelSection(name_or_path=str(base), **fields), base, CPU)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert not loaded.training


def _gradient_norm(model: Any) -> float:
    model.train()
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient is not None for gradient in gradients)
    return float(torch.stack([gradient.float().norm() for gradient in gradients]).norm())


def test_four_bit_gradients_survive_an_evaluation_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the fault shows on AVX512-BF16 processors only; that the guard is set shows on every one
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    base = outside_base(tmp_path)
    loaded = load_causal(nf4(base), base, CPU)
    layers = [module for module in loaded.modules() if type(module).__name__ == "Linear4bit"]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    assert all(layer.weight.quant_type == "nf4" and layer.weight.quant_state.nested for layer in layers)
    carried = add_adapter(loaded, "policy", lora_config(nf4(base), "CAUSAL_LM"), trainable=True)
    with torch.no_grad():
        for name, parameter in carried.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    before = _gradient_norm(carried)
    with torch.no_grad():
        carried.eval()(input_ids=IDS)
    assert _gradient_norm(carried) == before


def test_four_bit_trunks_of_both_kinds_are_quantized_alike(tmp_path: Path) -> None:
    base = outside_base(tmp_path)
    causal = load_causal(nf4(base), base, CPU)
    classifier = load_sequence_classifier(nf4(base), base, CPU, new_head=True)
    assert type(classifier.score) is torch.nn.Linear
    assert torch.equal(
        causal.base_model(input_ids=IDS).last_hidden_state, classifier.base_model(input_ids=IDS).last_hidden_state
    )


def test_four_bit_on_the_cpu_must_be_allowed(tmp_path: Path) -> None:
    section = ModelSection(name_or_path="x", use_peft=True, load_in_4bit=True)
    with pytest.raises(EnvironmentProblem) as caught:
        load_causal(section, tmp_path / "never looked at", CPU)
    assert caught.value.where == "model.load_in_4bit"


def test_missing_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base")
    section = ModelSection(name_or_path=str(base))
    with pytest.raises(ArtifactError, match=r"score\.weight"):
        load_sequence_classifier(section, base, CPU)
    assert load_sequence_classifier(section, base, CPU, new_head=True).config.num_labels == 1
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="lack 1 of its weights"):
        load_causal(section, base, CPU)
    with pytest.raises(ArtifactError, match="lack"):
        load_sequence_classifier(section, base, CPU, new_head=True)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_causal(section, base, CPU)
    weights.unlink()
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_causal(section, base, CPU)


def test_the_hub_offline(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="the model") as error:
        load_causal(ModelSection(), "nobody/has-this", CPU, revision="abc")
    assert error.value.where == "nobody/has-this@abc"
    with pytest.raises(ArtifactError) as caught:
        load_causal(ModelSection(), tmp_path / "nowhere", CPU)
    assert caught.value.where == str(tmp_path / "nowhere")


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_dropout_of_both_kinds_is_off(make: Any) -> None:
    model = make(tiny_tokenizer()).train()
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    noisy = model(input_ids=IDS).logits
    assert not torch.equal(noisy, model(input_ids=IDS).logits)
    disable_dropout(model)
    assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert torch.equal(model(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits)


def test_base_ref_names_its_place(tmp_path: Path) -> None:
    outside = BaseRef.of(config_for(Path("org/model"), model={"revision": "abc"}))
    assert outside == BaseRef(name_or_path="org/model", revision="abc")
    assert outside.seen_from(tmp_path / "reward" / "model", tmp_path) == "org/model"
    stage = BaseRef.of(config_for())
    assert stage.path(tmp_path) == str(tmp_path / "sft" / "model")
    assert stage.seen_from(tmp_path / "reward.partial" / "model", tmp_path) == "../../sft/model"
    assert BaseRef.from_dict(stage.as_dict()) == stage
    with pytest.raises(ValueError, match="either"):
        BaseRef()
    with pytest.raises(UsageError) as caught:
        BaseRef.outside(ModelSection())
    assert caught.value.where == "model.name_or_path"


def test_notes_name_the_commit_that_the_hub_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--org--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    named = BaseRef(name_or_path="org/tiny")
    assert named.as_dict() == {"name_or_path": "org/tiny", "revision": commit, "stage": None}
    assert BaseRef(name_or_path="org/tiny", revision="main").as_dict()["revision"] == commit
    assert BaseRef(name_or_path="org/tiny", revision="never-seen").as_dict()["revision"] == "never-seen"
    assert BaseRef(name_or_path=str(tmp_path)).as_dict()["revision"] is None
    outside_base(cached / "snapshots" / commit)
    loaded = load_causal(ModelSection(name_or_path="org/tiny"), "org/tiny", CPU)
    again = BaseRef.from_dict(named.as_dict())
    pinned = load_causal(ModelSection(), again.path(tmp_path), CPU, revision=again.revision)
    assert torch.equal(loaded(input_ids=IDS).logits, pinned(input_ids=IDS).logits)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert choose_threads(RunSection(), 500_000, SilentReporter()) == 1
        assert choose_threads(RunSection(), 50_000_000, SilentReporter()) >= 1
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert choose_threads(RunSection(), 500_000, SilentReporter()) == 3
        assert choose_threads(RunSection(threads=2), 500_000, SilentReporter()) == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_device() -> None:
    assert resolve_device(RunSection()) == CPU
    with pytest.raises(EnvironmentProblem) as caught:
        resolve_device(RunSection(device="cuda"))
    assert caught.value.where == "run.device"


def test_a_directory_without_a_model_is_said_to_hold_none(tmp_path: Path) -> None:
    found = explain(ValueError("from one of: \n(1) a file"), tmp_path)
    assert isinstance(found, ArtifactError)
    assert found.message == "the directory holds no model"
    (tmp_path / "config.json").write_text("{}")
    assert explain(ValueError("from one of: \n(1) a file"), tmp_path).message.endswith("from one of: (1) a file")
