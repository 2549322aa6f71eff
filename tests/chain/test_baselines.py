"""`rlhf baseline`: PPO's stage without a value model, DPO, and best of n, beside PPO and with what PPO had."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pipelines.chain.chain import run_chain
from pipelines.chain.table import named, select, stages_of
from pipelines.config import Config, dump_config
from pipelines.data.canonical import read_rows
from pipelines.data.chat import ChatEncoder
from pipelines.data.rows import Comparison
from pipelines.errors import DataError, UsageError
from pipelines.models.policies import open_policy, open_tokenizer
from pipelines.reward import shares
from pipelines.run.directory import RunDir, run_of
from pipelines.run.manifest import Manifest
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import StageContext
from pipelines.sampling.sampling_models import stage_directory
from rlhf_cli.app import run as rlhf
from tests.models.decoders import TOKENIZER, tiny_decoder
from tests.models.helpers import config_for, outside_base
from tests.ppo.test_ppo_resume import LORA, STOPS
from tests.ppo.test_ppo_resume import settings as ppo_settings
from tests.test_end_to_end import SMALL, comparisons
from tests.tiny import save_pair
from tests.trainers.test_trainer_resume import NF4, Interrupter, Killed, kill, result, went_on

NAME = "baselines/rloo"


def settings(folder: Path, model: dict[str, Any], **ppo: Any) -> Config:
    """Those of the tests of PPO, with responses of several lengths: else no reward would differ."""
    return ppo_settings(folder, model, stop_tokens=STOPS, response_length=12, **ppo)


def manifest_of(root: Path, stage: str) -> Manifest:
    manifest = Manifest.read(root / stage)
    assert manifest is not None
    return manifest


def metrics(root: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / stage / "metrics.jsonl").read_text().splitlines()]


def out(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run directory `run` with PPO."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(dump_config(settings(tmp_path, LORA, num_eval_prompts=2, value_warmup_updates=1)))
    assert rlhf(["ppo", "--config", "my.yaml", "--run-dir", "run", "--json"]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def test_a_baseline_has_what_ppo_had_and_leaves_it_alone(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "ppo" / "manifest.json").read_bytes()
    assert rlhf(["baseline", "rloo", "--run-dir", "run", "--json"]) == 0
    assert out(capsys)["directory"].endswith(NAME)
    ppo, rloo = manifest_of(trained, "ppo"), manifest_of(trained, NAME)
    assert rloo.inputs == ppo.inputs
    assert rloo.section["model"] == ppo.section["model"]
    assert rloo.section["ppo"]["advantage_estimator"] == "rloo"
    assert rloo.section["ppo"]["num_generations"] == 4
    same = rloo.section["ppo"].keys() & ppo.section["ppo"].keys() - {"num_generations", "whiten_advantages"}
    assert len(same) > 20
    assert {key: rloo.section["ppo"][key] for key in same} == {key: ppo.section["ppo"][key] for key in same}
    lines = metrics(trained, NAME)
    assert [line["episode"] for line in lines] == [line["episode"] for line in metrics(trained, "ppo")]
    assert lines[0]["objective/kl"] == 0.0
    assert lines[0]["val/first_ratio_deviation"] < 1e-5
    assert "val/explained_variance" not in lines[0]
    assert abs(lines[-1]["objective/kl"]) > 0.01, "it has learned something"
    assert (trained / "ppo" / "manifest.json").read_bytes() == before

    assert rlhf(["baseline", "rloo", "--run-dir", "run", "--json"]) == 0
    assert out(capsys)["action"] == "skip"
    assert rlhf(["status", "--run-dir", "run", "--json"]) == 0
    states = {entry["stage"]: entry["state"] for entry in out(capsys)["stages"]}
    assert (states["ppo"], states[NAME]) == ("complete", "complete")
    assert "baselines/grpo" not in states
    assert run_of(trained / NAME) == (trained, 1)
    assert stage_directory("run/baselines/rloo/model") == trained / NAME, "rlhf sample opens it"
    opened = open_policy(trained / NAME, settings(trained.parent, LORA).model, torch.device("cpu"))
    assert torch.isfinite(opened(input_ids=torch.tensor([[5, 6]])).logits).all()


def test_what_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> tuple[int, str]:
        code = rlhf(["baseline", *words, "--run-dir", "run", "--json"])
        return code, out(capsys)["error"]["message"]

    assert refused("rloo", "--set", "baselines.num_generations=3") == (
        2,
        "ppo.rollout_batch_size 8 is not a multiple of baselines.num_generations 3",
    )
    assert "num_generations: 3" not in (trained / "config.yaml").read_text(), "the record is untouched"
    assert refused("rloo", "--set", "baselines.num_generations=1")[0] == 2
    assert refused("kto")[0] == 2
    assert rlhf(["baseline", "rloo", "--run-dir", "run", "--json"]) == 0
    capsys.readouterr()
    code, message = refused("rloo", "--set", "baselines.num_generations=2")
    assert code == 4
    assert "ppo.num_generations: 4 -> 2" in message
    (trained / "data" / "prompts" / "manifest.json").unlink()
    assert rlhf(["baseline", "grpo", "--run-dir", "run", "--dry-run", "--json"]) == 0
    plan = {entry["stage"]: entry["action"] for entry in out(capsys)["plan"]}
    assert plan == {"data/prompts": "run", "baselines/grpo": "run"}


def test_the_chain_stops_at_a_baseline_only_where_it_runs_one() -> None:
    compared = Config.model_validate({"eval": {"policies": ["ppo", "rloo"]}, "data": {"task": {"name": "support"}}})
    assert [stage.name for stage in select("ppo", NAME, compared)] == ["ppo", NAME]
    with pytest.raises(UsageError, match=r"does not run baselines/rloo") as refused:
        select(None, NAME, Config.model_validate({"data": {"task": {"name": "support"}}}))
    assert "eval.policies" in str(refused.value.hint)


def test_killed_and_gone_on_with_to_the_byte(tmp_path: Path) -> None:
    def go(root: Path, config: Config, reporter: SilentReporter) -> None:
        run_dir = RunDir(root)
        run_dir.create()
        stages = (*named("data/prompts", config), *named(NAME, config))
        with run_dir.lock():
            run_chain(stages, config, run_dir, reporter)

    go(tmp_path / "never", settings(tmp_path, LORA), SilentReporter())
    often = settings(tmp_path, LORA, save_steps=2)
    with pytest.raises(Killed):
        go(tmp_path / "run", often, Interrupter(3, kill))
    last = Interrupter()
    go(tmp_path / "run", often, last)
    assert went_on(last.said) == ["update 2"]
    assert "rloo: goes on from update 2" in last.said
    assert any(line.startswith("rloo: model/ is the policy") for line in last.said)
    assert result(tmp_path / "run", NAME) == result(tmp_path / "never", NAME)


def test_the_evaluation_compares_a_baseline_and_the_chain_trains_it(tmp_path: Path) -> None:
    """From scratch, so that the base of every adapter and model is a stage of the run."""
    sections = {
        **SMALL,
        "run": {"device": "cpu"},
        "model": {"init": "scratch", "scratch": {"vocab_size": 320, "hidden_size": 32, "num_attention_heads": 4}},
        "data": {"comparisons": str(comparisons(tmp_path / "rows.jsonl")), "eval_fraction": 0.2},
        "eval": SMALL["eval"] | {"policies": ["sft", "ppo", "rloo"]},
    }
    config = Config.model_validate(sections)
    run_dir = RunDir(tmp_path / "run")
    run_dir.create()
    stages = stages_of(config)
    assert [stage.name for stage in stages[-4:]] == ["ppo", NAME, "judge", "eval"]
    with run_dir.lock():
        outcomes = run_chain(stages, config, run_dir, SilentReporter())
    assert {outcome.action for outcome in outcomes} == {"run"}
    results = json.loads((run_dir.root / "eval" / "results.json").read_text())
    assert list(results["measures"]) == ["sft", "ppo", "rloo"]
    assert results["trained"] == "ppo"
    assert "RLOO" in (run_dir.root / "eval" / "table.txt").read_text()
    ppo, rloo = manifest_of(run_dir.root, "ppo"), manifest_of(run_dir.root, NAME)
    assert rloo.inputs == ppo.inputs


DPO = {"per_device_train_batch_size": 8, "max_length": 64, "save_steps": 2}


def with_pairs(folder: Path, model: dict[str, Any], **sections: Any) -> Config:
    """A base of its own with the rows of `comparisons`, and settings that let DPO learn."""
    rows = folder / "rows.jsonl"
    if not rows.exists():
        comparisons(rows)
    base = outside_base(folder / "base") if not (folder / "base").exists() else folder / "base"
    sections = {"reward": DPO, "baselines": {"dpo": {"learning_rate": 1e-2, "num_train_epochs": 2.0}}} | sections
    return config_for(base, model=model, data={"comparisons": str(rows), "eval_fraction": 0.2}, **sections)


@pytest.mark.parametrize("model", [{}, LORA], ids=["full", "lora"])
def test_dpo_learns_from_the_pairs_of_the_reward_model(
    tmp_path: Path, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_pairs(tmp_path, model, sft={"max_steps": 2, "max_length": 64})
    (tmp_path / "my.yaml").write_text(dump_config(config))
    assert rlhf(["sft", "--config", "my.yaml", "--run-dir", "run", "--json"]) == 0
    capsys.readouterr()
    assert rlhf(["baseline", "dpo", "--run-dir", "run", "--json"]) == 0
    entry = out(capsys)
    assert entry["directory"].endswith("baselines/dpo")
    assert entry["metrics"]["heldout_accuracy_after"] > 0.8
    lines = metrics(tmp_path / "run", "baselines/dpo")
    assert lines[0]["loss"] == pytest.approx(math.log(2)), "policy and reference begin as one"
    assert lines[-1]["rewards/accuracies"] > 0.8
    made = manifest_of(tmp_path / "run", "baselines/dpo")
    assert made.inputs.keys() == {"data/comparisons", "sft"}
    assert made.metrics["rows_used"] == manifest_of(tmp_path / "run", "data/comparisons").metrics["train"]
    trainer = made.section["reward"]
    assert (trainer["learning_rate"], trainer["max_length"], made.section["dpo"]["beta"]) == (1e-2, 64, 0.1)

    cpu = torch.device("cpu")
    policies = [open_policy(tmp_path / "run" / name, config.model, cpu) for name in ("sft", "baselines/dpo")]
    ids = torch.tensor([[5, 6, 7]])
    before, after = (policy(input_ids=ids).logits for policy in policies)
    assert (before - after).abs().max() > 0.01
    published = tmp_path / "run" / "baselines" / "dpo" / "model"
    if model:
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(published))
    else:
        plain = AutoModelForCausalLM.from_pretrained(published)
    assert torch.equal(plain.eval()(input_ids=ids).logits, after)
    assert not list(published.glob("ref*"))

    assert rlhf(["baseline", "dpo", "--run-dir", "run", "--json"]) == 0
    assert out(capsys)["action"] == "skip"
    assert rlhf(["baseline", "dpo", "--run-dir", "run", "--json", "--set", "baselines.dpo.beta=0.5"]) == 4
    assert "dpo.beta: 0.1 -> 0.5" in out(capsys)["error"]["message"]
    assert rlhf(["status", "--run-dir", "run", "--json"]) == 0
    assert {entry["stage"]: entry["state"] for entry in out(capsys)["stages"]}["baselines/dpo"] == "complete"


def test_the_pairs_are_the_reward_models_to_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL would tokenize the text itself, and rows withheld for the judge must stay with it."""
    from pipelines.reward import dpo

    seen: list[dict[str, Any]] = []

    def stop(trainer: Any, *args: Any) -> None:
        seen.extend(trainer.train_dataset)
        batch = next(iter(trainer.get_train_dataloader()))
        assert batch["input_ids"].shape == batch["completion_mask"].shape
        args = trainer.args
        assert (args.beta, args.learning_rate, args.num_train_epochs, args.max_steps) == (0.25, 1e-4, 3.0, -1)
        assert args.per_device_train_batch_size == 8, "as in reward"
        raise Killed

    monkeypatch.setattr(dpo, "train", stop)
    monkeypatch.setattr(shares, "FEWEST_ROWS", 1)
    monkeypatch.setattr(shares, "FEWEST_PROMPTS", 1)
    monkeypatch.setattr(shares, "ENOUGH_PAIRS", 1)
    dpo_section = {"beta": 0.25, "learning_rate": 1e-4, "num_train_epochs": 3.0}
    sections = {"eval": {"independent_judge": "auto"}, "baselines": {"dpo": dpo_section}}
    config = with_pairs(tmp_path, {}, sft={"enabled": False}, reward=DPO | {"max_steps": 2}, **sections)
    assert config.has_judge
    with pytest.raises(Killed):
        train_dpo(tmp_path / "run", config, SilentReporter())
    encoder = ChatEncoder(open_tokenizer(None, config.model))
    path = tmp_path / "run" / "data" / "comparisons" / "train.jsonl"
    every = list(read_rows(path, Comparison))
    of_reward = list(shares.rows_of(every, "reward", config.data.split_by))
    assert 0 < len(of_reward) < len(every)
    assert [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in seen] == [
        encoder.comparison(row) for row in of_reward
    ]


