"""Judging a reward model: held-out pairs, probes, and golden scores that a reload must give again."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from pipelines.config import Config
from pipelines.data.encode import ChatEncoder, EncodedComparison
from pipelines.disk import write_atomic
from pipelines.errors import TrainingError
from pipelines.models.artifact import open_reward
from pipelines.models.base import BaseRef
from pipelines.models.machine import autocast
from pipelines.models.score import score_ids

GOLDEN_ROWS = 8
GOLDEN_TOLERANCE = 1e-5
"""Relative above 1. Measured 0.0 in fp32, bf16 and NF4, full and LoRA: the same weights in the same shapes."""
PROBES_PER_ATTRIBUTE = 64


def wilson(successes: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): unlike the normal one it stays within [0, 1].

    Args:
        successes: how many of `n` succeeded; a tie is half a success.
        n: at least 1.
        z: quantile of the normal distribution.
    """
    share = successes / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


def judge(
    model: PreTrainedModel | PeftModel, pairs: Sequence[EncodedComparison], batch_size: int, config: Config
) -> dict[str, float]:
    """Pairwise accuracy (a tie is half right) with its 95 % interval, and the mean margin chosen - rejected."""
    chosen, rejected = _score_pairs(
        model,
        [pair["prompt_ids"] + pair["chosen_ids"] for pair in pairs],
        [pair["prompt_ids"] + pair["rejected_ids"] for pair in pairs],
        batch_size,
        config,
    )
    right = _right(chosen, rejected)
    low, high = wilson(right, len(pairs))
    return {
        "heldout_accuracy": right / len(pairs),
        "heldout_accuracy_low": low,
        "heldout_accuracy_high": high,
        "heldout_margin": statistics.fmean(a - b for a, b in zip(chosen, rejected, strict=True)),
    }


def probe(model: PreTrainedModel | PeftModel, encoder: ChatEncoder, config: Config) -> dict[str, float]:
    """Of a self-made task: the share of answers ranked above the same answer with one attribute spoiled."""
    if config.data.task is None:
        return {}
    from pipelines.tasks import load_task

    task = load_task(config.data.task.name)
    probes = list(task.probes(PROBES_PER_ATTRIBUTE * len(task.probe_attributes), config.run.seed))
    good, spoiled = _score_pairs(
        model,
        [encoder.prompt(probe.prompt) + encoder.answer(probe.prompt, probe.good) for probe in probes],
        [encoder.prompt(probe.prompt) + encoder.answer(probe.prompt, probe.spoiled) for probe in probes],
        config.reward.per_device_eval_batch_size,
        config,
    )
    shares = {}
    for attribute in task.probe_attributes:
        chosen = [index for index, probe in enumerate(probes) if probe.attribute == attribute]
        if chosen:
            right = _right([good[index] for index in chosen], [spoiled[index] for index in chosen])
            shares[f"probe/{attribute}"] = right / len(chosen)
    return shares


def write_golden(stage_dir: Path, model: PreTrainedModel | PeftModel, pairs: Sequence[EncodedComparison]) -> None:
    """Keep a few rows of ids with their scores in `golden.json`."""
    rows: list[list[int]] = []
    for pair in pairs[: GOLDEN_ROWS // 2]:
        rows += [pair["prompt_ids"] + pair["chosen_ids"], pair["prompt_ids"] + pair["rejected_ids"]]
    scores = score_ids(model, rows, GOLDEN_ROWS)
    golden = [{"input_ids": ids, "score": score} for ids, score in zip(rows, scores, strict=True)]
    write_atomic(stage_dir / "golden.json", json.dumps({"rows": golden, "tolerance": GOLDEN_TOLERANCE}) + "\n")


def check_golden(stage_dir: Path, config: Config, device: torch.device, base: BaseRef | None = None) -> float:
    """Load the published reward model afresh and compare its scores with `golden.json`.

    Args:
        stage_dir: of the reward stage, or its working directory.
        config: the whole configuration.
        device: where to load it.
        base: what an adapter stands on; None: as the manifest says.

    Returns:
        The largest difference, relative above 1.

    Raises:
        TrainingError: a score differs by more than the tolerance.
    """
    golden: dict[str, Any] = json.loads((stage_dir / "golden.json").read_text(encoding="utf-8"))
    model, _ = open_reward(stage_dir, config.model, device, base=base)
    scores = score_ids(model, [row["input_ids"] for row in golden["rows"]], GOLDEN_ROWS)
    difference: float = max(
        abs(score - row["score"]) / max(1.0, abs(row["score"]))
        for score, row in zip(scores, golden["rows"], strict=True)
    )
    if not difference <= golden["tolerance"]:
        raise TrainingError(
            f"the published reward model gives other scores than the trained one (difference {difference:.2g}): "
            "its score head or its adapter was lost on the way to the disk",
            where=str(stage_dir / "model"),
            hint="do not use it; please report this with the versions that `rlhf env` prints",
        )
    return difference


def _score_pairs(
    model: PreTrainedModel | PeftModel,
    better: list[list[int]],
    worse: list[list[int]],
    batch_size: int,
    config: Config,
) -> tuple[list[float], list[float]]:
    with autocast(config.model, next(model.parameters()).device):
        scores = score_ids(model, better + worse, batch_size)
    return scores[: len(better)], scores[len(better) :]


def _right(better: Sequence[float], worse: Sequence[float]) -> float:
    return sum((a > b) + 0.5 * (a == b) for a, b in zip(better, worse, strict=True))
