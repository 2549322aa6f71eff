"""Assessment of a reward model: held-out rows, probes, and golden scores that a reloaded model must reproduce."""

from __future__ import annotations

import json
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.config import Config
from pipelines.errors import TrainingError
from pipelines.models.published_reward import PublishedReward
from pipelines.models.reward_model import RewardModel, open_reward_model
from pipelines.models.text_classifier import EncodedText
from pipelines.report.bootstrap import wins
from pipelines.report.calibration import calibration_figures
from pipelines.report.statistics import auc, clustered_wilson, wilson
from pipelines.run.disk import write_atomic

MIDDLE = 0.5


@dataclass(frozen=True)
class JudgedText:
    """An answer as a reward model reads it, and its target: 0 is bad, 1 is good, and a scale lies between."""

    text: EncodedText
    target: float


def figures(logits: Sequence[float], targets: Sequence[float]) -> dict[str, float | None]:
    """Measure how well logits agree with targets.

    A target on neither side of the middle of its scale takes no part in accuracy, majority and AUC.

    Args:
        logits: at least one; the sigmoid of each is the probability of good.
        targets: in [0, 1].

    Returns:
        ``accuracy`` at a probability of .5 (exactly .5 is half right) with its 95 % interval ``accuracy_low`` and
        ``accuracy_high`` (Wilson), ``majority``, the accuracy of always saying what most rows are, ``auc``, all None
        where nothing lies off the middle, ``auc`` also where one side is missing; and the `calibration_figures`.
    """
    decided = [(logit, target > MIDDLE) for logit, target in zip(logits, targets, strict=True) if target != MIDDLE]
    result: dict[str, float | None] = dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high", "majority", "auc"))
    if decided:
        right = sum(0.5 if logit == 0 else float((logit > 0) is good) for logit, good in decided)
        low, high = wilson(right, len(decided))
        share = sum(good for _, good in decided) / len(decided)
        result |= {"accuracy": right / len(decided), "accuracy_low": low, "accuracy_high": high}
        result |= {"majority": max(share, 1 - share)}
        result |= {"auc": auc([good for _, good in decided], [logit for logit, _ in decided])}
    return result | calibration_figures(logits, targets)


