"""Models and tokenizers that do not fit each other, and generation configs that cannot be saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from pipelines.errors import UsageError
from pipelines.models.base_model import check_vocabulary, load_causal, savable_generation_config
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
