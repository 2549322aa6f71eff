from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from pipelines.config import load_config
from pipelines.data.encode import ChatEncoder, encode_demonstrations
from pipelines.data.rows import Demonstration
from pipelines.errors import EnvironmentProblem, TrainingError, UsageError
from pipelines.models.policies import open_policy
from pipelines.run.manifest import Manifest
from pipelines.run.stage import StageContext, tracked_as
from pipelines.sft import stage as sft
from pipelines.trainers.training import trainer_arguments
from tests.models.helpers import config_for, demonstrations, outside_base, run_stage, write_data
from tests.recorders import Recorder
from tests.tiny import save_pair, tiny_gpt2, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
FULL = {"config.json", "generation_config.json", "model.safetensors"} | TOKENIZER_FILES
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"} | TOKENIZER_FILES


def train_sft(run: Path, base: Path | None, **sections: Any) -> dict[str, Any]:
    write_data(run, "demonstrations", demonstrations(48), demonstrations(10, start=60))
    return run_stage(run, "sft", sft.run, config_for(base, **sections), "data/demonstrations")


def test_full_training_lowers_the_held_out_loss_and_publishes_a_plain_model(tmp_path: Path) -> None:
    run = tmp_path / "run"
    metrics = train_sft(run, outside_base(tmp_path / "base"), sft={"num_train_epochs": 4.0})
    assert metrics["heldout_loss_after"] < 0.75 * metrics["heldout_loss_before"]  # .67 to .72 over seeds
    assert metrics["perplexity_after"] == pytest.approx(math.exp(metrics["heldout_loss_after"]))
    assert metrics["steps"] == 24
    assert metrics["rows_used"] == 48
    assert metrics["trainable_parameters"] == open_policy(run / "sft", config_for(tmp_path).model, CPU).num_parameters()
    assert {path.name for path in (run / "sft" / "model").iterdir()} == FULL
    assert not (run / "sft" / "checkpoints").exists()
    lines = [json.loads(line) for line in (run / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 5, 10, 15, 20]
    assert all(math.isfinite(line["loss"]) for line in lines)

    model = AutoModelForCausalLM.from_pretrained(run / "sft" / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "sft" / "model")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "say cat dog"}], add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert answer[0, -1] == tokenizer.eos_token_id, "it did not learn to stop"


def test_scratch_builds_model_and_tokenizer_from_the_text(tmp_path: Path) -> None:
    run = tmp_path / "run"
    metrics = train_sft(run, None, sft={"num_train_epochs": 2.0})
    assert metrics["heldout_loss_after"] < metrics["heldout_loss_before"]
    assert {path.name for path in (run / "sft" / "model").iterdir()} == FULL
    notes = Manifest.read(run / "sft").notes
    assert notes["base"] == {"name_or_path": None, "revision": None, "stage": "sft"}
    assert notes["rows"] == {"used": 48, "dropped": 0, "cut": 0, "refused": 0}


@pytest.mark.parametrize("four_bit", [False, True])
def test_lora_publishes_an_adapter_that_peft_opens(tmp_path: Path, four_bit: bool) -> None:
    base, run = outside_base(tmp_path / "base"), tmp_path / "run"
    model = {"use_peft": True, "load_in_4bit": four_bit, "allow_cpu_4bit": four_bit, "lora_r": 4}
    metrics = train_sft(run, base, model=model)
    assert metrics["heldout_loss_after"] < metrics["heldout_loss_before"]
    assert {path.name for path in (run / "sft" / "model").iterdir()} == ADAPTER
    shape = json.loads((run / "sft" / "model" / "adapter_config.json").read_text())
    assert shape["base_model_name_or_path"] == str(base)
    assert Manifest.read(run / "sft").notes["base"]["name_or_path"] == str(base)
    opened = open_policy(run / "sft", config_for(base, model=model).model, CPU)
    assert not any(parameter.requires_grad for parameter in opened.parameters())


def test_four_bit_trains_fp32_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[torch.dtype]] = []
    original = sft.train

    def spy(trainer: SFTTrainer, *rest: Any) -> Any:
        seen.append({parameter.dtype for parameter in trainer.model.parameters() if parameter.requires_grad})
        return original(trainer, *rest)

    monkeypatch.setattr(sft, "train", spy)
    model = {"use_peft": True, "load_in_4bit": True, "allow_cpu_4bit": True}
    train_sft(tmp_path / "run", outside_base(tmp_path / "base"), model=model, sft={"max_steps": 1})
    assert seen == [{torch.float32}]


