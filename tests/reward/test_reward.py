from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines.config import dump_config
from pipelines.errors import ArtifactError, TrainingError
from pipelines.models.base_ref import BaseRef
from pipelines.models.policies import open_policy, open_reward
from pipelines.models.published_reward import PublishedReward
from pipelines.models.sequence_scores import score_ids
from pipelines.report.statistics import wilson
from pipelines.reward import initial_model, learning_curve
from pipelines.reward import stage as reward
from pipelines.reward.assessment import check_golden
from pipelines.reward.pairwise import scaled_margins
from pipelines.scorers.reward_model_scorer import row_of
from pipelines.sft import stage as sft
from tests.models.helpers import comparisons, config_for, demonstrations, outside_base, run_stage, write_data

CPU = torch.device("cpu")
LORA = {"use_peft": True, "lora_r": 4}
NF4 = {**LORA, "load_in_4bit": True, "allow_cpu_4bit": True}
MODES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": LORA,
    "nf4": NF4,
    "lora-bf16": {**LORA, "dtype": "bfloat16"},
    "nf4-bf16": {**NF4, "dtype": "bfloat16"},
}
IN_A_NEW_PROCESS = """
import sys, torch
from pathlib import Path
from pipelines.config import load_config
from pipelines.models.published_reward import PublishedReward
from pipelines.reward.assessment import check_golden
for run in map(Path, sys.argv[1:]):
    print(check_golden(PublishedReward.read(run / "reward"), load_config(run / "config.yaml"), torch.device("cpu")))
"""


def train_both(run: Path, base: Path | None, **sections: Any) -> tuple[Any, dict[str, Any]]:
    """SFT for a few steps, then the reward model."""
    config = config_for(base, **{"sft": {"max_steps": 4}, "reward": {"num_train_epochs": 3.0}, **sections})
    write_data(run, "demonstrations", demonstrations(48), demonstrations(10, start=60))
    write_data(run, "comparisons", comparisons(48), comparisons(16, start=60))
    needs = ["data/comparisons"]
    if config.sft.enabled:
        run_stage(run, "sft", sft.run, config, "data/demonstrations")
        needs.append("sft")
    return config, run_stage(run, "reward", reward.run, config, *needs)


