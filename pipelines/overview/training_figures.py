"""Figures of the trainings on the report: learning curves, and what the reward model is worth on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.overview.run_facts import RunFacts, StageFacts
from pipelines.overview.wording import number
from pipelines.report.svg_plots import Line, curves, reliability

MOST_ROUNDS = 3
"""Number of the last rounds whose curves are drawn; those of earlier rounds would make the page large."""


@dataclass(frozen=True)
class Plot:
    """A drawing with its words.

    Attributes:
        title: what is drawn, with its unit.
        svg: the drawing.
        lines: name of each line, and what it begins and ends with.
    """

    title: str
    svg: Markup
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Training:
    """The curves of one stage.

    Attributes:
        stage: facts about it.
        title: its heading.
        plots: the drawings; empty: nothing is logged yet.
        remark: figures on held-out rows before and after; empty: there are none.
    """

    stage: StageFacts
    title: str
    plots: tuple[Plot, ...]
    remark: str = ""


@dataclass(frozen=True)
class _Curve:
    title: str
    training: str
    heldout: str | None = None


_CURVES: dict[str, tuple[_Curve, ...]] = {
    "sft": (_Curve("Loss, nats per token", "loss"),),
    "reward": (_Curve("Accuracy on training rows", "accuracy"), _Curve("Loss, nats", "loss")),
    "ppo": (
        _Curve("Score", "objective/scores", "eval/score"),
        _Curve("KL to the reference, nats per response", "objective/kl", "eval/kl"),
        _Curve("Length of responses, tokens", "val/response_length", "eval/response_length"),
        _Curve("Value loss", "loss/value_avg"),
        _Curve("Entropy, nats per token", "policy/entropy_avg"),
    ),
}
_CURVES["judge"] = _CURVES["reward"]
_TITLES = {"sft": "Supervised fine-tuning", "reward": "Reward model", "judge": "Independent judge", "ppo": "PPO"}
_ONCE = ("sft", "judge")
"""Stages that all rounds share."""


def trainings_of(run: RunFacts) -> tuple[list[Training], int]:
    """Draw the curves of every training, finished or not.

    Returns:
        The trainings in their order, and the number of rounds that are left out.
    """
    first = max((stage.round for stage in run.stages), default=1) - MOST_ROUNDS
    trainings = [
        _training(stage, place)
        for place, stage in enumerate(run.stages)
        if stage.kind in _CURVES and (stage.kind in _ONCE or stage.baseline or stage.round > first)
    ]
    return trainings, max(0, first)


def _training(stage: StageFacts, place: int) -> Training:
    step = "update" if stage.kind == "ppo" else "step"
    rows = [line for line in stage.lines("metrics") if _is_number(line.get(step))]
    tests = [line for line in stage.lines("heldout") if _is_number(line.get(step))] if stage.kind == "ppo" else []
    alarms = [line[step] for line in stage.lines("alarms") if _is_number(line.get(step))]
    plots = []
    for index, curve in enumerate(_CURVES[stage.kind]):
        named = {"training": _points(rows, step, curve.training)}
        if curve.heldout is not None:
            named["held out"] = _points(tests, step, curve.heldout)
        drawn = [Line(points, dots=name == "held out") for name, points in named.items()]
        svg = curves(drawn, x_label=step, name=f"plot-{place}-{index}", marks=alarms)
        words = tuple((name, _ends(points, step)) for name, points in named.items() if points)
        if svg:
            plots.append(Plot(curve.title, Markup(svg), words))
    title = _TITLES[stage.kind] + (f", round {stage.round}" if stage.round > 1 else "")
    if stage.baseline is not None:
        title = f"{stage.baseline.upper()}, a baseline"
    return Training(stage, title, tuple(plots), _before_and_after(stage))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _points(rows: Sequence[Mapping[str, Any]], step: str, name: str) -> list[tuple[float, float]]:
    return [(float(row[step]), float(row[name])) for row in rows if _is_number(row.get(name))]


def _ends(points: Sequence[tuple[float, float]], step: str) -> str:
    (start, first), (stop, last) = points[0], points[-1]
    if len(points) == 1:
        return f"{number(first)} at {step} {number(start)}"
    return f"{number(first)} at {step} {number(start)}, {number(last)} at {step} {number(stop)}"


def _before_and_after(stage: StageFacts) -> str:
    what = {"sft": "loss", "reward": "accuracy", "judge": "accuracy"}.get(stage.kind)
    before, after = (stage.metric(f"heldout_{what}_{when}") for when in ("before", "after"))
    if before is None or after is None:
        return ""
    return f"On held-out rows the {what} was {number(before)} before the training and is {number(after)} after it."


@dataclass(frozen=True)
class RewardFigures:
    """What a reward model is worth.

    Attributes:
        stage: name of its stage.
        objective: how it was trained, ``pairwise`` or ``pointwise``.
        rows: name and value of each figure.
        reliability: plot of probabilities and truth; empty: the model gives scores, not probabilities.
    """

    stage: str
    objective: str
    rows: tuple[tuple[str, str], ...]
    reliability: Markup


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
        RewardFigures(
            stage.name,
            str(stage.manifest.notes.get("objective", "pairwise")),
            tuple(_reward_rows(stage)),
            _reliability(stage, place),
        )
        for place, stage in enumerate(run.stages)
        if stage.manifest is not None and (stage.kind == "judge" or (stage.kind == "reward" and stage.round > first))
    ]


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


def _reliability(stage: StageFacts, place: int) -> Markup:
    rows = stage.manifest.notes.get("calibration") if stage.manifest else None
    keys = ("n", "probability", "good")
    bins = [
        (int(row["n"]), float(row["probability"]), float(row["good"]))
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, Mapping) and all(_is_number(row.get(key)) for key in keys)
    ]
    return Markup(reliability(bins, name=f"reliability-{place}"))
