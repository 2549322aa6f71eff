"""The whole road on tiny models: every kind of fine-tuning, every stage, what is published and how it opens again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from pipelines.chain.chain import Outcome, run_chain
from pipelines.chain.table import STAGES
from pipelines.config import Config
from pipelines.errors import ConflictError, UsageError
from pipelines.models.policies import open_policy
from pipelines.models.published_reward import PublishedReward
from pipelines.ppo import stage as ppo_stage
from pipelines.ppo.roles import Roles
from pipelines.reward.assessment import check_golden
from pipelines.run.directory import RunDir
from pipelines.run.manifest import Manifest
from pipelines.run.reporting import SilentReporter
from tests.tiny import save_pair, tiny_gpt2, tiny_llama, tiny_tokenizer

WORDS = ["cat", "dog", "ball", "story", "mat", "world", "answer", "today"]
SMALL = {
    "sft": {"max_length": 64, "per_device_train_batch_size": 8, "learning_rate": 1e-3},
    "reward": {"max_length": 64, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "normalization_prompts": 4},
    "ppo": {
        "total_episodes": 16,
        "rollout_batch_size": 8,
        "num_mini_batches": 2,
        "num_ppo_epochs": 1,
        "max_prompt_length": 32,
        "response_length": 6,
        "learning_rate": 1e-3,
        "num_eval_prompts": 2,
    },
    "eval": {"num_prompts": 4, "bootstrap_samples": 100, "independent_judge": "off"},
}


def comparisons(path: Path) -> Path:
    rows = [
        {"prompt": f"tell me of the {a} and the {b}", "chosen": f"the {a} likes the {b}", "rejected": f"no {b}"}
        for a in WORDS
        for b in WORDS
        if a != b
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(config: dict[str, Any], directory: Path, **kwargs: Any) -> list[Outcome]:
    run_dir = RunDir(directory)
    run_dir.create()
    with run_dir.lock():
        return run_chain(STAGES, Config.model_validate({**SMALL, **config}), run_dir, SilentReporter(), **kwargs)


def actions(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.stage: outcome.action for outcome in outcomes}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = tiny_tokenizer()
    return {
        "llama": save_pair(tiny_llama(tokenizer), tokenizer, folder / "llama"),
        "gpt2": save_pair(tiny_gpt2(tokenizer), tokenizer, folder / "gpt2"),
        "comparisons": comparisons(folder / "comparisons.jsonl"),
    }


def with_model(inputs: dict[str, Path], name: str, **model: Any) -> dict[str, Any]:
    return {
        "run": {"device": "cpu"},
        "model": {"name_or_path": str(inputs[name]), **model},
        "data": {"comparisons": str(inputs["comparisons"]), "eval_fraction": 0.2},
    }


def first_update(directory: Path) -> dict[str, float]:
    line: dict[str, float] = json.loads((directory / "ppo" / "metrics.jsonl").read_text().splitlines()[0])
    return line


def test_lora_road_from_start_to_a_moved_run(inputs: dict[str, Path], tmp_path: Path) -> None:
    config, place = with_model(inputs, "llama", use_peft=True, lora_r=4), tmp_path / "run"
    assert set(actions(run(config, place)).values()) == {"run"}

    assert {path.name for path in (place / "ppo").iterdir()} - {"best", "alarms.jsonl"} == {
        "heldout.jsonl",
        "heldout_answers.jsonl",
        "manifest.json",
        "metrics.jsonl",
        "model",
        "samples.jsonl",
    }
    first = first_update(place)
    assert first["objective/kl"] == 0.0
    assert first["val/first_ratio_deviation"] < 1e-5
    assert first["val/optimizer_steps"] == 2
    samples = [json.loads(line) for line in (place / "ppo" / "samples.jsonl").read_text().splitlines()]
    assert [sample["update"] for sample in samples] == [0, 0, 1, 1, 2, 2]

    base = AutoModelForCausalLM.from_pretrained(inputs["llama"])
    opened = PeftModel.from_pretrained(base, place / "ppo" / "model")
    by_itself = AutoPeftModelForCausalLM.from_pretrained(place / "ppo" / "model")
    ids = torch.tensor([[10, 11, 12]])
    assert torch.equal(opened(ids).logits, by_itself(ids).logits)
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in (place / "ppo" / "model").iterdir())

    assert set(actions(run(config, place)).values()) == {"skip"}
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    shutil.move(place, moved)
    assert set(actions(run(config, moved)).values()) == {"skip"}
    shutil.rmtree(moved / "ppo")
    again = actions(run(config, moved))
    assert {stage for stage, action in again.items() if action == "run"} == {"ppo", "eval"}

    changed = {**config, "ppo": {**SMALL["ppo"], "kl_coef": 0.1}}
    with pytest.raises(ConflictError, match=r"ppo\.kl_coef: 0\.05 -> 0\.1"):
        run(changed, moved)


@pytest.mark.parametrize("sft", [True, False])
def test_the_same_run_twice_gives_the_same_policy(inputs: dict[str, Path], tmp_path: Path, sft: bool) -> None:
    config = with_model(inputs, "llama", use_peft=True, lora_r=4) | {"eval": {"enabled": False}}
    if not sft:  # the policy is then a fresh adapter, drawn by the seed alone
        config |= {"sft": {"enabled": False}, "reward": {"enabled": False}}
        config["ppo"] = {**SMALL["ppo"], "reward": {"kind": "function", "function": f"{__name__}:letters"}}
    digests = []
    for name in ("one", "two"):
        torch.rand(len(digests) + 1)  # what ran before must not matter
        run(config, tmp_path / name)
        manifest = Manifest.read(tmp_path / name / "ppo")
        assert manifest is not None
        digests.append({record.path: record.sha256 for record in manifest.outputs if record.path.startswith("model/")})
    assert digests[0] == digests[1]


@pytest.mark.parametrize("use_peft", [False, True])
def test_what_is_published_is_what_was_trained(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_peft: bool
) -> None:
    kept: list[Roles] = []
    build = ppo_stage.build_roles

    def keep(*args: Any, **kwargs: Any) -> Roles:
        kept.append(build(*args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(ppo_stage, "build_roles", keep)
    ppo = SMALL["ppo"] | {"num_eval_prompts": 0}  # else the best policy takes the last one's place to be published
    config = with_model(inputs, "llama", use_peft=use_peft) | {"eval": {"enabled": False}, "ppo": ppo}
    run(config, tmp_path / "run")
    section = Config.model_validate({**SMALL, **config}).model
    opened = open_policy(tmp_path / "run" / "ppo", section, torch.device("cpu"))
    ids = torch.tensor([[10, 11, 12, 13]])
    with torch.no_grad(), kept[0].policy.active() as policy:
        assert torch.equal(opened(ids).logits, policy(ids).logits)
    with torch.no_grad(), kept[0].reference.active() as reference:
        assert not torch.allclose(opened(ids).logits, reference(ids).logits)


def test_the_rate_falls_and_every_rollout_is_whole(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Three updates for 17 episodes of 8: the last rollout is as large as the others and takes as many steps."""
    config = with_model(inputs, "llama", use_peft=True, lora_r=4) | {"eval": {"enabled": False}}
    config["ppo"] = {**SMALL["ppo"], "total_episodes": 17, "num_ppo_epochs": 3}
    run(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert [line["val/optimizer_steps"] for line in lines] == [6, 6, 6]
    assert [line["episode"] for line in lines] == [8, 16, 24]
    assert [line["lr"] for line in lines] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])