def train_dpo(root: Path, config: Config, reporter: SilentReporter) -> None:
    run_dir = RunDir(root)
    run_dir.create()
    with run_dir.lock():
        run_chain((*named("data/comparisons", config), *named("baselines/dpo", config)), config, run_dir, reporter)


@pytest.mark.parametrize("model", [{}, LORA, pytest.param(NF4, marks=pytest.mark.slow)], ids=["full", "lora", "nf4"])
def test_dpo_is_killed_and_gone_on_with_to_the_byte(tmp_path: Path, model: dict[str, Any]) -> None:
    config = with_pairs(tmp_path, model, sft={"enabled": False})
    train_dpo(tmp_path / "never", config, SilentReporter())
    with pytest.raises(Killed):
        train_dpo(tmp_path / "run", config, Interrupter(5, kill))
    last = Interrupter()
    train_dpo(tmp_path / "run", config, last)
    assert went_on(last.said) == ["step 4"]
    assert result(tmp_path / "run", "baselines/dpo") == result(tmp_path / "never", "baselines/dpo")


def test_what_dpo_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(dump_config(with_pairs(tmp_path, {}, sft={"enabled": False})))

    def refused(*words: str) -> tuple[int, dict[str, Any]]:
        code = rlhf(["baseline", "dpo", "--config", "my.yaml", "--run-dir", "run", "--json", *words])
        return code, out(capsys)["error"]

    code, error = refused("--set", "reward.enabled=false", "--set", "ppo.reward={kind: length, target: 5}")
    assert (code, error["message"]) == (2, "stage baselines/dpo is switched off by the configuration")
    assert "the pairs of the run's reward model" in error["hint"]
    (tmp_path / "judged.jsonl").write_text(
        "".join(json.dumps({"prompt": f"tell {n}", "completion": "x", "label": n % 2}) + "\n" for n in range(40))
    )
    judged = ("--set", "data.comparisons=[]", "--set", f"data.judgements={tmp_path / 'judged.jsonl'}")
    code, error = refused(*judged, "--set", "reward.objective=pointwise")
    assert (code, error["message"]) == (2, "stage baselines/dpo is switched off by the configuration")
    code, error = refused("--set", "sft.enabled=true")
    assert code == 6, "no SFT model yet"
    assert refused("--set", "baselines.dpo.beta=0")[0] == 2
    code, error = refused("--set", "reward.max_length=8")
    assert code == 3
    assert error["message"].startswith("none of the 44 rows fits 8 tokens")


