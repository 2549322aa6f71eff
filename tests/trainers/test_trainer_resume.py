"""SFT and reward model: interrupted, gone on with, and in the end the same to the last byte."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.chain.chain import Outcome, run_chain, status_of
from pipelines.chain.table import select
from pipelines.config import Config
from pipelines.errors import ConflictError, TrainingError
from pipelines.run.directory import RunDir
from pipelines.run.manifest import Manifest
from pipelines.run.reporting import SilentReporter
from tests.models.helpers import comparisons, config_for, outside_base
from tests.reward.test_own_base import base_of_its_own
from tests.run.test_signals import Stopped, raise_stopped

NF4 = {"use_peft": True, "lora_r": 4, "load_in_4bit": True, "allow_cpu_4bit": True}
LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.1}
STEPS = {"num_train_epochs": 2.0, "logging_steps": 5, "save_steps": 100}
"""Six steps an epoch; a figure is logged every five, so that hardly a checkpoint falls on a logged step."""


TIMES = ("seconds", "tokens_per_second")


class Interrupter(SilentReporter):
    """Does `act` when the n-th step of a training is done in this process, before that step is saved."""

    def __init__(self, step: int = 0, act: Callable[[], None] | None = None) -> None:
        self.step, self.act = step, act
        self.said: list[str] = []

    @contextlib.contextmanager
    def task(self, label: str, total: int, done: int = 0) -> Iterator[Interrupter]:
        self.done, self.bar = 0, (done, total)
        self.counts = label in ("SFT", "reward model", "ppo", "dpo", "rloo", "grpo")
        yield self

    def advance(self, steps: int = 1, **fields: float) -> None:
        self.done += steps
        if self.counts and self.act is not None and self.done == self.step:
            self.act()

    def info(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


class Killed(BaseException):
    """The process is gone: nothing may tidy up after it."""


def kill() -> None:
    raise Killed


def settings(folder: Path, base: Path, stage: str, model: dict[str, Any], /, **section: Any) -> Config:
    rows = folder / "comparisons.jsonl"
    if not rows.exists():
        rows.write_text("".join(json.dumps(row) + "\n" for row in comparisons(60)))
    sections: dict[str, Any] = {"sft": {"max_steps": 2}, stage: STEPS | section}
    return config_for(base, model=model, data={"comparisons": str(rows), "eval_fraction": 0.2}, **sections)


def go(root: Path, config: Config, last: str, reporter: SilentReporter | None = None, **kwargs: Any) -> list[Outcome]:
    run_dir = RunDir(root)
    run_dir.create()
    with run_dir.lock():
        return run_chain(select(None, last, config), config, run_dir, reporter or SilentReporter(), **kwargs)


def result(root: Path, stage: str) -> dict[str, Any]:
    """All that a stage published, but for times."""
    directory = root / stage
    files = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    manifest = Manifest.read(directory)
    assert manifest is not None
    del files["manifest.json"]

    def but_times(values: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in values.items() if k not in TIMES and not k.startswith("time/")}

    return {
        "files": files,
        "lines": [but_times(json.loads(line)) for line in files.pop("metrics.jsonl").splitlines()],
        "metrics": but_times(manifest.metrics),
    }


def compare(folder: Path, config: Config, stage: str, save_steps: int, kills: list[int]) -> list[list[str]]:
    """Run `stage` once to its end and once killed at `kills`; what was said in each part of the second."""
    first, second = folder / "never", folder / "killed"
    if stage == "reward" and config.sft.enabled:
        go(first, config, "sft")
        shutil.copytree(first, second)
    go(first, config, stage)
    often = config.model_copy(
        update={stage: getattr(config, stage).model_copy(update={"save_steps": save_steps})}, deep=True
    )
    said = []
    for step in kills:
        reporter = Interrupter(step, kill)
        with pytest.raises(Killed):
            go(second, often, stage, reporter)
        said.append(reporter.said)
    reporter = Interrupter()
    go(second, often, stage, reporter)
    a, b = result(first, stage), result(second, stage)
    assert a["lines"] == b["lines"]
    assert a["metrics"] == b["metrics"]
    assert a["files"].keys() == b["files"].keys()
    assert [name for name in a["files"] if a["files"][name] != b["files"][name]] == []
    assert sorted(path.name for path in second.iterdir() if path.name.endswith(".partial")) == []
    return [*said, reporter.said]


def went_on(said: list[str]) -> list[str]:
    return [line.partition("goes on from ")[2] for line in said if "goes on from" in line]


@pytest.mark.parametrize(
    ("kind", "model", "section"),
    [
        ("gpt2", {}, {}),  # dropout, tied embeddings, absolute positions
        ("llama", LORA, {"gradient_accumulation_steps": 2, "num_train_epochs": 4.0}),
        pytest.param("llama", NF4, {}, marks=pytest.mark.slow),
        pytest.param(
            "llama",
            LORA | {"dtype": "bfloat16"},
            {"packing": True, "num_train_epochs": 12.0, "max_steps": 12},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["full", "lora", "nf4", "packed bf16"],
)
def test_sft_is_the_same_to_the_byte(tmp_path: Path, kind: str, model: dict[str, Any], section: dict[str, Any]) -> None:
    """Killed before the first checkpoint, in the middle of an epoch, while a checkpoint is begun, and again."""
    config = settings(tmp_path, outside_base(tmp_path / "base", kind), "sft", model, **section)
    said = compare(tmp_path, config, "sft", save_steps=4, kills=[3, 7, 4, 3])
    assert [went_on(part) for part in said] == [[], [], ["step 4"], ["step 4"], ["step 4"]]
    assert any("checkpoint-8 is left out" in line for line in said[3])


def test_at_the_end_of_an_epoch_and_where_steps_end_the_training(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base")
    for name, section in {"epochs": {}, "steps": {"max_steps": 10}}.items():
        folder = tmp_path / name
        folder.mkdir()
        config = settings(folder, base, "sft", {}, **section)
        said = compare(folder, config, "sft", save_steps=2, kills=[8, 3])
        assert [went_on(part) for part in said] == [[], ["step 6"], ["step 8"]]


def test_a_training_that_was_over_is_only_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer alone would do an eleventh step, because the tenth is not at the end of an epoch."""
    from pipelines.sft import stage as sft

    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", LORA, max_steps=10)
    go(tmp_path / "never", config, "sft")
    with monkeypatch.context() as patch:
        patch.setattr(sft, "publish_model", lambda *args, **kwargs: kill())
        with pytest.raises(Killed):
            go(tmp_path / "killed", config, "sft")
    reporter = Interrupter(1, lambda: pytest.fail("it trained"))
    go(tmp_path / "killed", config, "sft", reporter)
    assert went_on(reporter.said) == ["step 10"]
    assert result(tmp_path / "never", "sft") == result(tmp_path / "killed", "sft")


