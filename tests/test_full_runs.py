"""All stages on tiny models: full fine-tuning, and a reward model of another base with another tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from pipelines.config import Config
from pipelines.data.rows import Message
from pipelines.models.published_reward import PublishedReward
from pipelines.models.reward_model import open_reward_model
from pipelines.ppo import stage as ppo_stage
from pipelines.ppo.roles import Roles
from pipelines.ppo.rollout import RoleReward, TextReward
from pipelines.run.manifest import Manifest
from tests.test_end_to_end import SMALL, actions, comparisons, first_update, run
from tests.tiny import save_pair, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

STAGES = {"data/demonstrations", "data/comparisons", "data/prompts", "sft", "reward", "ppo", "eval"}
CPU = torch.device("cpu")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What PPO trained with: its `roles` and its `reward`."""
    kept: dict[str, Any] = {}
    training = ppo_stage.Training

    def keep(**kwargs: Any) -> Any:
        kept.update(kwargs, roles=kwargs["context"].roles, reward=kwargs["context"].reward)
        return training(**kwargs)

    monkeypatch.setattr(ppo_stage, "Training", keep)
    return kept


def configuration(base: Path, folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": {"device": "cpu"},
        "model": {"name_or_path": str(base)} | sections.pop("model", {}),
        "data": {"comparisons": str(comparisons(folder / "comparisons.jsonl")), "eval_fraction": 0.2},
        "reward": {**SMALL["reward"], "num_train_epochs": 4.0} | sections.pop("reward", {}),
        **sections,
    }


def check_metrics(place: Path) -> dict[str, Any]:
    """What holds on any road; gives the reward stage's metrics."""
    first = first_update(place)
    assert first["objective/kl"] == 0.0
    assert first["val/first_ratio_deviation"] < 1e-5
    results = json.loads((place / "eval" / "results.json").read_text())
    assert {scorer["name"] for scorer in results["scorers"]} == {"reward_model"}
    manifest = Manifest.read(place / "reward")
    assert manifest is not None
    assert manifest.metrics["heldout_accuracy_after"] >= 0.9
    return manifest.metrics


def test_full_fine_tuning_of_a_gpt2_from_data_to_eval(tmp_path: Path, seen: dict[str, Any]) -> None:
    tokenizer = tiny_tokenizer()
    base = save_pair(tiny_gpt2(tokenizer), tokenizer, tmp_path / "base")
    ppo = SMALL["ppo"] | {"num_eval_prompts": 0}  # else the best policy takes the last one's place to be published
    config, place = configuration(base, tmp_path, ppo=ppo), tmp_path / "run"
    assert actions(run(config, place)) == dict.fromkeys(STAGES, "run")

    metrics = check_metrics(place)
    assert isinstance(seen["reward"], RoleReward)
    assert seen["normalization"].mean == metrics["normalization_mean"]
    for stage in ("sft", "ppo"):
        published = AutoModelForCausalLM.from_pretrained(place / stage / "model")
        assert AutoTokenizer.from_pretrained(place / stage / "model").chat_template is not None
    ids = torch.tensor([[10, 11, 12]])
    with torch.no_grad():
        assert torch.equal(published(ids).logits, seen["roles"].policy.model(ids).logits)
    judge = AutoModelForSequenceClassification.from_pretrained(place / "reward" / "model")
    golden = json.loads((place / "reward" / "golden.json").read_text())["rows"]
    with torch.no_grad():
        scores = [judge(torch.tensor([row["input_ids"]])).logits.item() for row in golden]
    assert scores == pytest.approx([row["score"] for row in golden], abs=1e-5)

    assert actions(run(config, place)) == dict.fromkeys(STAGES, "skip")


def bert_of_its_own(directory: Path) -> Path:
    """An encoder with another vocabulary, that knows pairs, and was pretrained to something with three classes."""
    tokenizer = tiny_tokenizer(template=None)
    tokenizer.add_tokens(["likes", "the"])  # other ids than the policy's from here on
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A:0 </s>:0", pair="$A:0 </s>:0 $B:1 </s>:1", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    return save_pair(tiny_bert(tokenizer, num_labels=3), tokenizer, directory)


def test_a_llama_under_lora_with_a_bert_as_its_reward_model(tmp_path: Path, seen: dict[str, Any]) -> None:
    tokenizer = tiny_tokenizer()
    base = save_pair(tiny_llama(tokenizer), tokenizer, tmp_path / "base")
    bert = bert_of_its_own(tmp_path / "bert")
    config = configuration(base, tmp_path, model={"use_peft": True, "lora_r": 4}, reward={"base": str(bert)})
    place = tmp_path / "run"
    assert actions(run(config, place)) == dict.fromkeys(STAGES, "run")

    metrics = check_metrics(place)
    reward, roles = seen["reward"], seen["roles"]
    assert isinstance(reward, TextReward)
    assert seen["normalization"].mean == metrics["normalization_mean"] != 0
    assert seen["normalization"].std == metrics["normalization_std"]
    assert isinstance(roles, Roles)
    assert roles.reward is None
    samples = [json.loads(line) for line in (place / "ppo" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 6

    published = place / "reward" / "model"
    model, words = (
        AutoModelForSequenceClassification.from_pretrained(published),
        AutoTokenizer.from_pretrained(published),
    )
    assert type(model).__name__ == "BertForSequenceClassification"
    assert model.config.num_labels == 1
    texts = [("tell me of the cat", "the cat likes the dog"), ("say", "no dog")]
    plain = []
    with torch.no_grad():
        for prompt, answer in texts:
            plain.append(model(**words(prompt, answer, return_tensors="pt")).logits.item())
    ours = open_reward_model(
        PublishedReward.read(place / "reward"), Config.model_validate({**SMALL, **config}).model, CPU
    )
    rows = [ours.row([Message(role="user", content=prompt)], answer) for prompt, answer in texts]
    assert ours.reads == "text"
    assert {0, 1} == set(rows[0].segments)
    assert ours.scores(rows) == pytest.approx(plain, abs=1e-5)

    assert actions(run(config, place)) == dict.fromkeys(STAGES, "skip")
