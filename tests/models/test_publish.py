from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pipelines.errors import ArtifactError, TrainingError
from pipelines.models.base_ref import BaseRef
from pipelines.models.policies import base_of, open_policy, open_tokenizer
from pipelines.models.publish import publish_model, sane_generation_config
from tests.models.helpers import config_for, outside_base
from tests.models.test_adapters import CPU, carrier, section
from tests.tiny import tiny_llama, tiny_tokenizer

OUTSIDE = BaseRef(name_or_path="org/base")


def test_generation_config_stops_on_eos_and_not_on_bos() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<|system|>"
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert sane_generation_config(GenerationConfig(eos_token_id=[bos, eos]), tokenizer).eos_token_id == eos
    assert sane_generation_config(GenerationConfig(eos_token_id=[9, bos]), tokenizer).eos_token_id == [eos, 9]
    assert sane_generation_config(None, tokenizer).eos_token_id == eos
    tokenizer.bos_token = tokenizer.eos_token
    assert sane_generation_config(GenerationConfig(eos_token_id=eos), tokenizer).eos_token_id == eos


def test_a_generation_config_that_save_pretrained_refuses(tmp_path: Path) -> None:
    model = tiny_llama(tiny_tokenizer())
    model.generation_config.temperature = 0.6
    model.generation_config.do_sample = False
    publish_model(model, tiny_tokenizer(), tmp_path / "model", base=OUTSIDE, run_dir=tmp_path)
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text())["temperature"] == 0.6


def test_weights_that_are_not_finite_are_not_published(tmp_path: Path) -> None:
    model = tiny_llama(tiny_tokenizer())
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(TrainingError, match=r"model\.norm\.weight is not finite"):
        publish_model(model, tiny_tokenizer(), tmp_path / "model", base=OUTSIDE, run_dir=tmp_path)
    carried = carrier(section(outside_base(tmp_path / "base")), "policy")
    next(p for p in carried.parameters() if p.requires_grad).data[0] = float("inf")
    with pytest.raises(TrainingError, match="not finite"):
        publish_model(carried, tiny_tokenizer(), tmp_path / "model", base=OUTSIDE, run_dir=tmp_path, adapter="policy")
    assert not (tmp_path / "model").exists()


def test_no_path_of_this_machine_is_published(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    publish_model(model, tiny_tokenizer(), tmp_path / "full", base=OUTSIDE, run_dir=tmp_path)
    carried = carrier(section(base), "policy")
    for ref, place in ((OUTSIDE, "outside"), (BaseRef(stage="sft"), "stage")):
        publish_model(
            carried, tiny_tokenizer(), tmp_path / place / "model", base=ref, run_dir=tmp_path, adapter="policy"
        )
    for file in (*(tmp_path / "full").iterdir(), *tmp_path.glob("outside/model/*"), *tmp_path.glob("stage/model/*")):
        assert str(tmp_path).encode() not in file.read_bytes(), file
    shape = json.loads((tmp_path / "stage" / "model" / "adapter_config.json").read_text())
    assert shape["base_model_name_or_path"] == "../../sft/model"


def test_the_outside_base_itself_is_a_policy(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base", template=None)
    config = config_for(base)
    assert not open_policy(None, config.model, CPU).training
    assert "Assistant:" in open_tokenizer(None, config.model).chat_template


def test_raw_text_stays_raw_text(tmp_path: Path) -> None:
    config = config_for(tmp_path, model={"chat_template": "none"})
    publish_model(
        tiny_llama(tiny_tokenizer()),
        tiny_tokenizer(template=None),
        tmp_path / "sft" / "model",
        base=OUTSIDE,
        run_dir=tmp_path,
    )
    assert open_tokenizer(tmp_path / "sft", config.model).chat_template is None


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        open_policy(tmp_path / "sft", config_for(tmp_path).model, CPU)
    assert caught.value.where == str(tmp_path / "sft" / "model")
    with pytest.raises(ArtifactError) as caught:
        base_of(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert torch.get_default_dtype() == torch.float32


def test_what_is_published_does_not_say_how_it_was_loaded(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    assert tokenizer.init_kwargs["local_files_only"]
    publish_model(tiny_llama(tokenizer), tokenizer, tmp_path / "model", base=OUTSIDE, run_dir=tmp_path)
    assert "local_files_only" not in json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
