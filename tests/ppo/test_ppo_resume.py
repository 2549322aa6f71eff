"""PPO: killed at any moment, gone on with, and in the end the same to the last byte."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.errors import TrainingError, UsageError
from pipelines.ppo import checkpoint, heldout, learner, rollout, stage
from pipelines.ppo.rollout import Scored, TextReward
from pipelines.run.checkpoints import Checkpoints
from pipelines.run.manifest import Manifest
from tests.models.helpers import comparisons, config_for, outside_base
from tests.trainers.test_trainer_resume import NF4, Interrupter, Killed, go, kill, result, went_on

LORA = {"use_peft": True, "lora_r": 4}
PPO = {
    "total_episodes": 48,
    "rollout_batch_size": 8,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "per_device_train_batch_size": 2,
    "max_prompt_length": 32,
    "response_length": 6,
    "learning_rate": 1e-2,
    "value_learning_rate": 1e-2,
    "num_eval_prompts": 4,
    "eval_steps": 2,
    "save_steps": 100,
    "kl_target": 0.5,
    "kl_horizon": 64,
    "reward": {"kind": "length", "target": 4},
    "reward_normalization": "running",
}
"""Six updates; everything that remembers is switched on."""
KINDS = {"full": {}, "lora": LORA, "nf4": NF4, "rloo": {}, "grpo": LORA}
STOPS = list("abcdefghijklmnopqrstuvwxyz")
ESTIMATED = {
    name: {"advantage_estimator": name, "num_generations": 4, "stop_tokens": STOPS, "response_length": 12}
    for name in ("rloo", "grpo")
}
"""Settings of the kinds that have no value model; responses of several lengths, or no reward would differ."""


def settings(folder: Path, model: dict[str, Any], **ppo: Any) -> Config:
    rows, base = folder / "comparisons.jsonl", folder / "base"
    if not rows.exists():
        rows.write_text("".join(json.dumps(row) + "\n" for row in comparisons(40)))
        outside_base(base)
    return config_for(
        base,
        model=model,
        data={"comparisons": str(rows), "eval_fraction": 0.2},
        sft={"enabled": False},
        reward={"enabled": False},
        ppo=PPO | ppo,
        eval={"enabled": False},
    )


@pytest.fixture(scope="session")
def never_interrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a run that was never interrupted, of each kind; nobody changes it."""

    @functools.cache
    def folder_of(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        go(folder / "never", settings(folder, KINDS[kind], **ESTIMATED.get(kind, {})), "ppo")
        return folder

    return folder_of


@pytest.fixture
def never(request: pytest.FixtureRequest, never_interrupted: Callable[[str], Path]) -> tuple[Path, str]:
    return never_interrupted(request.param), request.param


def killed_then_finished(
    never: tuple[Path, str], root: Path, interrupt: Callable[[pytest.MonkeyPatch], Interrupter], **ppo: Any
) -> Interrupter:
    """Kill a run that saves often, finish it with the same command, and compare."""
    folder, kind = never
    often = settings(folder, KINDS[kind], **{"save_steps": 2, **ESTIMATED.get(kind, {}), **ppo})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        go(root, often, "ppo", interrupt(patch))
    last = Interrupter()
    go(root, often, "ppo", last)
    assert result(root, "ppo") == result(folder / "never", "ppo")
    assert not (root / "ppo" / "checkpoints").exists()
    return last


def after_update(number: int) -> Callable[[pytest.MonkeyPatch], Interrupter]:
    return lambda patch: Interrupter(number, kill)


def at_call(owner: Any, name: str, number: int) -> Callable[[pytest.MonkeyPatch], Interrupter]:
    """Killed right before the n-th call of a function."""

    def interrupt(patch: pytest.MonkeyPatch) -> Interrupter:
        left, function = [number], getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return function(*args, **kwargs)

        patch.setattr(owner, name, counting)
        return Interrupter()

    return interrupt


POINTS = {
    "before the first save": (after_update(1), []),
    "between updates": (after_update(3), ["update 2"]),
    "inside a rollout": (at_call(rollout, "token_rewards", 4), ["update 2"]),
    "between optimizer steps": (at_call(learner, "policy_loss", 30), ["update 2"]),
    "in an evaluation": (at_call(heldout, "k1", 3), ["update 2"]),
    "in the middle of a save": (at_call(checkpoint, "trained_parameters", 2), ["update 2"]),
    "before the marker": (at_call(Checkpoints, "complete", 2), ["update 2"]),
    "after the last update": (after_update(6), ["update 6"]),
}


ALWAYS = ("in the middle of a save", "inside a rollout")
CASES = [
    pytest.param(kind, point, marks=() if kind == "lora" or point in ALWAYS else pytest.mark.slow)
    for kind in KINDS
    for point in POINTS
]


@pytest.mark.parametrize(("never", "point"), CASES, indirect=["never"])
def test_the_same_to_the_byte(never: tuple[Path, str], tmp_path: Path, point: str) -> None:
    interrupt, expected = POINTS[point]
    said = killed_then_finished(never, tmp_path / "run", interrupt).said
    assert went_on(said) == expected


@pytest.mark.parametrize("never", KINDS, indirect=True)
def test_killed_again_and_again(never: tuple[Path, str], tmp_path: Path) -> None:
    """Every part makes one update and is killed in the next."""
    folder, kind = never
    often = settings(folder, KINDS[kind], save_steps=1, **ESTIMATED.get(kind, {}))
    for _ in range(5):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            go(tmp_path / "run", often, "ppo", at_call(rollout, "token_rewards", 2)(patch))
    go(tmp_path / "run", often, "ppo")
    assert result(tmp_path / "run", "ppo") == result(folder / "never", "ppo")


@pytest.fixture(scope="module")
def killed_after_five(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A LoRA run killed after update 5 with checkpoints at 2 and 4."""
    folder = tmp_path_factory.mktemp("killed")
    config = settings(folder, LORA, save_steps=2)
    with pytest.raises(Killed):
        go(folder / "run", config, "ppo", Interrupter(5, kill))
    return folder / "run", config


@pytest.fixture
def interrupted(killed_after_five: tuple[Path, Config], tmp_path: Path) -> tuple[Path, Config]:
    """A copy of it."""
    shutil.copytree(killed_after_five[0], tmp_path / "run")
    return tmp_path / "run", killed_after_five[1]


@pytest.mark.parametrize("name", ["trained.safetensors", "state.pt", "random-0.pt"])
@pytest.mark.parametrize("how", ["missing", "altered"])
def test_a_broken_checkpoint_is_named_and_the_older_one_used(
    interrupted: tuple[Path, Config], name: str, how: str
) -> None:
    root, config = interrupted
    path = root / "ppo.partial" / "checkpoints" / "checkpoint-4" / name
    if how == "missing":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    last = Interrupter(1, kill)
    with pytest.raises(Killed):
        go(root, config, "ppo", last)
    assert went_on(last.said) == ["update 2"]
    assert any("checkpoint-4 is left out" in line and name in line and "step 2 is used" in line for line in last.said)


def test_another_number_of_processes_is_refused(
    interrupted: tuple[Path, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, config = interrupted
    load = checkpoint.torch.load

    def of_two(path: Path, **kwargs: Any) -> Any:
        state = load(path, **kwargs)
        return state | {"processes": 2} if path.name == "state.pt" else state

    monkeypatch.setattr(checkpoint.torch, "load", of_two)
    with pytest.raises(UsageError, match="made by 2 processes, and 1 run now"):
        go(root, config, "ppo")


def test_a_number_that_is_not_finite_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, LORA, save_steps=2)
    with monkeypatch.context() as patch:
        seen = [0]
        original = rollout.token_rewards

        def broken(*args: Any) -> Any:
            seen[0] += 1
            return original(*args) * (float("nan") if seen[0] == 4 else 1.0)

        patch.setattr(rollout, "token_rewards", broken)
        with pytest.raises(TrainingError, match="not finite"):
            go(tmp_path / "run", config, "ppo")
    last = Interrupter()
    go(tmp_path / "run", config, "ppo", last)
    assert went_on(last.said) == ["update 2"]
    go(tmp_path / "never", config, "ppo")
    assert result(tmp_path / "run", "ppo") == result(tmp_path / "never", "ppo")


def test_checkpoints_kept_are_those_asked_for(tmp_path: Path) -> None:
    config = settings(tmp_path, LORA, save_steps=1, save_total_limit=3)
    with pytest.raises(Killed):
        go(tmp_path / "run", config, "ppo", Interrupter(5, kill))
    kept = (tmp_path / "run" / "ppo.partial" / "checkpoints").glob("checkpoint-*")
    assert sorted(path.name for path in kept) == ["checkpoint-3", "checkpoint-4", "checkpoint-5"]


def test_the_best_policy_is_published_where_asked(tmp_path: Path) -> None:
    """Length is paid with a huge learning rate: the held-out score differs from evaluation to evaluation."""
    last, best = (settings(tmp_path, LORA, load_best_model_at_end=on, learning_rate=0.3) for on in (False, True))
    go(tmp_path / "last", last, "ppo")
    go(tmp_path / "best", best, "ppo")
    notes = {name: Manifest.read(tmp_path / name / "ppo").notes for name in ("last", "best")}  # type: ignore[union-attr]
    chosen = notes["best"]["best"]["update"]
    lines = [json.loads(line) for line in (tmp_path / "last/ppo/heldout.jsonl").read_text().splitlines()]
    scores = {line["update"]: line["eval/score"] for line in lines if line["eval/kl"] <= best.ppo.kl_limit}
    assert scores[chosen] == max(scores.values())
    assert notes["last"]["published_update"] == 6
    assert notes["best"]["published_update"] == chosen != 6, scores
    weights = "adapter_model.safetensors"
    published = (tmp_path / "best/ppo/model" / weights).read_bytes()
    assert published == (tmp_path / "last/ppo/best" / weights).read_bytes()
    assert published != (tmp_path / "last/ppo/model" / weights).read_bytes()


def test_with_the_runs_own_reward_model(tmp_path: Path) -> None:
    """Four adapters over one base, fixed normalization, several responses a prompt."""
    config = settings(tmp_path, LORA).model_dump()
    config["ppo"] |= {"reward": {"kind": "run"}, "reward_normalization": "model", "num_generations": 2}
    config["reward"] |= {"enabled": True, "max_steps": 2}
    config["sft"] |= {"enabled": True, "max_steps": 2}
    whole = Config.model_validate(config)
    go(tmp_path / "never", whole, "ppo")
    shutil.copytree(tmp_path / "never", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "ppo")
    config["ppo"] |= {"save_steps": 2}
    often = Config.model_validate(config)
    with pytest.raises(Killed):
        go(tmp_path / "run", often, "ppo", Interrupter(3, kill))
    go(tmp_path / "run", often, "ppo")
    assert result(tmp_path / "run", "ppo") == result(tmp_path / "never", "ppo")


def test_a_policy_that_diverged_is_not_saved(tmp_path: Path) -> None:
    """With one optimizer step an update nothing else sees it before the next rollout."""
    one_step = {"num_ppo_epochs": 1, "num_mini_batches": 1, "save_steps": 1, "eval_steps": 100, "kl_target": None}
    config = settings(tmp_path, {}, **one_step, learning_rate=1e25)
    with pytest.raises(TrainingError, match="not finite"):
        go(tmp_path / "run", config, "ppo")
    assert list((tmp_path / "run/ppo.partial").glob("checkpoints/checkpoint-*")) == []


def test_what_the_reward_source_counted_goes_on(tmp_path: Path) -> None:
    """A source that counts, made anew after the kill."""

    class Counting(TextReward):
        asked = 0

        def __call__(self, *args: Any) -> Any:
            Counting.asked += 1
            scored = super().__call__(*args)
            return Scored(scored.scores, {"reward/requests": float(Counting.asked)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "TextReward", Counting)
        config = settings(tmp_path, LORA, save_steps=2, num_eval_prompts=0)
        go(tmp_path / "never", config, "ppo")
        Counting.asked = 0
        with pytest.raises(Killed):
            go(tmp_path / "run", config, "ppo", Interrupter(3, kill))
        Counting.asked = 0
        go(tmp_path / "run", config, "ppo")
    assert result(tmp_path / "run", "ppo") == result(tmp_path / "never", "ppo")


def test_a_training_that_stops_early_has_the_policy_of_the_whole_one(
    tmp_path: Path, never_interrupted: Callable[[str], Path]
) -> None:
    shutil.copytree(never_interrupted("full"), tmp_path, dirs_exist_ok=True)
    go(tmp_path / "early", settings(tmp_path, {}, last_update=4), "ppo")
    whole, early = (answers_after(tmp_path / name, 4) for name in ("never", "early"))
    assert early == whole
    assert answers_after(tmp_path / "never", 6)
    assert not answers_after(tmp_path / "early", 6)
    manifest = Manifest.read(tmp_path / "early" / "ppo")
    assert manifest is not None
    assert manifest.notes["published_update"] == 4


def answers_after(run: Path, update: int) -> list[dict[str, Any]]:
    lines = (run / "ppo" / "heldout_answers.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["update"] == update]
