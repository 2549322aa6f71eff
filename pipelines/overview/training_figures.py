"""Learning curves of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.evaluate.conclusion import name_of
from pipelines.overview.run_facts import RunFacts, StageFacts
from pipelines.overview.wording import number
from pipelines.report.svg_plots import Line, curves

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
_CURVES["dpo"] = (_Curve("Accuracy on training pairs", "rewards/accuracies"), _Curve("Loss, nats", "loss"))
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
    rows = [line for line in stage.lines("metrics") if is_number(line.get(step))]
    tests = [line for line in stage.lines("heldout") if is_number(line.get(step))] if stage.kind == "ppo" else []
    alarms = [line[step] for line in stage.lines("alarms") if is_number(line.get(step))]
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
    if stage.baseline is not None:
        title = f"{name_of(stage.baseline)}, a baseline"
    else:
        title = _TITLES[stage.kind] + (f", round {stage.round}" if stage.round > 1 else "")
    return Training(stage, title, tuple(plots), _before_and_after(stage))


def is_number(value: Any) -> bool:
    """Whether a value of a log can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _points(rows: Sequence[Mapping[str, Any]], step: str, name: str) -> list[tuple[float, float]]:
    return [(float(row[step]), float(row[name])) for row in rows if is_number(row.get(name))]


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
