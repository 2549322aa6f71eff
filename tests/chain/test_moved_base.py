"""A run knows its base by content: moved, copied, or named by another path, it is the same; changed, it is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pipelines.chain.chain import plan_chain, run_chain
from pipelines.chain.table import named
from pipelines.config import Config, load_config
from pipelines.config.model_section import ModelSection
from pipelines.config.reward_section import RewardSection
from pipelines.errors import ConflictError
from pipelines.models.base_record import BaseRecord, present_name, remember_base, with_recorded_base
from pipelines.models.policies import open_policy
from pipelines.run.directory import RunDir, StageStart
from pipelines.run.reporting import SilentReporter
from tests.models.helpers import comparisons, demonstrations, outside_base
from tests.tiny import save_pair, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
STAGES = ("data/demonstrations", "sft", "data/comparisons", "data/prompts", "reward")


class Bench:
    """A run of SFT and reward model under LoRA, on a base that can be moved."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.run = directory, RunDir(directory / "run")
        prompts = [{"prompt": row["prompt"]} for row in comparisons(12)]
        for name, rows in (
            ("demonstrations", demonstrations(12)),
            ("comparisons", comparisons(12)),
            ("prompts", prompts),
        ):
            (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.base = outside_base(directory / "base")

    def config(self, base: Path | str) -> Config:
        """The configuration with another `--model`."""
        stage = ("max_steps=1", "max_length=64", "per_device_train_batch_size=4")
        sets = [
            *(f"{section}.{value}" for section in ("sft", "reward") for value in stage),
            *("run.device=cpu", f"model.name_or_path={base}", "model.use_peft=true", "model.lora_r=2"),
            *("ppo.response_length=4", "reward.normalization_prompts=2", "data.eval_fraction=0.3"),
            *(f"data.{name}={self.directory / name}.jsonl" for name in ("demonstrations", "comparisons", "prompts")),
        ]
        return load_config(None, sets)

    def go(self, base: Path | str, *names: str) -> list[str]:
        """Run stages; what was done with each."""
        config = self.config(base)
        stages = [stage for name in names or STAGES for stage in named(name, config)]
        return [outcome.action for outcome in run_chain(stages, config, self.run, SilentReporter())]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.run.create()
    return made


def move(base: Path, new: Path) -> None:
    """Move it."""
    base.rename(new)


def copy(base: Path, new: Path) -> None:
    """Copy it, with new times."""
    shutil.copytree(base, new, copy_function=shutil.copyfile)


@pytest.mark.parametrize("change", [move, copy])
def test_a_base_in_another_place_is_the_same_and_the_run_goes_on(
    bench: Bench, change: Callable[[Path, Path], None]
) -> None:
    assert bench.go(bench.base, "data/demonstrations", "sft") == ["run", "run"]
    change(bench.base, bench.directory / "elsewhere")
    new = bench.directory / "elsewhere"
    assert bench.go(new) == ["skip", "skip", "run", "run", "run"]
    assert bench.go(new) == ["skip"] * 5
    assert f"name_or_path: {new}" in bench.run.config_path.read_text()
    assert present_name(str(bench.base), bench.run.root) == str(new)
    open_policy(bench.run.root / "sft", bench.config(new).model, CPU)
    shutil.rmtree(bench.base, ignore_errors=True)
    again = bench.directory / "again"
    new.rename(again)
    assert bench.go(again) == ["skip"] * 5
    open_policy(bench.run.root / "sft", bench.config(again).model, CPU)


def test_another_base_under_the_new_name_is_a_conflict(bench: Bench) -> None:
    bench.go(bench.base, "data/demonstrations", "sft")
    tokenizer = tiny_tokenizer()
    other = save_pair(tiny_llama(tokenizer, seed=1), tokenizer, bench.directory / "other")
    with pytest.raises(ConflictError, match="name_or_path"):
        bench.go(other, "data/demonstrations", "sft")


def test_a_base_that_was_changed_in_place_is_a_conflict(bench: Bench) -> None:
    bench.go(bench.base, "data/demonstrations", "sft")
    tokenizer = tiny_tokenizer()
    save_pair(tiny_llama(tokenizer, seed=1), tokenizer, bench.base)
    with pytest.raises(ConflictError, match="its files have changed"):
        bench.go(bench.base, "data/demonstrations", "sft")
    config = bench.config(bench.base)
    (sft,) = named("sft", config)
    run_chain([sft], config, bench.run, SilentReporter(), force=["sft"])
    assert bench.go(bench.base, "data/demonstrations", "sft") == ["skip", "skip"]


def test_a_base_that_is_gone_is_no_difference(bench: Bench) -> None:
    bench.go(bench.base)
    shutil.rmtree(bench.base)
    config = bench.config(str(bench.base))
    plans = plan_chain([stage for name in STAGES for stage in named(name, config)], config, bench.run)
    assert [plan.action for plan in plans] == ["skip"] * 5


def test_a_run_of_before_without_a_record_compares_the_files_themselves(bench: Bench) -> None:
    bench.go(bench.base, "data/demonstrations", "sft")
    (bench.run.root / "base.json").unlink()
    copy(bench.base, bench.directory / "elsewhere")
    assert bench.go(bench.directory / "elsewhere", "data/demonstrations", "sft") == ["skip", "skip"]


def test_checkpoints_of_an_interrupted_stage_are_those_of_the_same_base(bench: Bench) -> None:
    bench.go(bench.base, "data/demonstrations", "sft")
    config, stage = bench.config(bench.base), "sft"
    manifest = json.loads((bench.run.stage(stage) / "manifest.json").read_text())
    bench.run.stage(stage).rename(bench.run.partial(stage))
    StageStart(manifest["fingerprint"], manifest["section"], {}).write(bench.run.partial(stage))
    bench.base.rename(bench.directory / "elsewhere")
    config = bench.config(bench.directory / "elsewhere")
    (plan,) = plan_chain(list(named(stage, config)), config, bench.run)
    assert not plan.differences


@pytest.mark.parametrize("field", ["model", "reward"])
def test_a_path_is_written_without_what_leads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    outside_base(tmp_path / "base")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    sections: dict[str, Any] = {
        "model": lambda path: ModelSection(name_or_path=path).name_or_path,
        "reward": lambda path: RewardSection(base=path).base,
    }
    for path in ("b/../base", "./base/", "b/.././b/../base", str(tmp_path / "b" / ".." / "base")):
        assert sections[field](path) == str(tmp_path.resolve() / "base")


def test_an_adapter_names_its_base_by_that_path_and_opens_in_plain_peft(bench: Bench) -> None:
    (bench.directory / "b").mkdir()
    bench.go(bench.directory / "b" / ".." / "base", "data/demonstrations", "sft")
    adapter = bench.run.root / "sft" / "model"
    name = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert name == str(bench.base.resolve())
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(name), adapter)


