"""Scores to unit scale: by the reward model's figures, by the run's own, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.objective import alone
from pipelines.ppo.types import AS_IT_IS, Normalization

STORED = Normalization(3.0, 2.0)


def normalizer(kind: str, stored: Normalization = STORED, **settings: Any) -> Normalizer:
    return Normalizer(PpoSection(reward_normalization=kind, **settings), stored)


def ended(scores: Tensor) -> Tensor:
    return torch.ones(len(scores), dtype=torch.bool)


def ones(scores: Tensor) -> Tensor:
    return torch.ones(len(scores), dtype=torch.long)


def test_model_none_and_clip_by_hand() -> None:
    scores = torch.tensor([3.0, 7.0, 43.0])
    finished = torch.tensor([True, False, True])
    told, clipped = normalizer("model")(scores, finished, ones(scores), alone)
    assert told.tolist() == [0.0, 1.0, 10.0]  # the second is penalized, the third clipped
    assert clipped == pytest.approx(1 / 3)
    told, clipped = normalizer("none")(scores, finished, ones(scores), alone)
    assert told.tolist() == [3.0, 6.0, 10.0]
    assert clipped == pytest.approx(1 / 3)
    told, clipped = normalizer("model", AS_IT_IS, reward_clip=None, missing_eos_penalty=0.0)(
        scores, finished, ones(scores), alone
    )
    assert told.tolist() == scores.tolist()
    assert clipped == 0.0


def test_running_is_by_all_scores_so_far() -> None:
    torch.manual_seed(0)
    running = normalizer("running", reward_clip=None)
    seen = []
    for size in (5, 1, 8):
        scores = torch.randn(size) * 4 + 100
        seen.append(scores)
        told, _ = running(scores, ended(scores), ones(scores), alone)
        whole = torch.cat(seen).double()
        expected = (scores.double() - whole.mean()) / whole.std(correction=0)
        torch.testing.assert_close(told.double(), expected, rtol=0, atol=1e-4)


def test_the_penalty_is_no_part_of_the_running_figures() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    one, two = normalizer("running"), normalizer("running")
    one(scores, ended(scores), ones(scores), alone)
    two(scores, ~ended(scores), ones(scores), alone)
    assert one.state_dict() == two.state_dict()


def test_equal_scores_are_shifted_to_zero() -> None:
    scores = torch.full((4,), 0.1)
    running = normalizer("running")
    for _ in range(3):
        told, clipped = running(scores, ended(scores), ones(scores), alone)
        assert told.abs().max() < 1e-6
        assert clipped == 0.0


def test_before_the_first_batch_the_scores_at_hand_give_the_running_scale() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 6.0])
    running = normalizer("running", missing_eos_penalty=0.5)
    before, state = running.rewards(scores, ended(scores), ones(scores))[0], running.state_dict()
    assert state["count"] == 0
    assert torch.allclose(before, running(scores, ended(scores), ones(scores), alone)[0])
    unseen = torch.tensor([100.0])
    assert running.rewards(unseen, ~ended(unseen), ones(unseen))[0].item() == 10.0 - 0.5  # clipped, then penalized


def test_a_penalty_grows_with_the_length() -> None:
    lengths = torch.tensor([1, 10, 15, 20])
    scores = torch.full((4,), 3.0)
    long = normalizer("model", response_length=20, length_penalty=2.0)
    assert long.rewards(scores, ended(scores), lengths)[0].tolist() == [0.0, 0.0, -1.0, -2.0]
    late = normalizer("model", response_length=20, length_penalty=2.0, length_penalty_start=18)
    assert late(scores, ~ended(scores), lengths, alone)[0].tolist() == [-1.0, -1.0, -1.0, -3.0]
    with pytest.raises(ValueError, match="length_penalty_start"):
        PpoSection(response_length=20, length_penalty=1.0, length_penalty_start=20)


def test_an_outside_source_is_normalized_and_the_runs_reward_model_has_its_own_scale() -> None:
    part = {"kind": "length", "target": 9}
    for reward, expected in (
        ({"kind": "run"}, "model"),
        ({"kind": "sum", "parts": [{"kind": "run"}, part]}, "model"),
        ({"kind": "sum", "parts": [part]}, "running"),
        ({"kind": "function", "function": "a:b"}, "running"),
    ):
        section = PpoSection.model_validate({"reward": reward})
        assert section.normalization == expected
        assert PpoSection.model_validate({"reward": reward, "reward_normalization": "none"}).normalization == "none"
        explicit = PpoSection.model_validate({"reward": reward, "reward_normalization": expected})
        assert explicit.results_view() == section.results_view()


def test_running_goes_on_from_its_state() -> None:
    first, second = torch.tensor([1.0, 5.0]), torch.tensor([2.0, 9.0])
    one, two = normalizer("running"), normalizer("running")
    one(first, ended(first), ones(first), alone)
    two.load_state_dict(one.state_dict())
    assert torch.equal(
        one(second, ended(second), ones(second), alone)[0], two(second, ended(second), ones(second), alone)[0]
    )
    fresh = normalizer("running")
    assert not torch.equal(
        one(second, ended(second), ones(second), alone)[0], fresh(second, ended(second), ones(second), alone)[0]
    )


def test_running_and_the_clipped_share_are_over_all_processes() -> None:
    """Two processes that hold the same rows see what one sees that holds them twice."""
    scores = torch.tensor([1.0, 2.0, 100.0])
    both = normalizer("running", reward_clip=1.0)
    shared, clipped = both(scores, ended(scores), ones(scores), lambda total: total * 2)
    twice = torch.cat([scores, scores])
    single = normalizer("running", reward_clip=1.0)
    told, share = single(twice, ended(twice), ones(twice), alone)
    assert both.state_dict() == pytest.approx(single.state_dict())
    assert torch.allclose(shared, told[:3])
    assert clipped == share > 0


def test_the_clipped_share_counts_what_other_processes_clipped() -> None:
    scores = torch.tensor([3.0, 7.0, 43.0])
    others = torch.tensor([2, 5])  # clipped, rows
    _, clipped = normalizer("model")(scores, ended(scores), ones(scores), lambda total: total + others)
    assert clipped == pytest.approx(3 / 8)
