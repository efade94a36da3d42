"""The picture from above puts known things at known pixels."""

import numpy as np
import pytest

from sparse3d.viewers.bev import BevStyle, draw_bev
from sparse3d.viewers.colors import CLASS_COLORS, height_colors

BOUNDS = (0.0, -10.0, -3.0, 20.0, 10.0, 1.0)
# 10 pixels a metre, x to the top: (x, y) is at column 10 (10 - y), row 10 (20 - x). No rings: they stand
# everywhere.
STYLE = BevStyle(pixels_per_metre=10, ring_step=1000.0, show_scores=False)
NO_POINTS = np.zeros((0, 4), dtype=np.float32)
BOX = np.array([[12.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.0]])
BACKGROUND = np.asarray(draw_bev(NO_POINTS, BOUNDS, style=STYLE)).astype(int)


def picture(points=NO_POINTS, **options) -> np.ndarray:
    """(rows, columns, 3)"""
    return np.asarray(draw_bev(points, BOUNDS, **{"style": STYLE, **options})).astype(int)


def assert_close_color(pixel: np.ndarray, color: tuple[int, ...]) -> None:
    # A line of two pixels whose centre is on the border of two pixels covers them; smoothing may take a
    # tenth.
    assert np.abs(pixel - color).max() <= 26, (pixel, color)


def changed(image: np.ndarray) -> np.ndarray:
    """Rows and columns that something was drawn on: (N, 2)."""
    return np.argwhere((image != BACKGROUND).any(axis=2))


def test_a_box_colours_its_outline_and_nothing_far_from_it():
    image = picture(boxes=BOX, labels=[1])
    # x from 10 to 14 m is row 100 to 60; y from 1 to 3 m is column 90 to 70.
    for row, column in ((60, 75), (100, 80), (80, 70), (80, 90)):
        assert_close_color(image[row, column], CLASS_COLORS[1])
    drawn = changed(image)
    rows, columns = drawn[drawn[:, 0] < 150].T  # below are the legend's rows
    assert 68 <= columns.min() <= 70 and 89 <= columns.max() <= 91
    # The tick goes one metre ahead of the front face: row 50.
    assert 49 <= rows.min() <= 51 and 100 <= rows.max() <= 101


def test_the_heading_tick_points_along_yaw():
    for yaw, (row, column) in {
        0.0: (53, 80),
        np.pi: (107, 80),
        np.pi / 2: (80, 53),
        -np.pi / 2: (80, 107),
    }.items():
        turned = BOX.copy()
        turned[0, 6] = yaw
        assert_close_color(picture(boxes=turned, labels=[0])[row, column], CLASS_COLORS[0])


def test_forward_right_puts_x_on_columns():
    style = BevStyle(pixels_per_metre=10, ring_step=1000.0, forward_right=True)
    image = np.asarray(draw_bev(NO_POINTS, BOUNDS, boxes=BOX, labels=[2], style=style)).astype(int)
    # x = 10 m is column 100 and y = 3 m is row 70.
    assert_close_color(image[75, 100], CLASS_COLORS[2])
    assert_close_color(image[70, 120], CLASS_COLORS[2])


def test_a_point_shows_at_its_place_and_the_highest_is_on_top():
    points = np.array([[4.94, -0.06, 0.5, 1.0], [4.94, -0.06, -2.0, 1.0]], dtype=np.float32)
    low, high = STYLE.height_range
    image = picture(points)
    # Row 150.6 and column 100.6: in the middle of one pixel, which the point fills.
    assert changed(image).tolist() == [[150, 100]]
    want = height_colors(np.array([(0.5 - low) / (high - low)]))[0]
    assert np.abs(image[150, 100] - want).max() <= 1


def test_ground_truth_is_an_outline_without_filling():
    image = picture(ground_truth=BOX)
    assert image[80, 70].min() > 100 and image[100, 80].min() > 100
    assert (image[85, 75] == BACKGROUND[85, 75]).all()


def test_boxes_below_the_least_score_are_not_drawn():
    style = BevStyle(pixels_per_metre=10, ring_step=1000.0, min_score=0.5)
    image = np.asarray(draw_bev(NO_POINTS, BOUNDS, boxes=BOX, labels=[0], scores=[0.4], style=style)).astype(
        int
    )
    assert len(changed(image)) == 0


def test_scores_never_cover_boxes_or_each_other():
    row = np.concatenate([BOX, BOX + [[0, 2.5, 0, 0, 0, 0, 0]], BOX - [[0, 2.5, 0, 0, 0, 0, 0]]])
    without = picture(boxes=row, labels=[0, 0, 0])
    style = BevStyle(pixels_per_metre=10, ring_step=1000.0)
    with_scores = picture(boxes=row, labels=[0, 0, 0], scores=[0.9, 0.8, 0.7], style=style)
    assert (without != with_scores).any()
    assert (without[61:100, 46:116] == with_scores[61:100, 46:116]).all()


def test_empty_inputs_and_points_that_are_not_finite_are_fine():
    nowhere = np.array([[np.nan, 0, 0], [np.inf, 1, 1], [500.0, 0, 0]])
    assert len(changed(picture(nowhere))) == 0
    assert picture(boxes=np.zeros((0, 7)), labels=[], scores=[], ground_truth=[]).shape == (200, 200, 3)


def test_the_same_inputs_give_the_same_picture():
    points = np.random.default_rng(0).uniform(-10, 20, (500, 4)).astype(np.float32)
    options = {"boxes": BOX, "labels": [0], "scores": [0.5], "class_names": ("Car",), "title": "t"}
    assert (picture(points, **options) == picture(points, **options)).all()


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="min < max"):
        draw_bev(NO_POINTS, (0, 0, 0, -1, 1, 1))
    with pytest.raises(ValueError, match=r"labels has shape \(2,\)"):
        draw_bev(NO_POINTS, BOUNDS, boxes=BOX, labels=[0, 1])
    with pytest.raises(ValueError, match=r"boxes has shape \(1, 5\)"):
        draw_bev(NO_POINTS, BOUNDS, boxes=BOX[:, :5])