def test_golden_scores_are_the_same_in_a_new_process_and_after_a_move(tmp_path: Path) -> None:
    runs = []
    for mode, model in MODES.items():
        run = tmp_path / mode
        config, metrics = train_both(run, outside_base(tmp_path / f"base-{mode}"), model=model)
        assert metrics["heldout_accuracy_after"] >= 0.9, mode
        assert metrics["heldout_accuracy_low_after"] < metrics["heldout_accuracy_after"]
        runs.append(shutil.move(run, tmp_path / "elsewhere" / mode))
        (tmp_path / "elsewhere" / mode / "config.yaml").write_text(dump_config(config))
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, *map(str, runs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    differences = dict(zip(MODES, map(float, done.stdout.split()), strict=True))
    assert max(differences.values()) <= 1e-5, differences


def test_the_learning_curve_is_measured_and_leaves_the_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = outside_base(tmp_path / "base")
    train_both(tmp_path / "measured", base)
    curve = json.loads((tmp_path / "measured/reward/report_card.json").read_text())["learning_curve"]
    assert [point["rows"] for point in curve] == [16, 24, 48, 48]
    assert {point["n"] for point in curve} == {16}
    assert curve[-1]["value"] >= curve[0]["value"]
    assert "| 24 | " in (tmp_path / "measured/reward/report_card.md").read_text()
    monkeypatch.setattr(learning_curve, "SHARES", ())
    train_both(tmp_path / "not", base)
    left, right = (tmp_path / name / "reward/model/model.safetensors" for name in ("measured", "not"))
    assert left.read_bytes() == right.read_bytes()


def test_full_reward_model_opens_in_plain_transformers(tmp_path: Path) -> None:
    run = tmp_path / "run"
    _, metrics = train_both(run, outside_base(tmp_path / "base"))
    assert metrics["heldout_margin_after"] > metrics["heldout_margin_before"]
    assert {path.name for path in (run / "reward" / "model").iterdir()} == {
        *("config.json", "model.safetensors", "normalization.json", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    model = AutoModelForSequenceClassification.from_pretrained(run / "reward" / "model").eval()
    assert model.config.num_labels == 1
    _compare_padded(model, AutoTokenizer.from_pretrained(run / "reward" / "model"), run)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_lora_reward_model_opens_in_plain_peft_with_pad_equal_eos(tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    train_both(run, outside_base(tmp_path / "base", kind, pad="</s>"), model=LORA)
    tokenizer = AutoTokenizer.from_pretrained(run / "reward" / "model")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    model = AutoPeftModelForSequenceClassification.from_pretrained(run / "reward" / "model", num_labels=1).eval()
    model.config.pad_token_id = tokenizer.pad_token_id
    _compare_padded(model, tokenizer, run)


def _compare_padded(model: Any, tokenizer: Any, run: Path) -> None:
    """The golden rows in one padded batch, as any user of plain transformers would score them."""
    golden = json.loads((run / "reward" / "golden.json").read_text())["rows"]
    assert all(row["input_ids"][-1] == tokenizer.eos_token_id for row in golden)
    batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in golden]}, return_tensors="pt")
    with torch.no_grad():
        scores = model(**batch).logits[:, 0].tolist()
    assert scores == pytest.approx([row["score"] for row in golden], abs=1e-5)


def test_scratch_under_lora_uses_the_sft_model_as_its_base(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config, metrics = train_both(run, None, model=LORA)
    shape = json.loads((run / "reward" / "model" / "adapter_config.json").read_text())
    assert shape["base_model_name_or_path"] == "../../sft/model"
    assert str(tmp_path) not in json.dumps(shape)
    assert metrics["heldout_accuracy_after"] >= 0.9
    shutil.move(run, tmp_path / "moved")
    assert check_golden(PublishedReward.read(tmp_path / "moved" / "reward"), config, CPU) <= 1e-5


def test_sft_switched_off_starts_from_the_outside_base(tmp_path: Path) -> None:
    for mode in ("full", "lora"):
        _, metrics = train_both(
            tmp_path / mode, outside_base(tmp_path / f"base-{mode}"), model=MODES[mode], sft={"enabled": False}
        )
        assert metrics["heldout_accuracy_after"] >= 0.9


def test_normalization_is_that_of_the_stored_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[int]]] = []
    original = reward.normalize

    def spy(ctx: Any, scorer: Any, responses: Any, *rest: Any) -> Any:
        seen.append(
            [
                row_of(scorer, response.prompt, response.completion, same_run=True, thoughts=False).ids
                for response in responses
            ]
        )
        return original(ctx, scorer, responses, *rest)

    monkeypatch.setattr(reward, "normalize", spy)
    run = tmp_path / "run"
    config, metrics = train_both(run, outside_base(tmp_path / "base"))
    stored = json.loads((run / "reward" / "model" / "normalization.json").read_text())
    assert stored["n"] == 8
    model, _ = open_reward(PublishedReward.read(run / "reward"), config.model, CPU)
    scores = torch.tensor(score_ids(model, seen[0], 3), dtype=torch.float64)
    assert stored["mean"] == pytest.approx(float(scores.mean()), abs=1e-5)
    assert stored["std"] == pytest.approx(float(scores.std(correction=0)), abs=1e-5)
    assert metrics["normalization_mean"] == stored["mean"]


@pytest.mark.parametrize("unit", [1.0, 10.0, 100.0])
def test_margins_have_no_unit_and_a_cap(unit: float) -> None:
    margins = [1.0 * unit, -1.0 * unit, None, 2.0 * unit]
    assert scaled_margins(margins) == pytest.approx([0.5**0.5, -(0.5**0.5), 0.0, 2 * 0.5**0.5])
    assert scaled_margins([*[unit] * 99, 1e6 * unit])[-1] == 3.0  # type: ignore[index]
    assert scaled_margins([None, None]) is None
    assert scaled_margins([0.0, None]) is None


