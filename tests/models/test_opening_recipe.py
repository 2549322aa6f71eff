"""README.md of a published model opens it in plain code, with the scores of `rlhf score`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

from pipelines.config.model_section import ModelSection
from pipelines.data.rows import Message
from pipelines.models.published_reward import PublishedReward
from pipelines.models.reward_model import open_reward_model
from pipelines.reward import stage as reward
from pipelines.sft import stage as sft
from tests.models.helpers import comparisons, config_for, demonstrations, run_stage, write_data
from tests.models.test_families_stages import TOKENIZERS
from tests.tiny import save_pair, tiny_causal, tiny_tokenizer

CPU = torch.device("cpu")
kinds = pytest.mark.parametrize("use_peft", [True, False], ids=["lora", "full"])
DIALOGUES = [("say cat", "thank you , cat"), ("say red ball", "1 2 3"), ("please write a story", "the cat sat")]


def recipe(directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the code of README.md in its directory, as its reader does; the program's own code takes no part."""
    (code,) = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(), re.DOTALL)
    assert "pipelines" not in code
    monkeypatch.chdir(directory)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def assert_scores_are_those_of_the_run(run: Path, section: ModelSection, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_reward_model(PublishedReward.read(run / "reward"), section, CPU)
    rows = [model.row((Message(role="user", content=prompt),), answer) for prompt, answer in DIALOGUES]
    score = recipe(run / "reward" / "model", monkeypatch)["score"]
    plain = [score([{"role": "user", "content": q}, {"role": "assistant", "content": a}]) for q, a in DIALOGUES]
    assert plain == pytest.approx(model.scores(rows, exact=True), abs=1e-5)
    assert len(set(plain)) == len(plain)


@kinds
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_recipe_gives_the_scores_whatever_pads_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, use_peft: bool
) -> None:
    tokenizer = tiny_tokenizer(**TOKENIZERS[name])
    base = save_pair(tiny_causal("llama", tokenizer), tokenizer, tmp_path / "base")
    step = {"max_steps": 1, "max_length": 128}
    config = config_for(base, model={"use_peft": use_peft}, sft={"enabled": False}, reward=step)
    write_data(tmp_path / "run", "comparisons", comparisons(8), comparisons(4, start=60))
    run_stage(tmp_path / "run", "reward", reward.run, config, "data/comparisons")
    assert_scores_are_those_of_the_run(tmp_path / "run", config.model, monkeypatch)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_line_in_the_documentation_opens_an_adapter_with_its_scores(tmp_path: Path, name: str) -> None:
    made, run = tiny_tokenizer(**TOKENIZERS[name]), tmp_path / "run"
    base = save_pair(tiny_causal("llama", made), made, tmp_path / "base")
    step = {"max_steps": 1, "max_length": 128}
    config = config_for(base, model={"use_peft": True}, sft={"enabled": False}, reward=step)
    write_data(run, "comparisons", comparisons(8), comparisons(4, start=60))
    run_stage(run, "reward", reward.run, config, "data/comparisons")
    page = (Path(__file__).parents[2] / "docs" / "run-directory.md").read_text()
    (code,) = re.findall(r"(AutoPeftModelForSequenceClassification\.from_pretrained\(.*?\n\))", page, re.DOTALL)
    directory = str(run / "reward" / "model")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    known = {"AutoPeftModelForSequenceClassification": AutoPeftModelForSequenceClassification, "tokenizer": tokenizer}
    model = eval(code.replace("runs/mine/reward/model", directory), known).eval()
    rows = json.loads((run / "reward" / "golden.json").read_text())["rows"]
    with torch.no_grad():
        plain = [model(input_ids=torch.tensor([row["input_ids"]])).logits.item() for row in rows]
    assert plain == pytest.approx([row["score"] for row in rows], abs=1e-5)


@kinds
@pytest.mark.parametrize("family", ["gpt2", "granite", "mamba"])
def test_the_recipe_gives_the_scores_of_every_kind_of_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, use_peft: bool
) -> None:
    """Run the recipe of transformers' classifier, and of both kinds of trunk under a head of ours, on an SFT model."""
    tokenizer, run = tiny_tokenizer(pad="</s>"), tmp_path / "run"
    base = save_pair(tiny_causal(family, tokenizer), tokenizer, tmp_path / "base")
    step = {"max_steps": 1, "learning_rate": 0.05, "warmup_ratio": 0.0}
    config = config_for(base, model={"use_peft": use_peft, "lora_r": 2}, sft=step, reward=step)
    write_data(run, "demonstrations", demonstrations(8), demonstrations(2, start=60))
    write_data(run, "comparisons", comparisons(8), comparisons(4, start=60))
    run_stage(run, "sft", sft.run, config, "data/demonstrations")
    run_stage(run, "reward", reward.run, config, "data/comparisons", "sft")
    assert_scores_are_those_of_the_run(run, config.model, monkeypatch)


@kinds
def test_the_recipe_of_a_base_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_peft: bool) -> None:
    run = tmp_path / "run"
    config = config_for(None, model={"use_peft": use_peft}, sft={"max_steps": 1}, reward={"max_steps": 1})
    write_data(run, "demonstrations", demonstrations(8), demonstrations(2, start=60))
    write_data(run, "comparisons", comparisons(8), comparisons(4, start=60))
    run_stage(run, "sft", sft.run, config, "data/demonstrations")
    run_stage(run, "reward", reward.run, config, "data/comparisons", "sft")
    assert_scores_are_those_of_the_run(run, config.model, monkeypatch)


def test_a_classifier_on_text_with_our_own_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, run = tiny_tokenizer(template=None), tmp_path / "run"
    base = save_pair(tiny_causal("llama", tokenizer), tokenizer, tmp_path / "base")
    other_base = save_pair(tiny_causal("granite", tokenizer), tokenizer, tmp_path / "other_base")
    config = config_for(base, sft={"enabled": False}, reward={"max_steps": 1, "base": str(other_base)})
    write_data(run, "comparisons", comparisons(8), comparisons(4, start=60))
    run_stage(run, "reward", reward.run, config, "data/comparisons")
    assert_scores_are_those_of_the_run(run, config.model, monkeypatch)
