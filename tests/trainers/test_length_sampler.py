"""Rows of similar length are trained on together, in an order that a resumed training finds again."""

from __future__ import annotations

import contextlib
import random
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.run.disk import write_atomic
from pipelines.trainers import checkpoint_callback, training
from pipelines.trainers.length_sampler import LengthSampler
from tests.models.helpers import outside_base
from tests.trainers.test_trainer_resume import LORA, Interrupter, Killed, go, kill, settings

SIZE = 8


def batches(sampler: LengthSampler, size: int = SIZE) -> list[list[int]]:
    rows = list(sampler)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def pads(order: list[list[int]], lengths: list[int]) -> int:
    return sum(max(lengths[row] for row in batch) - lengths[row] for batch in order for row in batch)


@pytest.mark.parametrize("number", [1, 7, 24, 45, 1003])
def test_every_row_is_drawn_once_an_epoch(number: int) -> None:
    sampler = LengthSampler([random.Random(row).randrange(9) for row in range(number)], SIZE, seed=0)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(number)) == list(range(len(sampler)))
    assert number == 1 or orders[0] != orders[1] != orders[2]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = list(range(100))
    sampler = LengthSampler(lengths, SIZE, seed=3)
    sampler.set_epoch(1)
    later = list(sampler)
    again = LengthSampler(lengths, SIZE, seed=3)
    assert list(again) != later
    again.set_epoch(1)
    assert list(again) == later
    other = LengthSampler(lengths, SIZE, seed=4)
    other.set_epoch(1)
    assert list(other) != later


def test_batches_hold_rows_of_similar_length_and_are_not_sorted_themselves() -> None:
    numbers = random.Random(0)
    lengths = [numbers.randrange(5, 200) for _ in range(1603)]
    order = batches(LengthSampler(lengths, SIZE, seed=0))
    rows = list(range(len(lengths)))
    numbers.shuffle(rows)
    at_random = [rows[start : start + SIZE] for start in range(0, len(rows), SIZE)]
    assert pads(order, lengths) < pads(at_random, lengths) / 10
    assert len(order[-1]) == 3
    longest = [max(lengths[row] for row in batch) for batch in order[:-1]]
    rises = sum(first < later for first, later in pairwise(longest))
    assert 0.4 < rises / len(longest) < 0.6


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths that each sampler of a training was made of."""
    lengths: list[list[int]] = []

    class Watched(LengthSampler):
        def __init__(self, rows: list[int], batch_size: int, seed: int) -> None:
            lengths.append(rows)
            super().__init__(rows, batch_size, seed)

    monkeypatch.setattr(training, "LengthSampler", Watched)
    return lengths


def test_sft_and_reward_model_draw_by_length_unless_told_otherwise(tmp_path: Path, drawn: list[list[int]]) -> None:
    base = outside_base(tmp_path)
    config = settings(tmp_path, base, "reward", LORA, max_steps=1)
    go(tmp_path / "run", config, "reward")
    assert len(drawn) == 2
    assert all(len(set(lengths)) > 1 for lengths in drawn)
    plain: Config = settings(tmp_path, base, "sft", LORA, trainer={"train_sampling_strategy": "random"})
    go(tmp_path / "plain", plain, "sft")
    packed: Config = settings(tmp_path, base, "sft", LORA, packing=True)
    go(tmp_path / "packed", packed, "sft")
    assert len(drawn) == 2


def test_a_training_that_an_older_version_began_keeps_its_order(
    tmp_path: Path, drawn: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, outside_base(tmp_path), "sft", LORA, save_steps=2)

    def older(path: Path, text: str) -> None:
        write_atomic(path, text.replace(', "by_length": false', ""))

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(checkpoint_callback.CheckpointCallback, "by_length", False)
        patch.setattr(checkpoint_callback, "write_atomic", older)
        go(tmp_path / "run", config, "sft", Interrupter(5, kill))
    assert "by_length" not in next((tmp_path / "run").rglob("checkpoint-4/sums.json")).read_text()
    go(tmp_path / "run", config, "sft")
    assert drawn == []
