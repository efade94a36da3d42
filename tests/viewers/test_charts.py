"""Charts are well-formed SVG that shows the numbers at the right height."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sparse3d.viewers import charts

SVG = "{http://www.w3.org/2000/svg}"
COLORS = {"a": "#112233", "b": "#445566"}


def bars_of(root):
    return [rect for rect in root.iter(SVG + "rect") if rect.find(SVG + "title") is not None]


def test_a_line_ends_where_its_numbers_say():
    text = charts.line_chart("t", {"a": (np.array([0.0, 1.0]), np.array([1.0, 0.5]))}, COLORS, ("x", "y"))
    (line,) = ElementTree.fromstring(text).iter(SVG + "polyline")
    (x0, y0), (x1, y1) = (map(float, place.split(",")) for place in line.get("points").split())
    assert line.get("stroke") == "#112233" and x0 < x1 and y0 < y1
    top, bottom = y0, 2 * (y1 - y0) + y0  # heights of 1 and 0
    assert 0 < top < bottom < charts.HEIGHT and 0 < x0 < x1 < charts.WIDTH


def test_long_lines_are_thinned_and_keep_their_ends():
    x = np.linspace(0, 1, 5000)
    (line,) = ElementTree.fromstring(charts.line_chart("t", {"a": (x, x)}, COLORS, ("x", "y"))).iter(
        SVG + "polyline"
    )
    places = line.get("points").split()
    assert len(places) == 300 and float(places[-1].split(",")[0]) > 0.7 * charts.WIDTH
    empty = charts.line_chart("t", {"a": (x[:0], x[:0])}, COLORS, ("x", "y"))
    assert next(ElementTree.fromstring(empty).iter(SVG + "polyline")).get("points") == ""


def test_bars_are_as_high_as_their_numbers_and_nan_is_none():
    text = charts.bar_chart("t", ["p", "q"], {"a": [1.0, np.nan], "b": [0.25, 0.5]}, COLORS, ("x", "y"))
    bars = bars_of(ElementTree.fromstring(text))
    heights = [float(bar.get("height")) for bar in bars]
    assert len(bars) == 3 and heights == pytest.approx([heights[0], heights[0] / 4, heights[0] / 2], abs=0.06)
    assert [bar.find(SVG + "title").text for bar in bars] == ["a, p: 1", "b, p: 0.25", "b, q: 0.5"]


def test_a_histogram_has_the_share_of_each_part_and_the_rest_in_the_last():
    text = charts.histogram("t", {"a": np.array([0.1, 0.1, 0.9, 7.0])}, COLORS, "m", 1.0, bins=2)
    (line,) = ElementTree.fromstring(text).iter(SVG + "polyline")
    heights = {place.split(",")[1] for place in line.get("points").split()}
    assert len(heights) == 1, "half in either part"


def test_names_cannot_break_the_page():
    evil = '<b>&"</b>'
    text = charts.bar_chart(evil, [evil], {"a": [1]}, COLORS, (evil, evil))
    assert evil not in text
    assert any(evil == node.text for node in ElementTree.fromstring(text).iter(SVG + "text"))
    table = charts.heat_table([evil], ["c"], np.array([[3]]), evil)
    cells = [cell.text for cell in ElementTree.fromstring(table).iter() if cell.tag in ("td", "th")]
    assert cells == [evil, "c", evil, "3"]


@pytest.mark.parametrize(
    ("value", "end"), [(0.3, 0.5), (1, 1), (51, 100), (23, 25), (0.011, 0.02), (180, 200)]
)
def test_axes_end_at_round_numbers(value, end):
    assert charts.round_up(value) == pytest.approx(end)
