"""Curves as SVG for a page: colors are CSS variables of the page, text is text, and only numbers of the data go in."""

from __future__ import annotations

import io
import itertools
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_POINTS = 300
"""Number of points of a line above which neighbours are averaged."""
INK, GRID, FIRST, SECOND, MARK = "#010101", "#020202", "#030303", "#040404", "#050505"
_STYLES = {
    INK: "var(--quiet)",
    GRID: "var(--line)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    MARK: "var(--warn)",
}
"""What takes the place of each color that Matplotlib is given."""
_SIZE = (4.4, 2.5)
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rlhf",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Attributes:
        points: x and y, in the order of x; those that are not finite are left out.
        dots: mark the points, which are few.
        spans: lower and upper bound of the interval at each point; empty: there are none.
    """

    points: Sequence[tuple[float, float]]
    dots: bool = False
    spans: Sequence[tuple[float, float]] = ()

    def finite(self) -> list[tuple[float, float]]:
        """Return the points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(x) and math.isfinite(y)]


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Average neighbours until there are at most `most` points; the first and the last x stay as they are.

    Args:
        points: x and y, in the order of x.
        most: at least 2.
    """
    if len(points) <= most:
        return list(points)
    bounds = [round(number * len(points) / most) for number in range(most + 1)]
    groups = [points[start:stop] for start, stop in itertools.pairwise(bounds)]
    means = [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
    return [(points[0][0], means[0][1]), *means[1:-1], (points[-1][0], means[-1][1])]


def curves(lines: Sequence[Line], *, x_label: str, name: str, marks: Sequence[float] = ()) -> str:
    """Draw up to two lines over a common x.

    Args:
        lines: the first in the first color, the second in the second.
        x_label: label of the x axis.
        name: prefix of all ids in the drawing, unique on its page; letters, digits and hyphens.
        marks: x of vertical lines.

    Returns:
        An ``<svg>`` element without width and height; empty: there is no point to draw.
    """
    drawn = [(line, line.finite()) for line in lines]
    if not any(points for _, points in drawn):
        return ""

    def draw(axes: Any) -> None:
        for color, (line, points) in zip((FIRST, SECOND), drawn, strict=False):
            if points:
                marker = "o" if line.dots or len(points) == 1 else None
                axes.plot(
                    *zip(*thinned(points), strict=True), color=color, linewidth=1.6, marker=marker, markersize=3.5
                )
            if line.spans:
                lows, highs = zip(*line.spans, strict=True)
                axes.vlines([x for x, _ in line.points], lows, highs, color=color, linewidth=1.0)
        for mark in marks:
            axes.axvline(mark, color=MARK, linewidth=1.0, linestyle="--")
        axes.set_xlabel(x_label)
        axes.margins(x=0.02)

    return _svg(draw, name)


def reliability(bins: Sequence[tuple[int, float, float]], *, truth: str, name: str) -> str:
    """Draw how often something is true against the probability that a model gives it.

    Args:
        bins: of each the number of rows, the mean probability and the share of which it is true.
        truth: what it is, in a word.
        name: as in `curves`.

    Returns:
        An ``<svg>`` element with one dot a bin, its area by the number of rows; empty: there is no bin.
    """
    points = [(n, p, share) for n, p, share in bins if n > 0 and math.isfinite(p) and math.isfinite(share)]
    if not points:
        return ""
    most = max(n for n, _, _ in points)

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle=":")
        areas = [12 + 60 * n / most for n, _, _ in points]
        axes.plot([p for _, p, _ in points], [share for _, _, share in points], color=FIRST, linewidth=1.0)
        axes.scatter([p for _, p, _ in points], [share for _, _, share in points], s=areas, color=FIRST)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(f"probability of being {truth}, by the model")
        axes.set_ylabel(f"share that is {truth}")

    return _svg(draw, name)


def _svg(draw: Any, name: str) -> str:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a font cache that is made is no news
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a matplotlibrc of the user is for his own plots
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Type": None})
    return _for_page(file.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """Make a drawing fit into a page: unique ids, the page's own colors and fonts, and no size of its own."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height|version|xmlns(?::\w+)?)="[^"]*"', "", head)
    svg = f'{head} aria-hidden="true" focusable="false">{rest}'
    svg = re.sub(r'\bid="', f'id="{name}-', svg).replace("url(#", f"url(#{name}-")
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', svg)
    svg = re.sub(r'font-family: [^;"]*;? ?| transform="rotate\(-0 [^"]*"', "", svg)
    for color, style in _STYLES.items():
        svg = svg.replace(color, style)
    return re.sub(r"\n\s*", "\n", svg)