def test_dpo_without_a_pair_ends_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.reward import dpo

    monkeypatch.setattr(dpo, "open_tokenizer", lambda *args: pytest.fail("it was loaded"))
    for side in ("train", "heldout"):
        (tmp_path / f"{side}.jsonl").touch()
    ctx = StageContext(with_pairs(tmp_path, {}), tmp_path, {"data/comparisons": tmp_path}, SilentReporter())
    with pytest.raises(DataError, match="there is no pair to train a policy by DPO on"):
        dpo.run(ctx)


def test_a_model_that_trl_reads_otherwise_is_refused(tmp_path: Path) -> None:
    """TRL 1.16 leaves out the layer between the trunk and the output layer."""
    save_pair(tiny_decoder("modernbert-decoder"), TOKENIZER, tmp_path / "base")
    with pytest.raises(UsageError, match="other log-probabilities than the model"):
        train_dpo(tmp_path / "run", with_pairs(tmp_path, {}, sft={"enabled": False}), SilentReporter())


def test_best_of_n_is_the_evaluation_with_it(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def policies(*words: str) -> list[str]:
        assert rlhf(["baseline", "bon", "--run-dir", "run", "--json", "--dry-run", *words]) == 0
        assert {entry["stage"] for entry in out(capsys)["plan"]} >= {"eval"}
        assert rlhf(["baseline", "bon", "--run-dir", "run", "--json", *words]) == 0
        assert out(capsys)["stage"] == "eval"
        return list(json.loads((trained / "eval" / "results.json").read_text())["measures"])

    few = (
        "--set",
        "eval.enabled=true",
        "--set",
        "eval.num_prompts=4",
        "--set",
        "eval.bootstrap_samples=100",
        "--set",
        "eval.best_of_n=2",
    )
    assert policies("--set", "eval.policies=[sft, ppo]", *few)[-1] == "bon"
    assert "- bon" in (trained / "config.yaml").read_text(), "a later `rlhf eval` finds it complete"
    assert rlhf(["eval", "--run-dir", "run", "--json"]) == 0
    assert out(capsys)["action"] == "skip"