def test_a_run_with_such_a_path_stays_complete(bench: Bench) -> None:
    bench.go(bench.base, "data/demonstrations", "sft")
    manifest = bench.run.stage("sft") / "manifest.json"
    (bench.directory / "b").mkdir()
    older = json.loads(manifest.read_text().replace(f'{bench.directory}/base"', f'{bench.directory}/b/../base"'))
    del older["sha256"]  # earlier versions wrote none
    manifest.write_text(json.dumps(older))
    (bench.run.root / "base.json").unlink()
    assert bench.go(bench.base, "data/demonstrations", "sft") == ["skip", "skip"]


def test_a_local_copy_of_a_hub_model_is_that_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, run = "0123456789abcdef0123456789abcdef01234567", tmp_path / "run"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "models--org--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    run.mkdir()

    def section(name: str) -> dict[str, Any]:
        return {"model": {"name_or_path": name, "revision": None}, "seed": 0}

    config = load_config(None, ["model.name_or_path=org/tiny"])
    remember_base(config, run)
    assert BaseRecord.read(run) is None, "it is not on this machine yet"
    outside_base(cached / "snapshots" / commit)
    remember_base(config, run)
    copy(cached / "snapshots" / commit, tmp_path / "copy")
    assert with_recorded_base(section(str(tmp_path / "copy")), run, section("org/tiny")) == section("org/tiny")
    tokenizer = tiny_tokenizer()
    save_pair(tiny_llama(tokenizer, seed=1), tokenizer, tmp_path / "other")
    assert with_recorded_base(section(str(tmp_path / "other")), run, section("org/tiny")) != section("org/tiny")


def test_a_gguf_file_may_get_another_name(tmp_path: Path) -> None:
    for name, content in (("a.gguf", b"1"), ("b.gguf", b"1"), ("c.gguf", b"2")):
        (tmp_path / name).write_bytes(content)
    remember_base(load_config(None, [f"model.name_or_path={tmp_path / 'a.gguf'}"]), tmp_path)
    record = BaseRecord.read(tmp_path)
    assert record is not None
    assert record.holds(str(tmp_path / "b.gguf"))
    assert not record.holds(str(tmp_path / "c.gguf"))
    remember_base(load_config(None, [f"model.name_or_path={tmp_path / 'b.gguf'}"]), tmp_path)
    assert present_name(str(tmp_path / "a.gguf"), tmp_path) == str(tmp_path / "b.gguf")


def test_a_damaged_record_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text('{"names": [], "files": [{}]}')
    assert BaseRecord.read(tmp_path) is None
    assert present_name("a", tmp_path) == "a"