@pytest.mark.parametrize("kind", [pytest.param("full", marks=pytest.mark.slow), "lora", "own base"])
def test_the_reward_model_is_the_same_to_the_byte(tmp_path: Path, kind: str) -> None:
    section: dict[str, Any] = {}
    if kind == "own base":
        section["base"] = str(base_of_its_own(tmp_path / "own", "bert"))
    base = outside_base(tmp_path / "base", "gpt2")
    config = settings(tmp_path, base, "reward", {} if kind == "full" else LORA, **section)
    said = compare(tmp_path, config, "reward", save_steps=4, kills=[7, 3])
    assert [went_on(part) for part in said] == [[], ["step 4"], ["step 4"]]


@pytest.fixture
def own_handlers() -> Iterator[None]:
    before = {number: signal.signal(number, raise_stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_handlers")
def test_a_signal_lets_the_step_end_and_saves_it(tmp_path: Path) -> None:
    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", LORA)
    go(tmp_path / "never", config, "sft")
    for number in (signal.SIGTERM, signal.SIGINT):
        reporter = Interrupter(3, lambda number=number: os.kill(os.getpid(), number))  # type: ignore[misc]
        with pytest.raises(Stopped, match=number.name):
            go(tmp_path / "stopped", config, "sft", reporter)
        assert any(number.name in line for line in reporter.said)
    status = {entry["stage"]: entry for entry in status_of(config, RunDir(tmp_path / "stopped"))}
    assert status["sft"]["state"] == "partial"
    assert status["sft"]["reason"] == "was interrupted; resumes at step 8"
    go(tmp_path / "stopped", config, "sft")
    assert result(tmp_path / "never", "sft") == result(tmp_path / "stopped", "sft")


@pytest.mark.usefixtures("own_handlers")
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", LORA)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        go(tmp_path / "run", config, "sft", Interrupter(3, twice))
    assert not list((tmp_path / "run" / "sft.partial" / "checkpoints").glob("checkpoint-*"))


def interrupted(tmp_path: Path, **section: Any) -> tuple[Config, Path]:
    """An SFT that was killed after step 7, with checkpoints of steps 3 and 6."""
    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", LORA, save_steps=3, **section)
    with pytest.raises(Killed):
        go(tmp_path / "run", config, "sft", Interrupter(7, kill))
    return config, tmp_path / "run"


def test_other_settings_are_refused_and_force_starts_again(tmp_path: Path) -> None:
    config, root = interrupted(tmp_path)
    other = config.model_copy(update={"sft": config.sft.model_copy(update={"learning_rate": 1e-3})})
    with pytest.raises(ConflictError, match=r"interrupted after step 6(.|\n)*sft\.learning_rate: 0\.005 -> 0\.001"):
        go(root, other, "sft")
    cosmetic = config.model_copy(update={"sft": config.sft.model_copy(update={"save_steps": 5, "logging_steps": 2})})
    reporter = Interrupter(2, kill)
    with pytest.raises(Killed):
        go(root, cosmetic, "sft", reporter)
    assert went_on(reporter.said) == ["step 6"]
    lines = [json.loads(line) for line in (root / "sft.partial" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 5], "step 8 would be logged after it"
    reporter = Interrupter()
    go(root, other, "sft", reporter, force=["sft"])
    assert went_on(reporter.said) == []
    assert [json.loads(line)["step"] for line in (root / "sft/metrics.jsonl").read_text().splitlines()] == [1, 5, 10]


def test_altered_checkpoints_are_named_and_left_out(tmp_path: Path) -> None:
    config, root = interrupted(tmp_path)
    checkpoints = root / "sft.partial" / "checkpoints"
    assert not list(checkpoints.rglob("training_args.bin"))
    data = bytearray((checkpoints / "checkpoint-6" / "optimizer.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (checkpoints / "checkpoint-6" / "optimizer.pt").write_bytes(data)
    shutil.copytree(root, tmp_path / "copy")
    reporter = Interrupter()
    go(root, config, "sft", reporter)
    assert went_on(reporter.said) == ["step 3"]
    assert any("checkpoint-6 is left out: optimizer.pt was altered" in line for line in reporter.said)

    other = tmp_path / "copy" / "sft.partial" / "checkpoints" / "checkpoint-3"
    (other / "rng_state.pth").unlink()
    reporter = Interrupter()
    go(tmp_path / "copy", config, "sft", reporter)
    assert went_on(reporter.said) == []
    assert result(root, "sft") == result(tmp_path / "copy", "sft")


def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient breaks at step 6, which would be saved: no step is taken along it, and step 3 stands."""
    from trl import SFTTrainer

    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", LORA, save_steps=3)
    go(tmp_path / "never", config, "sft")
    original = SFTTrainer.training_step
    weights: list[torch.Tensor] = []

    def breaks(self: Any, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
        loss: torch.Tensor = original(self, model, inputs, *rest)
        if self.state.global_step == 5:
            trained = next(value for value in model.parameters() if value.requires_grad)
            weights[:] = [trained, trained.detach().clone()]
            trained.grad[0, 0] = torch.nan
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(SFTTrainer, "training_step", breaks)
        with pytest.raises(TrainingError, match=r"grad_norm is nan at step 6") as caught:
            go(tmp_path / "run", config, "sft")
    assert caught.value.exit_code == 7
    assert torch.equal(weights[0], weights[1]), "a step was taken"
    saved = tmp_path / "run" / "sft.partial" / "checkpoints"
    assert [path.name for path in saved.glob("checkpoint-*")] == ["checkpoint-3"]
    go(tmp_path / "run", config, "sft")
    assert result(tmp_path / "never", "sft") == result(tmp_path / "run", "sft")


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients were finite, the step was not: noticed where the result would be saved."""
    from pipelines.trainers.checkpoint_callback import CheckpointCallback

    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", LORA, save_steps=3)

    def breaks(self: Any, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            with torch.no_grad():
                next(value for value in model.parameters() if value.requires_grad)[0, 0] = torch.inf

    monkeypatch.setattr(CheckpointCallback, "on_optimizer_step", breaks)
    with pytest.raises(TrainingError, match="weights is inf at step 6"):
        go(tmp_path / "run", config, "sft")
    saved = tmp_path / "run" / "sft.partial" / "checkpoints"
    assert [path.name for path in saved.glob("checkpoint-*")] == ["checkpoint-3"]


def test_optimizer_state_stays_fp32(tmp_path: Path) -> None:
    """TRL casts what is trained on a quantized base; after a resume too it must be fp32, moments included."""
    from transformers import Trainer

    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", NF4 | {"dtype": "bfloat16"}, save_steps=3)
    with pytest.raises(Killed):
        go(tmp_path / "run", config, "sft", Interrupter(4, kill))
    seen: list[set[torch.dtype]] = []
    original = Trainer._finalize_training

    def spy(self: Any, *rest: Any) -> Any:
        moments = {value.dtype for state in self.optimizer.state.values() for value in state.values()}
        seen.append(moments | {value.dtype for value in self.model.parameters() if value.requires_grad})
        return original(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_finalize_training", spy)
        reporter = Interrupter()
        go(tmp_path / "run", config, "sft", reporter)
    assert went_on(reporter.said) == ["step 3"]
    assert seen == [{torch.float32}]


def test_the_progress_of_a_resumed_training_counts_its_earlier_steps(tmp_path: Path) -> None:
    config, root = interrupted(tmp_path)
    reporter = Interrupter()
    go(root, config, "sft", reporter)
    assert reporter.bar == (6, 14)


@pytest.mark.parametrize(("asked", "steps"), [(None, list(range(1, 15))), (5, [1, 5, 10])])
def test_a_short_training_logs_more_than_one_loss(tmp_path: Path, asked: int | None, steps: list[int]) -> None:
    config = settings(tmp_path, outside_base(tmp_path / "base"), "sft", LORA)
    sft = config.sft.model_copy(update={"logging_steps": asked})
    go(tmp_path / "run", config.model_copy(update={"sft": sft}), "sft")
    lines = (tmp_path / "run" / "sft" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == steps
