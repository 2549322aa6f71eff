"""Who draws what where several processes train together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.metrics import Counts
from pipelines.ppo.objective import alone
from pipelines.ppo.rollout import PpoContext
from pipelines.ppo.schedules import PromptStream
from pipelines.ppo.train import Training


def test_every_process_and_every_update_draws_from_a_seed_of_its_own() -> None:
    anything: Any = None
    seeds = set()
    for rank in range(3):
        accelerator: Any = SimpleNamespace(process_index=rank)
        context = PpoContext(*(anything,) * 5, settings=PpoSection(), accelerator=accelerator, seed=5)
        training = Training(context, [], [], reporter=anything, log=anything)
        seeds |= {training._rollout_seed(update) for update in range(1, 50)}
    assert len(seeds) == 3 * 49


def test_processes_share_out_what_one_would_draw() -> None:
    rows: list[Any] = list(range(10))
    one = PromptStream(rows, seed=3)
    three = [PromptStream(rows, seed=3, rank=rank, world=3) for rank in range(3)]
    for _ in range(4):
        assert one.take(6) == [row for stream in three for row in stream.take(2)]


def test_a_stream_goes_on_where_it_was() -> None:
    rows: list[Any] = list(range(10))
    stream, later = PromptStream(rows, seed=3), PromptStream(rows, seed=3)
    stream.take(13)
    later.load_state_dict(stream.state_dict())
    assert later.take(9) == stream.take(9)


def test_counts_go_on_and_are_those_of_all_processes() -> None:
    def twice(total: torch.Tensor) -> torch.Tensor:
        return 2 * total

    first, second = Counts(), Counts()
    assert first.over_all({"reward/requests": 3, "scores/a": 2.0, "time/reward": 1.0}, twice, 2) == {
        "reward/requests": 6.0,
        "scores/a": 2.0,
        "time/reward": 1.0,
    }
    second.load_state_dict(first.state_dict())
    assert second.over_all({"reward/requests": 1}, alone, 1) == {"reward/requests": 7.0}
    assert second.over_all({"reward/requests": 4}, alone, 1) == {"reward/requests": 10.0}
