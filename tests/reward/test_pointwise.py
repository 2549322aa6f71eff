"""A reward model that is a classifier: what it learns from, what it gives, and which way is up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from pipelines.config.scorer_section import ScorerSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.rows import Message
from pipelines.errors import DataError, UsageError
from pipelines.models.policies import open_tokenizer
from pipelines.models.published_reward import PublishedReward, Scale
from pipelines.models.text_classifier import load_text_classifier
from pipelines.reward import stage as reward
from pipelines.reward.assessment import check_golden
from pipelines.run.directory import RunDir
from pipelines.run.manifest import Manifest
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion
from pipelines.scorers.classifier import ClassifierScorer
from pipelines.scorers.reward_model_scorer import RewardModelScorer
from tests.models.helpers import comparisons, config_for, outside_base, run_stage, write_data
from tests.recorders import Recorder
from tests.reward.test_own_base import base_of_its_own

CPU = torch.device("cpu")
LORA = {"use_peft": True, "lora_r": 4}
OWN = {"own sigmoid": "sigmoid", "own softmax": "softmax"}
PROMPTS = [(Message(role="user", content=text),) for text in ("say red ball", "say dog")]
TEXTS = ("thank you , red ball", "1 2 3 dog")


def judgements(n: int, start: int = 0, *, good: Any = True, bad: Any = False) -> list[dict[str, Any]]:
    """Polite answers are good, numbers are bad."""
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": label}
        for row in comparisons(n, start)
        for side, label in (("chosen", good), ("rejected", bad))
    ]


def setting(folder: Path, kind: str, **section: Any) -> Any:
    """A configuration without SFT: "full", "lora", or one of `OWN`."""
    own = {"base": str(base_of_its_own(folder / "own", "bert")), "output": OWN[kind]} if kind in OWN else {}
    return config_for(
        outside_base(folder / "policy", **({"pad": "</s>"} if kind == "full" else {})),  # then the pad id is not 0
        model={} if kind == "full" else LORA,
        sft={"enabled": False},
        reward={"objective": "pointwise", "num_train_epochs": 4.0, **own, **section},
    )


def trained(folder: Path, kind: str, train: Any = None, heldout: Any = None, **section: Any) -> tuple[Any, Any]:
    config, run = setting(folder, kind, **section), folder / "run"
    write_data(run, "judgements", train or judgements(24), heldout or judgements(8, start=60))
    return config, run_stage(run, "reward", reward.run, config, "data/judgements")


def answers(config: Any) -> list[Completion]:
    """The texts as the policy would have sampled them."""
    encoder = ChatEncoder(open_tokenizer(None, config.model))
    ids = [encoder.answer(prompt, text) for prompt, text in zip(PROMPTS, TEXTS, strict=True)]
    return [Completion(text, tuple(row), True) for text, row in zip(TEXTS, ids, strict=True)]


def of_run(stage: Path, config: Any, output: Any) -> RewardModelScorer:
    return RewardModelScorer.of_run("run", ScorerSection(kind="run", output=output), stage, config.model, CPU)


@pytest.mark.parametrize("kind", ["full", "lora", "own sigmoid", "own softmax"])
def test_it_learns_and_gives_the_same_probability_by_every_door(tmp_path: Path, kind: str) -> None:
    config, metrics = trained(tmp_path, kind)
    stage = tmp_path / "run" / "reward"
    assert metrics["heldout_accuracy_after"] >= 0.9
    assert metrics["heldout_auc_after"] >= 0.95
    assert metrics["heldout_majority_after"] == 0.5
    for name in ("loss", "brier"):
        assert metrics[f"heldout_{name}_after"] < metrics[f"heldout_{name}_before"]
    assert check_golden(PublishedReward.read(stage), config, CPU) <= 1e-5

    given = answers(config)
    probability = of_run(stage, config, "probability")(PROMPTS, given)
    assert probability[0] > 0.7 > 0.3 > probability[1]
    logit = of_run(stage, config, "logit")(PROMPTS, given)
    logprob = of_run(stage, config, "logprob")(PROMPTS, given)
    assert probability == pytest.approx(torch.tensor(logit, dtype=torch.float64).sigmoid().tolist())
    assert probability == pytest.approx(torch.tensor(logprob, dtype=torch.float64).exp().tolist())
    if kind in OWN:
        named = ScorerSection(kind="classifier", path=str(stage / "model"), label="good", output="probability")
        assert probability == pytest.approx(ClassifierScorer.load("out", named, CPU)(PROMPTS, given), abs=1e-5)
        _compare_with_plain_transformers(stage / "model", probability)

    (tmp_path / "run" / "config.yaml").write_text(f"model:\n  use_peft: {str(kind != 'full').lower()}\n")
    outside = ScorerSection(kind="classifier", path=str(stage / "model"), output="probability")
    published = RewardModelScorer.of_other_run("out", outside, CPU)(PROMPTS, given)
    assert published == pytest.approx(probability, abs=1e-6)


def _compare_with_plain_transformers(directory: Path, probability: list[float]) -> None:
    """The pipeline that any user of transformers would take."""
    model, _ = load_text_classifier(str(directory), CPU, labels=None)
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(directory))
    for prompt, text, expected in zip(PROMPTS, TEXTS, probability, strict=True):
        found = classify(f"{prompt[0].content}\n{text}", top_k=None)
        assert {entry["label"]: entry["score"] for entry in found}["good"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["full", "lora", "own sigmoid", "own softmax"])
def test_the_loss_is_that_of_the_scores_whatever_the_micro_batches_are(tmp_path: Path, kind: str) -> None:
    """Twelve rows in one optimizer step, as 8 + 4: their mean cross entropy under the model as it was."""
    rows = judgements(6, good=0.9, bad=0.25)
    section = {"max_steps": 1, "gradient_accumulation_steps": 2, "label_range": [0, 1]}
    _, metrics = trained(tmp_path, kind, rows, rows, **section)
    assert metrics["train_loss"] == pytest.approx(metrics["heldout_loss_before"], abs=1e-5)


def test_labels_that_mean_bad_train_the_same_model_to_the_byte(tmp_path: Path) -> None:
    """1 = toxic with the option, and 1 = good without it; the probability stays that of good."""
    _, plain = trained(tmp_path / "good", "lora", max_steps=3)
    config, turned = trained(
        tmp_path / "toxic",
        "lora",
        judgements(24, good=False, bad=True),
        judgements(8, start=60, good=0, bad=1),  # numbers and booleans mean the same
        max_steps=3,
        lower_is_better=True,
    )
    weights = [
        (tmp_path / name / "run/reward/model/adapter_model.safetensors").read_bytes() for name in ("good", "toxic")
    ]
    assert weights[0] == weights[1]
    assert plain["heldout_loss_after"] == turned["heldout_loss_after"]
    manifest = Manifest.read(tmp_path / "toxic" / "run" / "reward")
    assert manifest is not None
    assert "label 0 is good and 1 is bad (reward.lower_is_better" in manifest.notes["polarity"]
    assert manifest.notes["labels"] == {"data/judgements": {"label_range": [0.0, 1.0], "lower_is_better": True}}
    assert sum(found["n"] for found in manifest.notes["calibration"]) == 16
    other, wrong = trained(
        tmp_path / "wrong", "lora", judgements(24, good=0, bad=1), judgements(8, start=60), max_steps=3
    )
    assert wrong["heldout_accuracy_after"] < 0.5 < turned["heldout_accuracy_after"]
    assert other.reward.results_view() != config.reward.results_view()


def test_every_output_has_a_scale_and_a_pairwise_model_has_one(tmp_path: Path) -> None:
    config, metrics = trained(tmp_path, "lora", max_steps=2)
    stage = tmp_path / "run" / "reward"
    stored = json.loads((stage / "model" / "normalization.json").read_text())
    assert PublishedReward.read(stage).scale() == Scale(stored["mean"], stored["std"])
    assert stored["mean"] == metrics["normalization_mean"]
    assert 0 < stored["probability"]["mean"] < 1
    assert PublishedReward.read(stage).scale("logprob").mean < 0
    write_data(tmp_path / "run", "comparisons", comparisons(8), comparisons(4, start=60))
    pairwise = config.model_copy(update={"reward": config_for(reward={"max_steps": 1}).reward})
    run_stage(tmp_path / "run", "reward", reward.run, pairwise, "data/comparisons")
    assert set(json.loads((stage / "model" / "normalization.json").read_text())) == {"mean", "std", "n"}
    for ask in (
        lambda: PublishedReward.read(stage).scale("probability"),
        lambda: of_run(stage, config, "logprob"),
    ):
        with pytest.raises(UsageError) as error:
            ask()
        assert error.value.hint is not None
        assert "objective: pointwise" in error.value.hint


def stage_of(run: Path, config: Any, *needs: str) -> tuple[dict[str, Any], Recorder, dict[str, Any]]:
    """The stage function with a reporter that listens; nothing is published."""
    run_dir, heard = RunDir(run), Recorder()
    inputs = {name: run_dir.stage(name) for name in needs}
    ctx = StageContext(config, run_dir.begin("reward"), inputs, heard)
    return reward.run(ctx), heard, ctx.notes


def test_comparisons_judgements_and_own_labels_are_used_together(tmp_path: Path) -> None:
    config, run = setting(tmp_path, "full", max_steps=2), tmp_path / "run"
    write_data(run, "comparisons", comparisons(4), comparisons(2, start=60))
    write_data(run, "judgements", judgements(2, good=9, bad=4), judgements(1, start=70, good=12, bad=4))
    pairs = run / "pairs"
    pairs.mkdir()
    for name, rows in {
        "train": comparisons(3, start=20),
        "heldout": [],
        "judgements-train": judgements(1, start=30),
        "judgements-heldout": judgements(1, start=80),
    }.items():
        (pairs / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics, heard, notes = stage_of(run, config, "data/comparisons", "data/judgements", "pairs")
    assert metrics["rows_used"] == 2 * 4 + 4 + 2 * 3 + 2
    assert metrics["rows_heldout"] == 2 * 2 + 2 + 2
    assert metrics["heldout_pair_accuracy_after"] is not None
    assert notes["labels"]["data/judgements"]["label_range"] == [4.0, 9.0]
    assert notes["share_good"] == 0.5
    assert any("50.0% of the answers to train on are good" in line for line in heard.said)

    by_pairs = config.model_copy(update={"reward": config_for(reward={"max_steps": 2}).reward})
    metrics, _, _ = stage_of(run, by_pairs, "data/comparisons", "pairs")
    assert (metrics["rows_used"], metrics["rows_heldout"]) == (7, 2)
    (pairs / "train.jsonl").write_text("")
    with pytest.raises(DataError, match="no pair to train the reward model on") as error:
        stage_of(run, by_pairs, "pairs")
    assert "pointwise" in str(error.value.hint)


def test_what_cannot_be_learned_or_judged_is_said(tmp_path: Path) -> None:
    config, run = setting(tmp_path, "full", max_steps=1), tmp_path / "run"
    good = [row for row in judgements(8) if row["label"]]
    write_data(run, "judgements", good, judgements(2, start=60))
    with pytest.raises(DataError, match="all 8 answers to train on have the same label"):
        stage_of(run, config, "data/judgements")
    write_data(run, "judgements", judgements(4, good=3, bad=3), judgements(2, start=60))
    with pytest.raises(DataError, match="every label is 3") as error:
        stage_of(run, config, "data/judgements")
    assert "label_range" in str(error.value.hint)
    write_data(run, "judgements", judgements(4), [])
    with pytest.raises(DataError, match="no answer with a label held out to judge the reward model by"):
        stage_of(run, config, "data/judgements")
    write_data(run, "judgements", judgements(4), [row for row in judgements(4, start=60) if row["label"]])
    metrics, heard, _ = stage_of(run, config, "data/judgements")
    assert metrics["heldout_auc_after"] is None
    assert any("all held-out rows have the same class" in line for line in heard.warned)
    write_data(run, "judgements", judgements(4), judgements(4, start=60, good=False, bad=True))
    learned = setting(tmp_path, "full", num_train_epochs=12.0)
    _, heard, _ = stage_of(run, learned, "data/judgements")
    assert any("no better than always" in line for line in heard.warned)


def test_a_label_outside_of_the_given_range_has_its_place(tmp_path: Path) -> None:
    config, run = setting(tmp_path, "full", max_steps=1, label_range=[1, 5]), tmp_path / "run"
    write_data(run, "judgements", judgements(4, good=5, bad=1), judgements(2, start=60, good=7, bad=1))
    with pytest.raises(DataError, match="label 7 is outside the range 1 to 5") as error:
        stage_of(run, config, "data/judgements")
    assert error.value.where == "data/judgements/heldout.jsonl:1"