def test_bf16_autocast_trains(tmp_path: Path) -> None:
    metrics = train_sft(tmp_path / "run", outside_base(tmp_path / "base"), model={"dtype": "bfloat16"})
    assert metrics["heldout_loss_after"] < metrics["heldout_loss_before"]
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "sft" / "model")
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.float32}


def test_four_bit_without_a_device_for_it_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        train_sft(tmp_path / "run", tmp_path / "nowhere", model={"use_peft": True, "load_in_4bit": True})
    assert caught.value.where == "model.load_in_4bit"


def test_only_assistant_tokens_carry_loss() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    rows = [Demonstration.model_validate(row) for row in demonstrations(4)]
    encoded, _ = encode_demonstrations(rows, ChatEncoder(tokenizer), 64, "drop", "all")
    loss = sft.heldout_loss(model, encoded, 2, config_for())
    by_hand, count = 0.0, 0
    for row in encoded:
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        for place, label in enumerate(row["labels"]):
            if label != -100:
                by_hand, count = by_hand - float(logits[place - 1, label]), count + 1
    assert loss == pytest.approx(by_hand / count, rel=1e-5)
    assert all(row["labels"][-1] == tokenizer.eos_token_id for row in encoded)
    assert sft.heldout_loss(model, [], 2, config_for()) is None


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_packed_rows_keep_their_masks_and_do_not_see_each_other(tmp_path: Path, make: Any) -> None:
    tokenizer = tiny_tokenizer()
    rows = [Demonstration.model_validate(row) for row in demonstrations(6)]
    encoded, _ = encode_demonstrations(rows, ChatEncoder(tokenizer), 64, "drop", "all")
    config = config_for(sft={"packing": True, "per_device_train_batch_size": 4})
    own = {"packing": True, "packing_strategy": "bfd", "max_length": 64}
    args = trainer_arguments(SFTConfig, config, "sft", tmp_path, CPU, own)
    dataset = Dataset.from_list([dict(row) for row in encoded], features=sft._FEATURES)
    trainer = SFTTrainer(make(tokenizer), args, train_dataset=dataset, processing_class=tokenizer)
    packed = next(iter(trainer.get_train_dataloader()))
    assert len(trainer.train_dataset) < len(rows)
    trained = lambda labels: sorted(int(label) for label in labels if label != -100)  # noqa: E731
    assert trained(packed["labels"].flatten()) == trained(label for row in encoded for label in row["labels"])
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model.eval(), packed)
    assert float(loss) == pytest.approx(sft.heldout_loss(trainer.model, encoded, 2, config), rel=1e-5)


def test_packing_trains(tmp_path: Path) -> None:
    metrics = train_sft(tmp_path / "run", outside_base(tmp_path / "base"), sft={"packing": True, "max_steps": 8})
    assert metrics["heldout_loss_after"] < metrics["heldout_loss_before"]


def test_further_trainer_fields_are_checked_by_name(tmp_path: Path) -> None:
    def arguments(**further: Any) -> Any:
        return trainer_arguments(SFTConfig, config_for(sft={"trainer": further}), "sft", tmp_path, CPU, {})

    assert arguments(adam_beta2=0.95).adam_beta2 == 0.95
    with pytest.raises(UsageError) as error:
        arguments(adam_beta_2=0.95)
    assert error.value.hint == "did you mean `adam_beta2`?"
    for ours in ("learning_rate", "bf16", "output_dir", "packing", "save_strategy"):
        with pytest.raises(UsageError, match=f"`sft.trainer`: `{ours}` cannot be set here"):
            load_config(None, [f"sft.trainer={{{ours}: 1}}"])
    with pytest.raises(UsageError) as caught:
        arguments(optim="no such optimizer")
    assert caught.value.where == "sft"


