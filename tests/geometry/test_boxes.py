"""Box geometry: cases by hand, and the laws that a motion of a box is the motion of its corners."""

import math

import numpy as np
import pytest

from sparse3d.geometry import boxes as geometry

MOTIONS = {
    "translate": (lambda p: geometry.translate(p, (1, -2, 3)), lambda b: geometry.translate(b, (1, -2, 3))),
    "rotate": (lambda p: geometry.rotate_points_z(p, 2.5), lambda b: geometry.rotate_boxes_z(b, 2.5)),
    "scale": (lambda p: geometry.scale_points(p, 1.05), lambda b: geometry.scale_boxes(b, 1.05)),
    "mirror_x": (lambda p: geometry.mirror_points(p, "x"), lambda b: geometry.mirror_boxes(b, "x")),
    "mirror_y": (lambda p: geometry.mirror_points(p, "y"), lambda b: geometry.mirror_boxes(b, "y")),
}


@pytest.fixture
def some_boxes():
    rng = np.random.default_rng(0)
    return rng.uniform([-40, -40, -2, 0.5, 0.5, 0.5, -np.pi], [40, 40, 2, 5, 3, 2, np.pi], (20, 7))


def sorted_rows(points):
    return points[np.lexsort(np.round(points, 6).T)]


def test_corners_by_hand():
    # Length 4 along +y after a quarter turn, so front left of the box is (x - w/2, y + l/2).
    box = np.array([[10, 20, 1, 4, 2, 6, math.pi / 2]])
    footprint = [[9, 22], [9, 18], [11, 18], [11, 22]]
    expected = [[*xy, z] for z in (-2, 4) for xy in footprint]
    np.testing.assert_allclose(geometry.corners(box)[0], expected, atol=1e-12)
    np.testing.assert_allclose(geometry.bottom_corners(box)[0], footprint, atol=1e-12)


def test_edges_are_as_long_as_the_sizes(some_boxes):
    c = geometry.corners(some_boxes)
    lengths = np.linalg.norm(c[:, geometry.EDGES[:, 0]] - c[:, geometry.EDGES[:, 1]], axis=-1)
    l, w, h = some_boxes[:, 3:6].T
    np.testing.assert_allclose(lengths, np.stack([l, w, l, w, l, w, l, w, h, h, h, h], axis=1))


@pytest.mark.parametrize(
    ("angle", "wrapped"),
    [
        (0, 0),
        (math.pi, -math.pi),
        (-math.pi, -math.pi),
        (3 * math.pi / 2, -math.pi / 2),
        (-7, 2 * math.pi - 7),
    ],
)
def test_wrap_angle_by_hand(angle, wrapped):
    assert geometry.wrap_angle(angle) == pytest.approx(wrapped)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wrap_angle_stays_in_its_half_open_interval(dtype):
    borders = np.array([math.pi * k for k in range(-9, 10)], dtype=dtype)
    angles = np.concatenate([borders, np.nextafter(borders, dtype(-100)), np.nextafter(borders, dtype(100))])
    wrapped = geometry.wrap_angle(angles)
    assert wrapped.dtype == dtype
    assert (wrapped >= -dtype(math.pi)).all() and (wrapped < dtype(math.pi)).all()
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angles), atol=32 * np.finfo(dtype).eps)


def test_angle_between_front_and_back():
    assert geometry.angle_between(-3.1, 3.1) == pytest.approx(2 * math.pi - 6.2)
    assert geometry.angle_between(0.1, 0.1 + math.pi) == pytest.approx(math.pi)
    assert geometry.angle_between(0.1, 0.3 + math.pi, period=math.pi) == pytest.approx(0.2)


@pytest.mark.parametrize("name", MOTIONS)
def test_a_moved_box_has_the_moved_corners(name, some_boxes):
    move_points, move_boxes = MOTIONS[name]
    moved = move_boxes(some_boxes)
    for before, after in zip(geometry.corners(some_boxes), geometry.corners(moved), strict=True):
        np.testing.assert_allclose(sorted_rows(move_points(before)), sorted_rows(after), atol=1e-9)


@pytest.mark.parametrize("name", MOTIONS)
def test_a_moved_box_looks_the_moved_way(name, some_boxes):
    # Corner sets forget front and back: the direction from centre to front must move too.
    move_points, move_boxes = MOTIONS[name]
    front = geometry.corners(some_boxes)[:, [0, 3, 4, 7]].mean(1)
    np.testing.assert_allclose(
        move_points(front), geometry.corners(move_boxes(some_boxes))[:, [0, 3, 4, 7]].mean(1), atol=1e-9
    )


@pytest.mark.parametrize("name", MOTIONS)
def test_motions_leave_input_features_and_dtype_alone(name, some_boxes):
    move_points, move_boxes = MOTIONS[name]
    points = np.random.default_rng(1).uniform(size=(5, 5)).astype(np.float32)
    rows = some_boxes.astype(np.float32)
    before = points.copy(), rows.copy()
    moved_points, moved_boxes = move_points(points), move_boxes(rows)
    assert moved_points.dtype == moved_boxes.dtype == np.float32
    np.testing.assert_array_equal(moved_points[:, 3:], points[:, 3:])
    np.testing.assert_array_equal(points, before[0])
    np.testing.assert_array_equal(rows, before[1])
    assert move_boxes(rows[:0]).shape == (0, 7)


def test_box_frame_and_back(some_boxes):
    points = np.random.default_rng(2).uniform(-50, 50, (10, 4))
    for box in some_boxes:
        seen = geometry.to_box_frame(points, box)
        np.testing.assert_allclose(geometry.from_box_frame(seen, box), points, atol=1e-9)
        corner = geometry.corners(box[None])[0, :1]
        half = box[3:6] / 2 * [1, 1, -1]
        np.testing.assert_allclose(geometry.to_box_frame(corner, box)[0], half, atol=1e-9)


def test_enlarge_stops_at_zero():
    box = np.array([[1, 2, 3, 4, 2, 1, 0.5]])
    np.testing.assert_allclose(geometry.enlarge(box, 0.5), [[1, 2, 3, 4.5, 2.5, 1.5, 0.5]])
    np.testing.assert_allclose(geometry.enlarge(box, (-1, 0, -3)), [[1, 2, 3, 3, 2, 0, 0.5]])


@pytest.mark.parametrize("wrong", [np.zeros(7), np.zeros((2, 8)), np.zeros((2, 7), dtype=np.int64)])
def test_other_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected float \(N, 7\)"):
        geometry.mirror_boxes(wrong, "x")
