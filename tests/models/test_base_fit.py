"""Bases that do not fit: larger tokenizers, generation configs that cannot be saved, adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GenerationConfig

from pipelines.chain.preflight import check_environment
from pipelines.config import Config
from pipelines.errors import UsageError
from pipelines.models.base_fit import check_vocabulary, refuse_adapter_files, savable_generation_config
from pipelines.models.base_model import load_causal
from pipelines.models.policies import open_policy
from pipelines.models.text_classifier import load_text_classifier
from pipelines.ppo import stage as ppo
from pipelines.reward import stage as reward
from pipelines.sft import stage as sft
from tests.models.helpers import comparisons, config_for, demonstrations, outside_base, run_stage, write_data
from tests.tiny import save_pair, tiny_bert, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
GENERATION: dict[str, dict[str, Any]] = {
    "llama 2 chat": {"temperature": 0.6, "top_p": 0.9, "do_sample": False},
    "nucleus": {"top_p": 0.8},
    "temperature 0": {"temperature": 0.0, "do_sample": False},
    "beams": {"early_stopping": True, "length_penalty": 0.5},
    "no cache": {"use_cache": False, "cache_implementation": "static"},
}


def larger_tokenizer(directory: Path, special: bool) -> Path:
    """A base whose tokenizer got two tokens after the model was made."""
    base = outside_base(directory)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<one>", "<two>"], special_tokens=special)
    tokenizer.save_pretrained(base)
    return base


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
@pytest.mark.parametrize("use_peft", [True, False])
def test_a_tokenizer_larger_than_the_embedding_is_refused_at_load(
    tmp_path: Path, stage: str, use_peft: bool, special: bool
) -> None:
    base, run, size = larger_tokenizer(tmp_path / "base", special), tmp_path / "run", len(tiny_tokenizer())
    config = config_for(
        base,
        model={"use_peft": use_peft},
        sft={"enabled": stage == "sft"},
        ppo={"reward": {"kind": "length", "target": 8}},
    )
    write_data(run, "demonstrations", demonstrations(8), demonstrations(2))
    write_data(run, "comparisons", comparisons(8), comparisons(2))
    write_data(run, "prompts", [{"prompt": [{"role": "user", "content": "hi"}]}] * 8, [])
    runner, data = {
        "sft": (sft.run, "data/demonstrations"),
        "reward": (reward.run, "data/comparisons"),
        "ppo": (ppo.run, "data/prompts"),
    }[stage]
    with pytest.raises(UsageError) as refused:
        run_stage(run, stage, runner, config, data)
    assert refused.value.where == str(base)
    assert f" {size + 2} " in refused.value.message
    assert f" {size} " in refused.value.message


def test_a_classifier_with_a_larger_tokenizer_is_refused_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_bert(tokenizer)
    tokenizer.add_tokens(["<one>"])
    save_pair(model, tokenizer, tmp_path)
    with pytest.raises(UsageError, match=rf" {len(tokenizer)} .* {len(tokenizer) - 1} "):
        load_text_classifier(str(tmp_path), CPU)


def test_placeholders_of_other_media_need_no_row() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    check_vocabulary(model, tokenizer)


@pytest.mark.parametrize("name", GENERATION)
def test_a_generation_config_that_transformers_refuses_to_save_is_repaired_at_load(tmp_path: Path, name: str) -> None:
    base = outside_base(tmp_path / "base")
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, **GENERATION[name]}))
    loaded = load_causal(config_for(base).model, base, CPU)
    loaded.generation_config.pad_token_id = 0  # TRL changes it, and transformers validates what was changed
    loaded.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.generation_config.eos_token_id == 1
    again.generate(input_ids=torch.tensor([[20]]), max_new_tokens=1)


def test_what_is_meant_by_the_generation_config_stays() -> None:
    sampled = savable_generation_config(GenerationConfig(temperature=0.6, do_sample=False))
    assert (sampled.do_sample, sampled.temperature) == (True, 0.6)
    assert savable_generation_config(GenerationConfig(temperature=0.0, do_sample=False)).do_sample is False
    good = GenerationConfig(temperature=0.6, do_sample=True, num_beams=2, early_stopping=True, use_cache=False)
    assert savable_generation_config(good) == good


def test_full_sft_on_such_a_model_saves_its_checkpoints(tmp_path: Path) -> None:
    base, run = outside_base(tmp_path / "base"), tmp_path / "run"
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, **GENERATION["llama 2 chat"]}))
    write_data(run, "demonstrations", demonstrations(8), demonstrations(2))
    config = config_for(base, sft={"save_steps": 1, "max_steps": 2})
    assert run_stage(run, "sft", sft.run, config, "data/demonstrations")["steps"] == 2


@pytest.fixture
def adapter_directory(tmp_path: Path) -> Path:
    """An adapter as peft and TRL save one, with its tokenizer, on a base outside."""
    base = outside_base(tmp_path / "base")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    model.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("use_peft", [True, False])
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "sample", "reward.base"])
def test_an_adapter_is_refused_as_a_base_before_any_work_and_at_load(
    tmp_path: Path, adapter_directory: Path, stage: str, use_peft: bool
) -> None:
    named = {"reward.base": {"base": str(adapter_directory)}} if stage == "reward.base" else {}
    base = tmp_path / "base" if named else adapter_directory
    kind = stage.partition(".")[0]
    config = config_for(
        base, model={"use_peft": use_peft}, sft={"enabled": stage == "sft"}, reward=named.get(stage, {})
    )
    with pytest.raises(UsageError) as refused:
        check_environment(config, [kind])
    assert refused.value.where == ("reward.base" if named else "model.name_or_path")
    assert str(tmp_path / "base") in refused.value.message
    if stage in ("sft", "reward", "reward.base"):
        write_data(tmp_path / "run", "demonstrations", demonstrations(8), demonstrations(2))
        write_data(tmp_path / "run", "comparisons", comparisons(8), comparisons(2))
        needs = "data/demonstrations" if kind == "sft" else "data/comparisons"
        with pytest.raises(UsageError) as refused:
            run_stage(tmp_path / "run", kind, {"sft": sft.run, "reward": reward.run}[kind], config, needs)
        assert str(tmp_path / "base") in refused.value.message


def test_an_adapter_from_outside_is_not_sampled_from_and_one_of_a_run_is(
    tmp_path: Path, adapter_directory: Path
) -> None:
    def config(model: Path) -> Config:
        return config_for(tmp_path / "base", feedback={"sample": {"models": [{"model": str(model)}]}})

    with pytest.raises(UsageError) as refused:
        check_environment(config(adapter_directory), ["sample"])
    assert refused.value.where == "feedback.sample.models"
    stage = tmp_path / "run" / "sft"
    stage.mkdir(parents=True)
    adapter_directory.rename(stage / "model")
    (stage / "manifest.json").write_text("{}")
    check_environment(config(stage / "model"), ["sample"])


def test_an_adapter_without_a_readable_base_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(UsageError, match="does not name"):
        refuse_adapter_files(tmp_path, None)


def test_an_adapter_on_the_hub_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    monkeypatch.setattr(
        "pipelines.models.base_fit.find_adapter_config_file", lambda name, revision: tmp_path / "adapter_config.json"
    )
    with pytest.raises(UsageError, match=r"org/adapter is an adapter of org/base"):
        open_policy(None, config_for(Path("org/adapter")).model, CPU)
