"""Pictures in perspective: every point where geometry puts it, near things before far ones."""

import math

import numpy as np
import pytest

from sparse3d.viewers.colors import class_color
from sparse3d.viewers.perspective import Camera, draw_scene
from sparse3d.viewers.scene import TRUTH_COLOR, Boxes, Scene, box_lines

FRONT = Camera(eye=(0, 0, 0), target=(10, 0, 0), field_of_view=90, size=(200, 100))
LARGE = Camera(eye=(0, 0, 0), target=(10, 0, 0), field_of_view=90, size=(800, 600))  # legend far below
CAR = np.array([[12.0, 1.0, -1.0, 4.0, 2.0, 1.5, 0.0]])


def cloud(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def pixels(scene, camera=FRONT, **options):
    return np.asarray(draw_scene(scene, camera=camera, **options)).astype(int)


def bright(picture):
    """(H, W) where something colourful stands; rings and background are dark."""
    return picture.max(axis=2) > 90


@pytest.mark.parametrize(
    ("point", "column", "row"),
    [
        # 90 degrees across 200 pixels: a tangent of 1 is 100 pixels.
        ((10, 0, 0), 100, 50),
        ((10, 5, 0), 50, 50),  # y is to the left
        ((10, -5, 0), 150, 50),
        ((10, 0, 2), 100, 30),  # z is up
        ((20, -5, -4), 125, 70),
    ],
)
def test_a_point_stands_where_its_tangents_say(point, column, row):
    assert FRONT.to_pixels(FRONT.to_camera(np.array(point, float))) == pytest.approx([column, row])
    at = np.argwhere(bright(pixels(Scene("", cloud((*point, 1.0))), point_size=0.5)))
    # The middle of its square, up to half a pixel of rounding each way.
    assert len(at) and np.abs(at.mean(axis=0) + 0.5 - (row, column)).max() <= 1.0


def test_turning_the_camera_turns_the_picture():
    """Looked at from the right, what lies ahead is on the right, and what lies behind on the left."""
    side = Camera(eye=(0, -20, 0), target=(0, 0, 0), field_of_view=90, size=(200, 100))
    assert side.to_pixels(side.to_camera(np.array([5.0, 0, 0]))) == pytest.approx([125, 50])
    assert side.to_pixels(side.to_camera(np.array([-5.0, 0, 3.0]))) == pytest.approx([75, 35])


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_nearer_point_hides_the_farther_one(order):
    """Intensities 0 and 1 of a third and a fourth point span the colours."""
    points = cloud((10, 0, 0, 0.0), (20, 0, 0, 1.0))[order]
    (shown,) = np.unique(pixels(Scene("", points), color_by="intensity", point_size=0.5)[50:51, 100], axis=0)
    alone = pixels(Scene("", cloud((10, 0, 0, 0.0), (10, 8, 0, 1.0))), color_by="intensity", point_size=0.5)
    assert shown.tolist() == alone[50, 100].tolist()


def test_what_is_behind_the_eye_or_not_finite_is_not_drawn():
    empty = pixels(Scene("", cloud()))
    assert not bright(empty).any()
    for row in ((-10, 0, 0, 1), (0, 0, 0, 1), (np.nan, 0, 0, 1), (10, np.inf, 0, 1)):
        assert not bright(pixels(Scene("", cloud(row)))).any()
    behind = Boxes(CAR * [-1, 1, 1, 1, 1, 1, 1], np.zeros(1, int))
    assert not bright(pixels(Scene("", cloud(), found=behind, box_classes=("Car",)))[:60]).any()


def test_the_corners_of_a_box_are_on_its_lines_and_its_heading_leads_ahead():
    found = Boxes(CAR, np.zeros(1, int))
    picture = pixels(Scene("", cloud(), found=found, box_classes=("Car",)), LARGE)
    for corner in ([10, 2, -0.25], [10, 0, -0.25], [10, 2, -1.75], [14, 0, -1.75], [14, 2, -0.25]):
        column, row = np.floor(LARGE.to_pixels(LARGE.to_camera(np.array(corner, float)))).astype(int)
        around = picture[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3)
        assert (np.abs(around - class_color(0)).max(axis=1) < 90).any(), corner
    lines = box_lines(CAR)
    assert lines.shape == (1, 13, 2, 3)
    assert lines[0, 12].tolist() == [[12.0, 1.0, -1.75], [15.0, 1.0, -1.75]]
    lengths = np.linalg.norm(lines[0, :12, 0] - lines[0, :12, 1], axis=1)
    assert sorted(lengths) == pytest.approx([1.5] * 4 + [2.0] * 4 + [4.0] * 4)


def test_a_box_that_passes_the_eye_is_cut_there():
    """Its far end is before the eye, its near end behind it."""
    around = Boxes(np.array([[0.0, 0.0, 0.0, 20.0, 4.0, 2.0, 0.0]]), np.zeros(1, int))
    picture = pixels(Scene("", cloud(), found=around, box_classes=("Car",)), LARGE)
    # The far face at 10 m: corners at tangents of 0.2 and 0.1.
    assert (np.abs(picture[280:320, 319:322] - class_color(0)).max(axis=2) < 90).any()


def test_a_wall_of_points_makes_the_box_behind_it_faint():
    wall = np.array(
        [(8, y, z, 0) for y in np.arange(-3, 3, 0.05) for z in np.arange(-3, 3, 0.05)], np.float32
    )
    found = Boxes(np.array([[12.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0]]), np.zeros(1, int))

    def alike(points):
        """How many pixels have the colour of the box."""
        scene = Scene("", points, found=found, box_classes=("Car",))
        return (np.abs(pixels(scene, LARGE, point_size=0.12)[:500] - class_color(0)).max(axis=2) < 60).sum()

    whole = alike(cloud())
    assert whole > 500 and alike(wall) < 0.1 * whole
    assert alike(wall + [10, 0, 0, 0]) > 0.8 * whole, "a wall behind it hides nothing"


def test_labelled_boxes_come_and_go():
    scene = Scene("", cloud(), truth=Boxes(CAR, np.zeros(1, int)), box_classes=("Car",))
    with_it, without = (pixels(scene, truth=truth) for truth in (True, False))
    assert (np.abs(with_it - TRUTH_COLOR).max(axis=2) < 40).any() and not bright(without[:60]).any()


def test_classes_have_the_colours_of_the_legend():
    points = cloud((10, 3, 0, 0), (10, -3, 0, 0))
    scene = Scene("", points, np.array([0, -1]), ("car", "road"))
    assert scene.colors("class").tolist() == [[80, 160, 255], [70, 74, 86]]
    assert [row.text for row in scene.legend("class")] == ["car"]
    assert scene.colorings == ("class", "height", "intensity")
    assert Scene("", points[:, :3]).colorings == ("height",)
    with pytest.raises(ValueError, match="points have no class; colour them by height or intensity"):
        Scene("x", points).colors("class")


def test_one_point_far_away_does_not_take_all_the_colours():
    heights = np.linspace(0, 1, 1000)
    points = np.stack([heights, heights, heights], axis=1)
    far = np.concatenate([points, [[0, 0, 1e6]]])
    assert (
        np.abs(Scene("", far).colors("height")[:-1].astype(int) - Scene("", points).colors("height")).max()
        < 12
    )


def test_the_same_scene_is_the_same_picture():
    rng = np.random.default_rng(0)
    points = rng.uniform([1, -10, -2, 0], [40, 10, 2, 1], (5000, 4)).astype(np.float32)
    scene = Scene("a", points, found=Boxes(CAR, np.zeros(1, int), np.array([0.5])), box_classes=("Car",))
    assert np.array_equal(pixels(scene), pixels(scene))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Camera(field_of_view=180), "field_of_view must lie in"),
        (lambda: Camera(eye=(0, 0, 5), target=(0, 0, 0)), "straight up or down"),
        (lambda: Scene("", np.zeros((3, 2))), r"points are \(3, 2\)"),
        (lambda: Scene("", np.zeros((3, 4)), np.zeros(2)), r"\(2,\) labels for 3 points"),
        (lambda: Boxes(np.zeros((2, 7)), np.zeros(1)), r"\(2, 7\) boxes"),
    ],
)
def test_what_cannot_be_shown_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_field_of_view_is_that_of_the_width():
    camera = Camera(eye=(0, 0, 0), target=(1, 0, 0), field_of_view=60, size=(300, 100))
    edge = camera.to_pixels(camera.to_camera(np.array([1.0, math.tan(math.radians(30)), 0.0])))
    assert edge == pytest.approx([0.0, 50.0])
