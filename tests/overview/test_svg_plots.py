"""Curves for a page: what is drawn where, and that two drawings do not disturb each other on one page."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from pipelines.report.svg_plots import Line, curves, reliability, thinned


def ids(svg: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', svg))


def path_of(svg: str, color: str) -> list[tuple[float, float]]:
    """Points of the longest path in a color, in the drawing's own units."""
    paths = re.findall(rf'<path d="([^"]+)"[^>]*stroke: var\(--{color}\)', svg)
    longest = max(paths, key=len)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", longest)]


def test_a_line_goes_through_its_points() -> None:
    svg = curves([Line([(0, 0), (5, 1), (10, 0)])], x_label="step", name="a")
    (x0, y0), (x1, y1), (x2, y2) = path_of(svg, "first")
    assert x1 - x0 == pytest.approx(x2 - x1, rel=1e-3)
    assert y0 == pytest.approx(y2)
    assert y1 < y0, "up is a smaller y"
    assert ">step</text>" in svg


def test_the_second_line_and_marks_have_their_own_colors() -> None:
    svg = curves([Line([(0, 0), (4, 1)]), Line([(0, 1), (4, 0)], dots=True)], x_label="update", name="a", marks=[2])
    assert path_of(svg, "second")
    (left, _), (right, _) = path_of(svg, "first")
    ((x, _), (same, _)) = path_of(svg, "warn")
    assert x == same == pytest.approx((left + right) / 2, abs=0.01)


def test_a_drawing_is_well_formed_and_takes_its_colors_from_the_page() -> None:
    svg = curves([Line([(0, 1), (1, 2)])], x_label="step", name="a")
    root = ET.fromstring(svg)
    assert set(root.attrib) == {"viewBox", "aria-hidden", "focusable"}
    assert not re.search(r"#[0-9a-f]{6}|<style|<metadata|font-family|http", svg)


def test_ids_of_two_drawings_differ_and_are_used() -> None:
    one, two = (curves([Line([(0, 1), (1, 2)])], x_label="step", name=name) for name in ("a", "b"))
    assert ids(one)
    assert not ids(one) & ids(two)
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', one))
    assert {first or second for first, second in used} <= ids(one)


def test_the_same_points_give_the_same_bytes() -> None:
    first, second = (curves([Line([(0, 1), (1, 2)])], x_label="step", name="a") for _ in range(2))
    assert first == second


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert curves([Line([]), Line([(0, math.nan)])], x_label="step", name="a") == ""
    svg = curves([Line([(0, 1), (1, math.inf), (2, 1), (3, math.nan)])], x_label="step", name="a")
    assert len(path_of(svg, "first")) == 2
    assert curves([Line([(3, 1)])], x_label="step", name="a"), "one point is a dot"
    assert reliability([], truth="good", name="r") == ""


def test_long_lines_are_averaged_and_keep_their_ends() -> None:
    points = [(float(x), 1.0 if x % 2 else 3.0) for x in range(10_000)]
    few = thinned(points, 100)
    assert len(few) == 100
    assert (few[0][0], few[-1][0]) == (0.0, 9999.0)
    assert all(y == pytest.approx(2.0) for _, y in few)
    assert thinned(points[:5], 100) == points[:5]
    assert len(curves([Line(points)], x_label="step", name="a")) < 40_000


def test_reliability_has_a_dot_for_every_bin_that_holds_rows() -> None:
    svg = reliability([(10, 0.1, 0.2), (0, 0.5, 0.5), (30, 0.9, 0.8)], truth="good", name="r")
    assert len(re.findall(r"<use [^>]*fill: var\(--first\)|<path [^>]*fill: var\(--first\)", svg)) >= 2
    assert "share that is good" in svg
    ET.fromstring(svg.replace("xlink:", ""))


def test_the_settings_of_a_user_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    before = curves([Line([(0, 1), (1, 2)])], x_label="step", name="a")
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    assert curves([Line([(0, 1), (1, 2)])], x_label="step", name="a") == before
    assert matplotlib.rcParams["lines.linewidth"] == 9.0, "and are left as they were"
