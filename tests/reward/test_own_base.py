"""A reward model on a base of its own: read, trained, published and scored as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from pipelines.chain.preflight import check_environment
from pipelines.config.reward_section import RewardSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.rows import Comparison, Message
from pipelines.errors import ArtifactError, DataError, TrainingError, UsageError
from pipelines.models.published_reward import PublishedReward
from pipelines.models.text_classifier import TextClassifier, load_text_classifier
from pipelines.reward import stage as reward
from pipelines.reward.assessment import check_golden
from pipelines.reward.initial_model import encode_texts
from pipelines.reward.pairwise import columns
from pipelines.scorers import Completion
from pipelines.scorers.classifier import ClassifierScorer
from pipelines.scorers.reward_model_scorer import RewardModelScorer
from tests.models.helpers import comparisons, config_for, outside_base, run_stage, write_data
from tests.tiny import CHAT_TEMPLATE, save_pair, tiny_bert, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")


def base_of_its_own(directory: Path, kind: str) -> Path:
    """An encoder, or a decoder whose tokenizer has no pad token."""
    tokenizer = tiny_tokenizer(template=None, pad="<pad>" if kind == "bert" else None)
    if kind == "bert":  # as BERT's own tokenizer does
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # save_pretrained writes these
    model = tiny_bert(tokenizer) if kind == "bert" else tiny_llama(tokenizer, seed=7)
    return save_pair(model, tokenizer, directory)


def train_on(base: Path, folder: Path, **section: Any) -> tuple[Any, dict[str, Any]]:
    """The reward stage alone, on a policy under LoRA."""
    run = folder / "run"
    config = config_for(
        outside_base(folder / "policy"),
        model={"use_peft": True, "lora_r": 4},
        sft={"enabled": False},
        reward={"base": str(base), "num_train_epochs": 4.0, **section},
    )
    write_data(run, "comparisons", comparisons(48), comparisons(16, start=60))
    return config, run_stage(run, "reward", reward.run, config, "data/comparisons")


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_it_learns_and_scores_the_same_by_every_door(tmp_path: Path, kind: str) -> None:
    config, metrics = train_on(base_of_its_own(tmp_path / "base", kind), tmp_path)
    stage = tmp_path / "run" / "reward"
    assert metrics["heldout_accuracy_after"] >= 0.9
    assert metrics["heldout_accuracy_before"] < metrics["heldout_accuracy_after"]
    assert metrics["heldout_accuracy_low_after"] < metrics["heldout_accuracy_after"]
    assert metrics["trainable_parameters"] == sum(
        parameter.numel() for parameter in load_text_classifier(str(stage / "model"), CPU)[0].parameters()
    )
    assert check_golden(PublishedReward.read(stage), config, CPU) <= 1e-5
    stored = json.loads((stage / "model" / "normalization.json").read_text())
    assert stored["n"] == 8
    assert stored["mean"] == metrics["normalization_mean"]

    prompts = [(Message(role="user", content=text),) for text in ("say red ball", "say dog", "hello")]
    answers = [Completion(text, (1,), True) for text in ("thank you , red ball", "1 2 3 dog", "kind")]
    of_the_run = RewardModelScorer.of_run("run", ScorerSection(), stage, config.model, CPU)(prompts, answers)
    outside = ScorerSection(kind="classifier", path=str(stage / "model"))
    assert of_the_run == pytest.approx(ClassifierScorer.load("out", outside, CPU)(prompts, answers), abs=1e-6)
    assert of_the_run[0] > of_the_run[1]


def test_its_published_template_writes_the_day_of_the_run(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(template="{{ strftime_now('%Y %d') }}" + CHAT_TEMPLATE)
    save_pair(tiny_llama(tokenizer), tokenizer, tmp_path / "base")
    config = config_for(
        outside_base(tmp_path / "policy"),
        run={"date": "1999-01-31"},
        reward={"base": str(tmp_path / "base"), "max_steps": 1},
        sft={"enabled": False},
        model={"use_peft": True, "lora_r": 4},
    )
    write_data(tmp_path / "run", "comparisons", comparisons(16), comparisons(8, start=60))
    run_stage(tmp_path / "run", "reward", reward.run, config, "data/comparisons")
    served = AutoTokenizer.from_pretrained(tmp_path / "run" / "reward" / "model")
    turns = [{"role": "user", "content": "hello"}]
    assert served.apply_chat_template(turns, tokenize=False).startswith("1999 31<|user|>hello")


def test_the_trainer_gets_what_the_scorer_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder is padded on the left, with its own positions, in training as in scoring."""
    seen: list[dict[str, torch.Tensor]] = []
    original = TextClassifier.inputs

    def spy(self: Any, rows: Any, device: Any) -> Any:
        batch = original(self, rows, device)
        if device == "cpu":  # the collator's
            seen.append(batch)
        return batch

    monkeypatch.setattr(TextClassifier, "inputs", spy)
    train_on(base_of_its_own(tmp_path / "base", "llama"), tmp_path, max_steps=1)
    batch = seen[0]  # the data loader looks one ahead
    assert set(batch) == {"input_ids", "attention_mask", "position_ids"}
    assert bool(batch["attention_mask"][:, -1].all())
    assert not bool(batch["attention_mask"].all())


