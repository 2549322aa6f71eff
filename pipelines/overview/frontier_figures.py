"""The frontier in the report: gains of PPO and of best-of-n against the KL, by PPO's reward and by the judges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from pipelines.overview.run_facts import RunFacts
from pipelines.overview.training_figures import Plot
from pipelines.report.estimates import Estimate
from pipelines.report.svg_plots import Line, curves


def frontier_plots(run: RunFacts) -> tuple[Plot, ...]:
    """Draw one panel for the reward that PPO optimized and one for each judge; empty: the results have no frontier."""
    results = run.results or {}
    curves_of = {name: results[key] for key, name in _NAMES.items() if isinstance(results.get(key), Mapping)}
    try:
        return tuple(_plots(curves_of)) if curves_of else ()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return ()  # a form that this version does not read


_NAMES = {"frontier": "PPO", "best_of_n": "best of n"}


def _plots(curves_of: Mapping[str, Mapping[str, Any]]) -> Iterator[Plot]:
    points = {
        name: sorted(curve["points"], key=lambda point: float(point["kl"]["value"]))
        for name, curve in curves_of.items()
    }
    judges = {judge: None for of_curve in points.values() for judge in of_curve[0]["judged"]}
    marks = [_root(point) for point in points.get("PPO", ()) if point["update"] == curves_of["PPO"]["published"]]
    for number, judge in enumerate((None, *judges)):
        lines, words = [], []
        for name in _NAMES.values():
            scored = [
                (_root(point), Estimate.of(point["optimized"] if judge is None else point["judged"][judge]))
                for point in points.get(name, ())
            ]
            values = [(root, float(estimate.value or 0.0)) for root, estimate in scored]
            spans = [(float(estimate.low), float(estimate.high)) for _, estimate in scored]  # type: ignore[arg-type]
            lines.append(Line(values, dots=True, spans=spans))
            if scored:
                words.append((name, f"{scored[-1][1].text()} farthest from the reference"))
        svg = curves(lines, x_label="square root of the KL in nats", name=f"frontier-{number}", marks=marks)
        if svg:
            title = "The reward that PPO optimized" if judge is None else f"{judge}, a judge"
            yield Plot(title, Markup(svg), tuple(words))


def _root(point: Mapping[str, Any]) -> float:
    return math.sqrt(max(float(point["kl"]["value"]), 0.0))