def test_trackers_get_one_project_and_a_name_that_says_run_and_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "my"
    (run / "rounds" / "02").mkdir(parents=True)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    args = trainer_arguments(SFTConfig, config_for(), "sft", run / "sft.partial", CPU, {})
    assert (args.project, args.run_name[:7]) == ("rlhf", "my-sft-")
    project, name = tracked_as(run / "rounds" / "02" / "ppo.partial")
    assert (project, name[:15]) == ("rlhf", "my-round-2-ppo-")
    monkeypatch.chdir(run)
    monkeypatch.setenv("WANDB_PROJECT", "team")
    project, name = tracked_as(Path("ppo.partial"))
    assert (project, name[:7]) == ("team", "my-ppo-")
    named = config_for(sft={"trainer": {"project": "other", "run_name": "mine"}})
    args = trainer_arguments(SFTConfig, named, "sft", run / "sft.partial", CPU, {})
    assert (args.project, args.run_name) == ("other", "mine")


def test_trl_defaults_do_not_come_through(tmp_path: Path) -> None:
    args = trainer_arguments(SFTConfig, config_for(), "sft", tmp_path, CPU, {"max_length": None})
    assert (args.bf16, args.gradient_checkpointing, args.max_length, args.report_to) == (False, False, None, [])
    assert args.logging_nan_inf_filter is False


def test_divergence_is_a_training_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="diverged"):
        train_sft(tmp_path / "run", outside_base(tmp_path / "base"), sft={"learning_rate": 1e30, "logging_steps": 1})
    assert not (tmp_path / "run" / "sft").exists()


@pytest.mark.parametrize(("rate", "warned"), [(5e-3, False), (10.0, True)])
def test_the_held_out_loss_is_told_and_one_that_rose_is_a_warning(tmp_path: Path, rate: float, warned: bool) -> None:
    write_data(tmp_path, "demonstrations", demonstrations(16), demonstrations(4, start=60))
    config = config_for(outside_base(tmp_path / "base"), sft={"max_steps": 3, "learning_rate": rate})
    reporter, out = Recorder(), tmp_path / "sft.partial"
    out.mkdir()
    inputs = {"data/demonstrations": tmp_path / "data/demonstrations"}
    metrics = sft.run(StageContext(config, out, inputs, reporter))
    losses = f"{metrics['heldout_loss_before']:.3f} before, {metrics['heldout_loss_after']:.3f} after"
    assert any(losses in text for text in (reporter.warned if warned else reporter.said))
    assert any(losses in text for text in reporter.warned) is warned


@pytest.mark.parametrize(("steps", "never"), [(1, True), (60, False)])
def test_answers_that_never_end_are_told(tmp_path: Path, steps: int, never: bool) -> None:
    write_data(tmp_path, "demonstrations", demonstrations(48), demonstrations(10, start=60))
    config = config_for(
        outside_base(tmp_path / "base"),
        sft={"max_steps": steps, "learning_rate": 1e-2 if steps > 1 else 1e-6},
        ppo={"response_length": 2 if never else 12, "num_mini_batches": 1},  # of long random answers some would end
    )
    reporter, out = Recorder(), tmp_path / "sft.partial"
    out.mkdir()
    inputs = {"data/demonstrations": tmp_path / "data/demonstrations"}
    metrics = sft.run(StageContext(config, out, inputs, reporter))
    assert (metrics["heldout_finished"] == 0) is never
    assert any("none of 10 answers to held-out prompts ends" in text for text in reporter.warned) is never


@pytest.mark.parametrize("fault", ["zero", "copied", None])
def test_lora_says_which_tokens_it_cannot_learn_to_write(tmp_path: Path, fault: str | None) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    end, other = tokenizer.convert_tokens_to_ids(["</s>", "<|system|>"])
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        if fault is not None:
            rows[end] = 0 if fault == "zero" else rows[other]
    base = save_pair(model, tokenizer, tmp_path / "base")
    write_data(tmp_path, "demonstrations", demonstrations(16), demonstrations(4, start=60))
    for use_peft in (True, False):
        config = config_for(base, sft={"max_steps": 1}, model={"use_peft": use_peft, "lora_r": 4})
        reporter, out = Recorder(), tmp_path / f"sft-{use_peft}.partial"
        out.mkdir()
        sft.run(StageContext(config, out, {"data/demonstrations": tmp_path / "data/demonstrations"}, reporter))
        told = any("no trained embedding of </s>" in text for text in reporter.warned)
        assert told is (use_peft and fault is not None)
