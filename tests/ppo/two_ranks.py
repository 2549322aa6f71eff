"""What each of two processes does in test_two_ranks.py: one update with its half of a rollout.

Started by torchrun: ``python -m tests.ppo.two_ranks FOLDER KIND``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.learner import over_processes
from pipelines.ppo.metrics import update_metrics
from pipelines.ppo.rollout import Timing
from pipelines.ppo.types import Rollout
from tests.ppo.cast import Kind
from tests.ppo.cast import cast as roles_of
from tests.ppo.cast import learner as learner_of
from tests.tiny import tiny_gpt2, tiny_tokenizer

SETTINGS = PpoSection(
    rollout_batch_size=8,
    num_mini_batches=1,
    num_ppo_epochs=3,
    per_device_train_batch_size=2,
    learning_rate=1e-2,
    value_learning_rate=1e-2,
    adam_eps=1e-3,  # at 1e-5 a gradient near 0 makes a step of 1e-5 out of rounding, which is what the test allows
)


def one_update(rollout: Rollout, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Parameters after one update with these rows, and its metrics; of all processes that take part."""
    roles = roles_of(tiny_gpt2(tiny_tokenizer()), cast(Kind, kind), valued=rollout.values is not None)
    accelerator = Accelerator(cpu=True)
    alone = learner_of(roles, SETTINGS)
    learner = replace(alone, accelerator=accelerator)
    result = learner.update(rollout, torch.Generator().manual_seed(accelerator.process_index))
    metrics = update_metrics(rollout, result, 0.05, Timing(1, 1), 1, over_processes(accelerator))
    trained = {name: value.detach().clone() for name, value in roles.trained.named_parameters() if value.requires_grad}
    return trained, metrics


def main(folder: Path, kind: str) -> None:
    rank = Accelerator(cpu=True).process_index
    state: dict[str, Any] = torch.load(folder / "rollout.pt")
    rows = slice(0, 3) if rank == 0 else slice(3, 8)  # uneven: a mean of means would show
    parameters, metrics = one_update(
        Rollout(**{name: value if value is None else value[rows] for name, value in state.items()}), kind
    )
    torch.save({"parameters": parameters, "metrics": metrics}, folder / f"{kind}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
