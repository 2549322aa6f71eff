"""Figures of the reward models on the report: accuracy, where it fails, how sure it is, and its worst mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.overview.run_facts import RunFacts, StageFacts
from pipelines.overview.training_figures import MOST_ROUNDS, is_number
from pipelines.overview.wording import number
from pipelines.report.estimates import Estimate
from pipelines.report.svg_plots import reliability
from pipelines.run.disk import read_json

CARD = "report_card.json"
"""File of a reward stage with its report card; stages of before there was one have none."""
MOST_MISTAKES = 3


@dataclass(frozen=True)
class Mistake:
    """A pair of answers that a reward model orders wrongly: prompt, both texts and both scores."""

    prompt: str
    chosen: str
    rejected: str
    scores: tuple[float, float]


@dataclass(frozen=True)
class RewardFigures:
    """Figures of a reward model.

    Attributes:
        stage: name of its stage.
        objective: how it was trained, ``pairwise`` or ``pointwise``.
        rows: name and value of each figure.
        groups: kind, name and accuracy of groups of pairs.
        reliability: plot of stated probabilities and the truth; empty: the stage has recorded none.
        mistakes: the worst ones.
    """

    stage: str
    objective: str
    rows: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, str, str], ...]
    reliability: Markup
    mistakes: tuple[Mistake, ...]


_HELDOUT: tuple[tuple[str, str], ...] = (
    ("length_accuracy", "accuracy of choosing by length alone"),
    ("majority", "accuracy of always saying what most rows are"),
    ("auc", "area under the ROC curve"),
    ("margin", "mean margin between the better and the worse answer"),
    ("brier", "Brier score"),
    ("calibration_error", "calibration error"),
    ("loss", "loss, nats"),
    ("pairs", "pairs compared"),
    ("both_orders", "pairs left out: they occur in both orders"),
    ("pair_accuracy", "accuracy on held-out comparisons"),
    ("pair_pairs", "comparisons"),
)


def reward_figures(run: RunFacts) -> list[RewardFigures]:
    """Collect the figures of the reward models that are complete, of the last rounds only, and of the judge."""
    first = max((stage.round for stage in run.stages), default=1) - MOST_ROUNDS
    return [
        _figures(stage, place)
        for place, stage in enumerate(run.stages)
        if stage.manifest is not None and (stage.kind == "judge" or (stage.kind == "reward" and stage.round > first))
    ]


def _figures(stage: StageFacts, place: int) -> RewardFigures:
    card = read_json(stage.directory / CARD) if stage.directory is not None else {}
    return RewardFigures(
        stage.name,
        str(stage.manifest.notes.get("objective", "pairwise")) if stage.manifest else "",
        (*_reward_rows(stage), *_card_rows(card)),
        tuple(_groups(card)),
        _reliability(stage, card, f"reliability-{place}"),
        tuple(_mistakes(card))[:MOST_MISTAKES],
    )


def _entries(tree: Any, *path: str) -> list[Mapping[str, Any]]:
    """Return the objects of a list in a tree; empty: there is no such list."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return [entry for entry in tree if isinstance(entry, Mapping)] if isinstance(tree, list) else []


def _estimate(entry: Mapping[str, Any]) -> str | None:
    values = [entry.get(key) for key in ("value", "low", "high")]
    if not all(map(is_number, values)):
        return None
    value, low, high = map(float, values)  # type: ignore[arg-type]
    return Estimate(value, low, high).text()


def _card_rows(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name how sure the model is of itself, and the changes of answers that fool it."""
    calibration = card.get("calibration")
    hot = calibration.get("temperature") if isinstance(calibration, Mapping) else None
    if isinstance(calibration, Mapping) and is_number(hot):
        yield "calibration error on pairs", number(calibration.get("calibration_error"))
        yield "temperature that would mend it (above 1: too sure of itself)", number(hot)
    for entry in _entries(card, "learning_curve")[:-1]:
        if (text := _estimate(entry)) is not None:
            yield f"held-out accuracy after {number(entry.get('rows'))} rows", text
    for entry in _entries(card, "probes"):
        prefers = entry.get("prefers")
        text = _estimate(prefers) if isinstance(prefers, Mapping) else None
        if text is not None:
            fooled = "; fooled" if entry.get("expected") == "lower" else "; not neutral"
            fault = fooled if entry.get("sound") is False else ""
            yield f"probe: prefers an answer after this change: {entry.get('name')}", text + fault


def _groups(card: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for entry in _entries(card, "groups"):
        if (text := _estimate(entry)) is not None:
            yield str(entry.get("group")), str(entry.get("name")), f"{text}, {number(entry.get('n'))} pairs"


def _mistakes(card: Mapping[str, Any]) -> Iterator[Mistake]:
    for entry in _entries(card, "mistakes"):
        scores = entry.get("scores")
        if isinstance(scores, list) and len(scores) == 2 and all(map(is_number, scores)):
            prompt, chosen, rejected = (str(entry.get(key, "")) for key in ("prompt", "chosen", "rejected"))
            yield Mistake(prompt, chosen, rejected, (float(scores[0]), float(scores[1])))


def _reward_rows(stage: StageFacts) -> Iterator[tuple[str, str]]:
    accuracy, low, high = (stage.metric(f"heldout_accuracy{end}_after") for end in ("", "_low", "_high"))
    if accuracy is not None:
        interval = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
        before = stage.metric("heldout_accuracy_before")
        told = f"; {number(before)} before the training" if before is not None else ""
        yield "held-out accuracy", f"{number(accuracy)}{interval}{told}"
    for key, words in _HELDOUT:
        value = stage.metric(f"heldout_{key}_after")
        if value is not None and not (key == "both_orders" and value == 0):
            yield words, number(value)
    agreement, low, high = (stage.metric(f"agreement{end}") for end in ("", "_low", "_high"))
    if agreement is not None:
        yield "orders pairs as the reward model does", f"{number(agreement)} [{number(low)}, {number(high)}]"
    for name in sorted(stage.manifest.metrics if stage.manifest else ()):
        if name.startswith("probe/") and (share := stage.metric(name)) is not None:
            yield f"probe: answers spoiled in {name.removeprefix('probe/')} score lower", f"{share:.0%}"


def _reliability(stage: StageFacts, card: Mapping[str, Any], name: str) -> Markup:
    """Draw the reliability by the report card or, of before there was one, by the notes of a pointwise model."""
    by_pair, right = _entries(card, "calibration", "reliability"), "right"
    if not by_pair and stage.manifest is not None:
        by_pair, right = _entries(stage.manifest.notes, "calibration"), "good"
    keys = ("n", "probability", right)
    bins = [
        (int(row["n"]), float(row["probability"]), float(row[right]))
        for row in by_pair
        if all(is_number(row.get(key)) for key in keys)
    ]
    return Markup(reliability(bins, truth=right, name=name))
