"""Judging a reward model: held-out pairs, probes, and golden scores that a reload must give again."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.config import Config
from pipelines.disk import write_atomic
from pipelines.errors import TrainingError
from pipelines.models.base import BaseRef
from pipelines.models.reward_model import Reads, RewardModel, open_reward_model
from pipelines.models.text_classifier import EncodedText
from pipelines.statistics import wilson

GOLDEN_ROWS = 8
GOLDEN_TOLERANCE = 1e-5
"""Relative above 1. Measured 0.0 in fp32, bf16 and NF4, full and LoRA: the same weights in the same shapes."""
PROBES_PER_ATTRIBUTE = 64


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt as a reward model reads them; `margin`: by how much the first is better."""

    chosen: EncodedText
    rejected: EncodedText
    margin: float | None = None


def judge(model: RewardModel, pairs: Sequence[Pair]) -> dict[str, float | None]:
    """`pair_figures` of the model's scores."""
    scores = _score_pairs(model, [pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    return pair_figures(pairs, *scores)


def pair_figures(pairs: Sequence[Pair], chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, float | None]:
    """How often and by how much a model prefers the chosen answer.

    A pair that stands there in both orders (a tie that is kept as half) has no better answer: whatever the model says,
    it would be right once and wrong once. Such rows are left out and counted.

    Args:
        pairs: what was scored.
        chosen: score of the chosen answer of each pair.
        rejected: score of the other one.

    Returns:
        ``accuracy``, the share of pairs that the model orders as they are (equal scores are half right), with its 95 %
        interval ``accuracy_low``, ``accuracy_high``; ``margin``, the mean of chosen - rejected; all None where no
        pair is left; ``both_orders``, how many rows were left out.
    """
    texts = [(_key(pair.chosen), _key(pair.rejected)) for pair in pairs]
    given = set(texts)
    kept = [row for row, (one, two) in enumerate(texts) if (two, one) not in given]
    left_out = {"both_orders": len(pairs) - len(kept)}
    if not kept:
        return dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high", "margin"), None) | left_out
    better, worse = [chosen[row] for row in kept], [rejected[row] for row in kept]
    right = _right(better, worse)
    low, high = wilson(right, len(kept))
    return {
        "accuracy": right / len(kept),
        "accuracy_low": low,
        "accuracy_high": high,
        "margin": statistics.fmean(a - b for a, b in zip(better, worse, strict=True)),
        **left_out,
    }


def _key(text: EncodedText) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(text.ids), tuple(text.segments)


def probe(model: RewardModel, config: Config) -> dict[str, float]:
    """Of a self-made task: the share of answers ranked above the same answer with one attribute spoiled."""
    if config.data.task is None:
        return {}
    from pipelines.tasks import load_task

    task = load_task(config.data.task.name)
    probes = list(task.probes(PROBES_PER_ATTRIBUTE * len(task.probe_attributes), config.run.seed))
    good, spoiled = _score_pairs(
        model,
        [model.row(probe.prompt, probe.good) for probe in probes],
        [model.row(probe.prompt, probe.spoiled) for probe in probes],
    )
    shares = {}
    for attribute in task.probe_attributes:
        chosen = [index for index, probe in enumerate(probes) if probe.attribute == attribute]
        if chosen:
            right = _right([good[index] for index in chosen], [spoiled[index] for index in chosen])
            shares[f"probe/{attribute}"] = right / len(chosen)
    return shares


def write_golden(stage_dir: Path, model: RewardModel, rows: Sequence[EncodedText]) -> None:
    """Keep `GOLDEN_ROWS` rows of ids, with segments where the model reads text, and their scores in `golden.json`."""
    rows = rows[:GOLDEN_ROWS]
    scores = model.scores(rows, exact=True)
    golden = [
        {"input_ids": row.ids, "score": score} | ({"segments": row.segments} if row.segments else {})
        for row, score in zip(rows, scores, strict=True)
    ]
    write_atomic(stage_dir / "golden.json", json.dumps({"rows": golden, "tolerance": GOLDEN_TOLERANCE}) + "\n")


def check_golden(
    stage_dir: Path,
    config: Config,
    device: torch.device,
    base: BaseRef | None = None,
    reads: Reads | None = None,
) -> float:
    """Load the published reward model afresh and compare its scores with `golden.json`.

    Args:
        stage_dir: of the reward stage, or its working directory.
        config: the whole configuration.
        device: where to load it.
        base: what an adapter stands on; None: as the manifest says.
        reads: what the model reads; None: as the manifest says.

    Returns:
        The largest difference, relative above 1.

    Raises:
        TrainingError: a score differs by more than the tolerance.
    """
    golden: dict[str, Any] = json.loads((stage_dir / "golden.json").read_text(encoding="utf-8"))
    size = config.reward.per_device_eval_batch_size
    model = open_reward_model(stage_dir, config.model, device, batch_size=size, reads=reads, base=base)
    rows = [EncodedText(row["input_ids"], row.get("segments", []), len(row["input_ids"])) for row in golden["rows"]]
    scores = model.scores(rows, exact=True)
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
    model: RewardModel, better: list[EncodedText], worse: list[EncodedText]
) -> tuple[list[float], list[float]]:
    scores = model.scores(better + worse)
    return scores[: len(better)], scores[len(better) :]


def _right(better: Sequence[float], worse: Sequence[float]) -> float:
    return sum((a > b) + 0.5 * (a == b) for a, b in zip(better, worse, strict=True))