def test_normalization_measures_on_what_ppo_answers_whatever_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of two sources, one after the other, and a bound of PPO's that leaves some out."""
    seen: list[str] = []
    respond = reward.sft_responses

    def noted(*args: Any) -> list[reward.Response]:
        responses = respond(*args)
        seen.extend(response.prompt[0].content for response in responses)
        raise InterruptedError

    monkeypatch.setattr(reward, "sft_responses", noted)
    base = outside_base(tmp_path / "base")
    write_data(tmp_path, "comparisons", comparisons(16), comparisons(8, start=60))
    asked = [f"{source} {i}" for source in ("the first", "another") for i in range(30)]
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in [*asked, "you " * 40]]
    write_data(tmp_path, "prompts", rows, [{"prompt": [{"role": "user", "content": "held out"}]}])
    for most in (60, 20):
        seen.clear()
        config = config_for(
            base,
            sft={"enabled": False},
            reward={"max_steps": 1, "normalization_prompts": most},
            ppo={"max_prompt_length": 30, "response_length": 4},
        )
        with pytest.raises(InterruptedError):
            run_stage(tmp_path, "reward", reward.run, config, "data/comparisons", "data/prompts")
        assert set(seen) <= set(asked)
        assert len(set(seen)) == most
        assert seen != asked[:most]
    assert 5 < sum(text.startswith("the first") for text in seen) < 15


def test_margin_and_centering_reach_the_loss(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base")
    config = config_for(base, reward={"max_steps": 2})
    write_data(tmp_path, "demonstrations", demonstrations(8), demonstrations(4, start=60))
    run_stage(tmp_path, "sft", sft.run, config_for(base, sft={"max_steps": 1}), "data/demonstrations")
    losses, used = {}, {"use_margin": True}
    for name, fields, section in (
        ("plain", {}, {}),
        ("margin", {"margin": 2.0}, used),
        ("in another unit", {"margin": 200.0}, used),
        ("none", {"margin": 0.0}, used),
        ("ignored", {"margin": 2.0}, {}),
        ("centered", {}, {"center_rewards_coefficient": 1.0}),
    ):
        write_data(tmp_path, "comparisons", comparisons(16, **fields), comparisons(8, start=60))
        config = config_for(base, reward={"max_steps": 2, **section})
        losses[name] = run_stage(tmp_path, "reward", reward.run, config, "data/comparisons", "sft")["train_loss"]
    assert losses["margin"] > losses["plain"] + 0.3
    assert losses["in another unit"] == pytest.approx(losses["margin"], abs=1e-6)
    assert losses["none"] == pytest.approx(losses["plain"], abs=1e-6)
    assert losses["ignored"] == pytest.approx(losses["plain"], abs=1e-6)
    assert losses["centered"] > losses["plain"]


def test_lost_head_is_found(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config, _ = train_both(run, outside_base(tmp_path / "base"), model=LORA, reward={"max_steps": 2})
    weights = run / "reward" / "model" / "adapter_model.safetensors"
    tensors = load_file(weights)
    head = next(name for name in tensors if "score" in name)
    save_file({**tensors, head: torch.randn_like(tensors[head])}, weights, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="head"):
        check_golden(PublishedReward.read(run / "reward"), config, CPU)
    del tensors[head]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="head was lost"):
        open_reward(PublishedReward.read(run / "reward"), config.model, CPU)


def test_full_model_without_its_head_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config, _ = train_both(run, outside_base(tmp_path / "base"), reward={"max_steps": 2})
    weights = run / "reward" / "model" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["score.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"score\.weight"):
        open_reward(PublishedReward.read(run / "reward"), config.model, CPU)


def test_reward_starts_as_the_sft_model(tmp_path: Path) -> None:
    for mode in ("full", "lora", "nf4"):
        run, base = tmp_path / mode, outside_base(tmp_path / f"base-{mode}")
        config = config_for(base, model=MODES[mode], sft={"max_steps": 4})
        write_data(run, "demonstrations", demonstrations(16), demonstrations(4, start=60))
        run_stage(run, "sft", sft.run, config, "data/demonstrations")
        policy = open_policy(run / "sft", config.model, CPU)
        begun = initial_model._starting_point(config, run / "sft", BaseRef.of(config), run, CPU).eval()
        ids = torch.tensor([[3, 9, 8, 4, 7, 1]])
        trunks = [
            (model.get_base_model() if hasattr(model, "peft_config") else model).base_model for model in (policy, begun)
        ]
        ours, theirs = (trunk(input_ids=ids).last_hidden_state for trunk in trunks)
        assert float((ours - theirs).abs().max()) == 0.0


@pytest.mark.parametrize(("right", "n", "low", "high"), [(8, 10, 0.490162, 0.943318), (0, 5, 0.0, 0.434482)])
def test_wilson_interval(right: float, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-5)
    assert all(math.isfinite(end) for end in wilson(n, n))