GOLDEN_ROWS = 8
GOLDEN_TOLERANCE = 1e-5
"""Relative above 1. Measured 0.0 in fp32, bf16 and NF4, full and LoRA: the same weights in the same shapes."""
PROBES_PER_ATTRIBUTE = 64


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt as a reward model reads them.

    Attributes:
        chosen: the better answer.
        rejected: the other one.
        margin: how much better the chosen one is.
        number: place of the row in its file, from 0.
    """

    chosen: EncodedText
    rejected: EncodedText
    margin: float | None = None
    number: int = 0


PAIR_FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "margin", "length_accuracy")


def scores_of_pairs(model: RewardModel, pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
    """Scores of the chosen and of the rejected answers."""
    return _score_pairs(model, [pair.chosen for pair in pairs], [pair.rejected for pair in pairs])


def agreement(
    first: tuple[Sequence[float], Sequence[float]], other: tuple[Sequence[float], Sequence[float]]
) -> dict[str, float]:
    """Measure on what share of pairs two models prefer the same answer, with its 95 % interval (Wilson).

    Args:
        first: scores of the chosen and of the rejected answers by one model.
        other: the same by the other model.

    Returns:
        ``agreement``, ``agreement_low``, ``agreement_high``; empty where there is no pair. A pair of equal scores
        counts as half agreed.
    """
    margins, others = ([a - b for a, b in zip(*scores, strict=True)] for scores in (first, other))
    if not margins:
        return {}
    agreed = sum(0.5 if a * b == 0 else float(a * b > 0) for a, b in zip(margins, others, strict=True))
    low, high = wilson(agreed, len(margins))
    return {"agreement": agreed / len(margins), "agreement_low": low, "agreement_high": high}


def pair_figures(
    pairs: Sequence[Pair], chosen: Sequence[float], rejected: Sequence[float], prompts: Sequence[Hashable]
) -> dict[str, float | None]:
    """Measure how often and by how much a model prefers the chosen answer.

    A pair that occurs in both orders (a tie that is kept as two halves) has no better answer: whatever the model
    scores, it would be right once and wrong once. Such rows are left out and counted.

    Args:
        pairs: the pairs that were scored.
        chosen: scores of the chosen answers.
        rejected: scores of the rejected answers.
        prompts: the prompt of each pair, or a key of it.

    Returns:
        ``accuracy``, the share of pairs that the model orders as they are (equal scores are half right), with its 95 %
        interval clustered by prompt, ``accuracy_low`` and ``accuracy_high``; ``margin``, the mean of chosen - rejected;
        ``length_accuracy``, the accuracy of always choosing the longer answer, or always the shorter one, whichever is
        right more often; all None where no pair is left; ``pairs`` and ``both_orders``, the number of rows compared and
        left out.
    """
    texts = [(_key(pair.chosen), _key(pair.rejected)) for pair in pairs]
    present = set(texts)
    ordered = [row for row, (one, two) in enumerate(texts) if (two, one) not in present]
    left_out = {"pairs": len(ordered), "both_orders": len(pairs) - len(ordered)}
    if not ordered:
        return dict.fromkeys(PAIR_FIGURES) | left_out
    better, worse = [chosen[row] for row in ordered], [rejected[row] for row in ordered]
    right = wins(better, worse)
    low, high = clustered_wilson(right, [prompts[row] for row in ordered])
    lengths = [(pairs[row].chosen.length, pairs[row].rejected.length) for row in ordered]
    longer = _right(*zip(*lengths, strict=True)) / len(ordered)
    return {
        "accuracy": sum(right) / len(right),
        "accuracy_low": low,
        "accuracy_high": high,
        "margin": statistics.fmean(a - b for a, b in zip(better, worse, strict=True)),
        "length_accuracy": max(longer, 1 - longer),
        **left_out,
    }


def _key(text: EncodedText) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(text.ids), tuple(text.segments)


def probe(model: RewardModel, config: Config) -> dict[str, float]:
    """Share of a self-made task's answers that score above the same answer with one attribute spoiled; by attribute."""
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
    """Write `GOLDEN_ROWS` rows of ids, with segments where the model reads text, and their scores to `golden.json`."""
    rows = rows[:GOLDEN_ROWS]
    scores = model.scores(rows, exact=True)
    golden = [
        {"input_ids": row.ids, "score": score} | ({"segments": row.segments} if row.segments else {})
        for row, score in zip(rows, scores, strict=True)
    ]
    write_atomic(stage_dir / "golden.json", json.dumps({"rows": golden, "tolerance": GOLDEN_TOLERANCE}) + "\n")


def check_golden(published: PublishedReward, config: Config, device: torch.device) -> float:
    """Load the published reward model afresh and compare its scores with `golden.json`.

    Args:
        published: facts about the model.

    Returns:
        The largest difference, relative above 1.

    Raises:
        TrainingError: a score differs by more than the tolerance.
    """
    stage_dir = published.stage_dir
    golden: dict[str, Any] = json.loads((stage_dir / "golden.json").read_text(encoding="utf-8"))
    size = config.reward.per_device_eval_batch_size
    model = open_reward_model(published, config.model, device, batch_size=size)
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
            hint="do not use this model; please report the error with the versions that `rlhf env` prints",
        )
    return difference


def _score_pairs(
    model: RewardModel, better: list[EncodedText], worse: list[EncodedText]
) -> tuple[list[float], list[float]]:
    scores = model.scores(better + worse)
    return scores[: len(better)], scores[len(better) :]


def _right(better: Sequence[float], worse: Sequence[float]) -> float:
    return sum(wins(better, worse))
