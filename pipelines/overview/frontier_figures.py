"""The frontier in the report: what PPO gained on its way, by its reward and by the judges, against the KL."""

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
    frontier = run.results.get("frontier") if run.results else None
    if not isinstance(frontier, Mapping):
        return ()
    try:
        return tuple(_plots(frontier))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return ()  # a form that this version does not read


def _plots(frontier: Mapping[str, Any]) -> Iterator[Plot]:
    points = sorted(frontier["points"], key=lambda point: float(point["kl"]["value"]))
    panels = [("The reward that PPO optimized", [point["optimized"] for point in points])]
    panels += [(f"{name}, a judge", [point["judged"][name] for point in points]) for name in points[0]["judged"]]
    roots = [math.sqrt(max(float(point["kl"]["value"]), 0.0)) for point in points]
    published = [root for root, point in zip(roots, points, strict=True) if point["update"] == frontier["published"]]
    for number, (title, estimates) in enumerate(panels):
        values = [(root, float(estimate["value"])) for root, estimate in zip(roots, estimates, strict=True)]
        spans = [(float(estimate["low"]), float(estimate["high"])) for estimate in estimates]
        svg = curves(
            [Line(values, dots=True, spans=spans)],
            x_label="square root of the KL in nats",
            name=f"frontier-{number}",
            marks=published,
        )
        if svg:
            last = Estimate(values[-1][1], *spans[-1]).text()
            yield Plot(title, Markup(svg), (("training", f"{last} farthest from the reference"),))