def test_margin_and_centering_reach_the_loss(tmp_path: Path) -> None:
    base = base_of_its_own(tmp_path / "base", "bert")
    plain = train_on(base, tmp_path / "plain", max_steps=1)[1]["train_loss"]
    centered = train_on(base, tmp_path / "centered", max_steps=1, center_rewards_coefficient=9.0)[1]["train_loss"]
    assert centered > plain
    tokenizer = tiny_tokenizer(template=None)
    classifier = TextClassifier("c", tiny_bert(tokenizer), tokenizer)
    rows = [Comparison.model_validate(row) for row in (*comparisons(1, margin=2.0), *comparisons(1))]
    pairs, _ = encode_texts(rows, classifier, "drop", "row")
    table, features = columns(pairs, segments=True, margin=True)
    assert [row["margin"] for row in table] == [1.0, 0.0]
    assert set(features) == {"chosen_ids", "rejected_ids", "chosen_segments", "rejected_segments", "margin"}
    assert "margin" not in columns(pairs, segments=True, margin=False)[0][0]


@pytest.mark.parametrize(("overlong", "used", "cut"), [("drop", 2, 0), ("cut", 3, 1)])
def test_overlong_pairs_are_dropped_or_lose_their_beginning(overlong: str, used: int, cut: int) -> None:
    tokenizer = tiny_tokenizer(template=None)
    classifier = TextClassifier("c", tiny_bert(tokenizer), tokenizer, limit=40)
    rows = [Comparison.model_validate(row) for row in comparisons(3)]
    long = [Message(role="user", content="story " * 60)]
    rows[1] = rows[1].model_copy(update={"prompt": tuple(long)})
    pairs, report = encode_texts(rows, classifier, overlong, "row")
    assert (report.used, report.dropped, report.cut) == (used, 3 - used, cut)
    assert report.longest > 60
    assert max(len(pair.chosen.ids) for pair in pairs) <= 40
    if cut:
        assert tokenizer.decode(pairs[1].chosen.ids).endswith(rows[1].chosen)
    with pytest.raises(DataError, match="longer than 40") as error:
        encode_texts(rows, classifier, "fail", "rows")
    assert error.value.where == "rows:2"
    with pytest.raises(DataError, match="none of the 1 rows"):
        encode_texts(rows[1:2], classifier, "drop", "rows")


def test_the_published_tokenizer_keeps_the_limit_and_says_what_the_model_takes(tmp_path: Path) -> None:
    train_on(base_of_its_own(tmp_path / "base", "bert"), tmp_path, max_steps=1, max_length=48)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "reward" / "model")
    assert tokenizer.model_max_length == 48
    assert "token_type_ids" in tokenizer("one", "two")


def test_a_lost_head_is_found(tmp_path: Path) -> None:
    config, _ = train_on(base_of_its_own(tmp_path / "base", "bert"), tmp_path, max_steps=1)
    stage = tmp_path / "run" / "reward"
    weights = stage / "model" / "model.safetensors"
    tensors = load_file(weights)
    save_file(
        {**tensors, "classifier.weight": torch.randn_like(tensors["classifier.weight"])}, weights, {"format": "pt"}
    )
    with pytest.raises(TrainingError, match="head"):
        check_golden(PublishedReward.read(stage), config, CPU)
    del tensors["classifier.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"classifier\.weight"):
        check_golden(PublishedReward.read(stage), config, CPU)


def test_a_base_without_its_trunk_is_refused_and_one_without_head_and_pooler_is_not(tmp_path: Path) -> None:
    base = base_of_its_own(tmp_path / "base", "bert")
    weights = base / "model.safetensors"
    tensors = {
        name: tensor for name, tensor in load_file(weights).items() if name.startswith("bert.enc") or "emb" in name
    }
    save_file(tensors, weights, {"format": "pt"})
    load_text_classifier(str(base), CPU, new_head=True)
    with pytest.raises(ArtifactError, match="lack"):
        load_text_classifier(str(base), CPU)
    del tensors["bert.embeddings.word_embeddings.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ArtifactError, match="word_embeddings"):
        load_text_classifier(str(base), CPU, new_head=True)


def test_bad_bases_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    policy = outside_base(tmp_path / "policy")
    with pytest.raises(ArtifactError) as error:
        check_environment(config_for(policy, reward={"base": str(tmp_path / "none")}), ["reward"])
    assert error.value.where == "reward.base"
    (tmp_path / "small.gguf").touch()
    with pytest.raises(UsageError, match=r"\.gguf file cannot be the base") as refused:
        check_environment(config_for(policy, reward={"base": str(tmp_path / "small.gguf")}), ["reward"])
    assert refused.value.where == "reward.base"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        load_text_classifier(str(tmp_path / "adapter"), CPU, new_head=True)
    assert caught.value.where == str(tmp_path / "adapter")
    with pytest.raises(ValidationError, match="base_revision needs base"):
        RewardSection(base_revision="abc")


def test_the_base_is_part_of_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bert").mkdir()
    monkeypatch.chdir(tmp_path)
    assert RewardSection(base="bert").results_view()["base"] == str(tmp_path / "bert")
    assert RewardSection(base="owner/name").results_view()["base"] == "owner/name"