def test_a_response_that_the_model_cannot_hold_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = with_model(inputs, "gpt2")
    config["ppo"] = {
        **SMALL["ppo"],
        "response_length": 300,
        "reward": {"kind": "function", "function": f"{__name__}:letters"},
    }
    with pytest.raises(UsageError, match="holds 256 tokens"):
        run({**config, "sft": {"enabled": False}, "reward": {"enabled": False}}, tmp_path / "run")


def test_full_fine_tuning_of_a_gpt2(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = with_model(inputs, "gpt2")
    run(config, tmp_path / "run")
    assert first_update(tmp_path / "run")["objective/kl"] == 0.0
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "ppo" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "reward" / "model")
    judge = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "reward" / "model")
    assert judge.config.num_labels == 1
    assert judge.config.pad_token_id != tokenizer.eos_token_id


def test_four_bit_adapters_on_the_cpu(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = with_model(
        inputs, "llama", use_peft=True, lora_r=4, load_in_4bit=True, allow_cpu_4bit=True, dtype="bfloat16"
    )
    run(config, tmp_path / "run")
    assert first_update(tmp_path / "run")["objective/kl"] == 0.0
    check_golden(
        PublishedReward.read(tmp_path / "run" / "reward"),
        Config.model_validate({**SMALL, **config}),
        torch.device("cpu"),
    )


def test_adapters_over_a_model_from_scratch_find_their_base_after_a_move(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    shape = {"vocab_size": 320, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 64}
    config = with_model(inputs, "llama") | {"model": {"init": "scratch", "scratch": shape, "use_peft": True}}
    run(config, tmp_path / "run")
    moved = tmp_path / "moved"
    (tmp_path / "run").rename(moved)
    shutil.rmtree(moved / "ppo")
    again = actions(run(config, moved))
    assert {stage for stage, action in again.items() if action == "run"} == {"ppo", "eval"}
    assert first_update(moved)["objective/kl"] == 0.0


def letters(prompts: list[list[dict[str, str]]], completions: list[str]) -> list[float]:
    return [float(text.count("a")) for text in completions]


@pytest.mark.parametrize("use_peft", [False, True])
def test_without_sft_and_with_a_python_function(inputs: dict[str, Path], tmp_path: Path, use_peft: bool) -> None:
    config = with_model(inputs, "llama", use_peft=use_peft)
    config["ppo"] = {**SMALL["ppo"], "reward": {"kind": "function", "function": f"{__name__}:letters"}}
    outcomes = run({**config, "sft": {"enabled": False}, "reward": {"enabled": False}}, tmp_path / "run")
    assert set(actions(outcomes)) == {"data/prompts", "ppo", "eval"}
    assert first_update(tmp_path / "run")["objective/kl"] == 0.0


def test_the_reward_rises_on_a_toy(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Learning, not only wiring: a model that is paid for a letter writes it more often."""
    config = with_model(inputs, "llama")
    config["ppo"] = {
        **SMALL["ppo"],
        "reward": {"kind": "function", "function": f"{__name__}:letters"},
        "total_episodes": 64 * 12,
        "rollout_batch_size": 64,
        "num_ppo_epochs": 4,
        "response_length": 8,
        "learning_rate": 3e-3,
        "value_learning_rate": 3e-3,
        "kl_coef": 0.01,
        "missing_eos_penalty": 0.0,
        "num_eval_prompts": 0,
    }
    off = {"enabled": False}
    run({**config, "sft": off, "reward": off, "eval": off}, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "ppo" / "metrics.jsonl").read_text().splitlines()]
    scores = [line["objective/scores"] for line in lines]
    assert sum(scores[-3:]) / 3 > 2 * sum(scores[:3]) / 3 + 0.5
