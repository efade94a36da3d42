"""KITTI files and frames: hand-made calibrations, exact round trips, and the recorded frames where they are
at hand.
"""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparse3d.errors import DataError
from sparse3d.geometry.boxes import corners
from sparse3d.io.kitti import (
    KittiCalibration,
    KittiObjects,
    boxes_to_objects,
    camera_from_lidar,
    difficulty,
    image_boxes,
    in_image,
    lidar_from_camera,
    objects_to_boxes,
    parse_objects,
    project_to_image,
    read_calibration,
    read_objects,
    write_calibration,
    write_objects,
)
from sparse3d.io.points import read_points
from sparse3d_ops.boxes import points_per_box

SIZE = (1242, 375)

# Camera axes in the LiDAR's: right is -y, down is -z, forward is x.
AXES = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
PINHOLE = np.array([[700, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]], dtype=np.float64)
STRAIGHT = KittiCalibration(PINHOLE, np.eye(4), AXES)

CAR = "Car 0.00 0 -1.57 599.41 156.40 629.75 189.25 1.5 1.6 4.0 2.0 1.75 10.0 0.3"


def tilted(roll: float, pitch: float, shift: tuple[float, float, float]) -> KittiCalibration:
    """A camera that is mounted a little askew, with KITTI's offset of camera 2 in P2."""
    c, s = math.cos(roll), math.sin(roll)
    rectification = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    c, s = math.cos(pitch), math.sin(pitch)
    mount = np.array([[1, 0, 0, shift[0]], [0, c, -s, shift[1]], [0, s, c, shift[2]], [0, 0, 0, 1]]) @ AXES
    projection = PINHOLE.copy()
    projection[:, 3] = (45, -0.3, 0.005)
    return KittiCalibration(projection, rectification, mount)


def calibration_text(calibration: KittiCalibration, folder: Path) -> str:
    write_calibration(folder / "calib.txt", calibration)
    return (folder / "calib.txt").read_text()


# ---- calibration -------------------------------------------------------------------------------------------


def test_calibration_comes_back(tmp_path):
    expected = tilted(0.01, -0.02, (0.1, -0.08, -0.27))
    calibration_text(expected, tmp_path)
    got = read_calibration(tmp_path / "calib.txt")
    for name in ("projection_2", "rectification", "camera_from_lidar"):
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("key", ["P2", "R0_rect", "Tr_velo_to_cam"])
def test_a_missing_calibration_line_is_named(tmp_path, key):
    text = calibration_text(STRAIGHT, tmp_path)
    (tmp_path / "calib.txt").write_text("".join(x for x in text.splitlines(True) if not x.startswith(key)))
    with pytest.raises(DataError, match=f"calib.txt: no line '{key}:'"):
        read_calibration(tmp_path / "calib.txt")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("R0_rect: ", "R0_rect: 1.0 ", "calib.txt:5: R0_rect has 10 values, expected 9"),
        ("P2: 7", "P2: x7", "calib.txt:3: not a number"),
        ("P2: 7", "P2: nan ", "calib.txt:3: P2 has 13 values"),
        ("Tr_velo_to_cam: 0", "Tr_velo_to_cam: 3", "calib.txt:6: Tr_velo_to_cam is not a rotation"),
    ],
)
def test_a_malformed_calibration_line_is_named(tmp_path, old, new, message):
    text = calibration_text(STRAIGHT, tmp_path)
    (tmp_path / "calib.txt").write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_calibration(tmp_path / "calib.txt")


def test_binary_calibration_is_a_data_error(tmp_path):
    (tmp_path / "calib.txt").write_bytes(b"P0: 1\n\xff\xfe")
    with pytest.raises(DataError, match="byte 6 is not UTF-8"):
        read_calibration(tmp_path / "calib.txt")


# ---- labels and results ------------------------------------------------------------------------------------


def test_labels_have_score_one_and_results_their_own():
    got = parse_objects(f"{CAR}\n\n{CAR} 0.25\n", "x.txt")
    assert got.names.tolist() == ["Car", "Car"]
    assert got.scores.tolist() == [1, 0.25]
    assert got.dimensions[0].tolist() == [1.5, 1.6, 4.0]
    assert got.locations[0].tolist() == [2.0, 1.75, 10.0]
    assert got.boxes_image[0].tolist() == [599.41, 156.40, 629.75, 189.25]
    assert (got.rotation_y[0], got.alpha[0], got.occluded[0], got.truncated[0]) == (0.3, -1.57, 0, 0)


def test_an_empty_label_file_holds_no_objects(tmp_path):
    (tmp_path / "a.txt").write_text("")
    got = read_objects(tmp_path / "a.txt")
    assert len(got) == 0
    assert objects_to_boxes(got, STRAIGHT).shape == (0, 7)
    assert boxes_to_objects(np.zeros((0, 7)), got.names, got.scores, STRAIGHT, SIZE).boxes_image.shape == (
        0,
        4,
    )
    assert difficulty(got).shape == (0,)


@pytest.mark.parametrize(
    "line, message",
    [
        (CAR.rpartition(" ")[0], "14 columns; expected 15 .* or 16 with a score"),
        (CAR + " 0.5 1", "17 columns"),
        (CAR.replace("4.0", "four"), "not a number: 'four'"),
        (CAR.replace("4.0", "nan"), "a value is not finite"),
        (CAR.replace("4.0", "1e300"), ".* beyond 1e9"),
        ("<html>", "1 columns"),
    ],
)
def test_garbage_lines_are_named_by_path_and_line(line, message):
    with pytest.raises(DataError, match=rf"^labels/000007.txt:2: {message}"):
        parse_objects(f"{CAR}\n{line}\n", "labels/000007.txt")


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="Car 0123456789.-e\n\tnaif", max_size=200))
def test_any_text_gives_objects_or_a_data_error(text):
    try:
        parse_objects(text, "x.txt")
    except DataError as error:
        assert re.match(r"x.txt:\d+: ", str(error))


@pytest.mark.parametrize("with_scores", [True, False])
def test_written_objects_come_back_to_half_a_unit_of_the_last_digit(tmp_path, with_scores):
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 20)
    names = rng.choice(["Car", "Pedestrian"], 20)
    objects = boxes_to_objects(boxes, names, rng.random(20), STRAIGHT, SIZE)
    write_objects(tmp_path / "a.txt", objects, with_scores)
    got = read_objects(tmp_path / "a.txt")
    assert got.names.tolist() == names.tolist()
    for name in ("alpha", "boxes_image", "dimensions", "locations", "rotation_y"):
        np.testing.assert_allclose(getattr(got, name), getattr(objects, name), atol=0.5001e-4, rtol=0)
    np.testing.assert_allclose(got.scores, objects.scores if with_scores else 1.0, atol=0.5001e-6)
    columns = {len(line.split()) for line in (tmp_path / "a.txt").read_text().splitlines()}
    assert columns == {16 if with_scores else 15}


def rated(height: float, occluded: int, truncated: float, name: str = "Car") -> str:
    return f"{name} {truncated} {occluded} 0 10 10 20 {10 + height} 1 1 1 0 0 9 0"


def test_difficulty_at_its_limits():
    rows = {
        rated(40, 0, 0.15): 0,
        rated(39.9, 0, 0.15): 1,
        rated(40, 1, 0.15): 1,
        rated(40, 0, 0.16): 1,
        rated(25, 1, 0.30): 1,
        rated(25, 2, 0.30): 2,
        rated(25, 1, 0.31): 2,
        rated(25, 2, 0.50): 2,
        rated(24.9, 0, 0): -1,
        rated(90, 3, 0): -1,
        rated(90, 0, 0.51): -1,
        rated(90, -1, -1, "DontCare"): -1,
    }
    assert difficulty(parse_objects("\n".join(rows), "x.txt")).tolist() == list(rows.values())


# ---- geometry ----------------------------------------------------------------------------------------------


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    centre = rng.uniform((5, -15, -2), (60, 15, 1), (count, 3))
    return np.column_stack([centre, rng.uniform(0.4, 5, (count, 3)), rng.uniform(-np.pi, np.pi, count)])


@pytest.mark.parametrize(
    "rotation_y, yaw", [(0, -math.pi / 2), (-math.pi / 2, 0), (math.pi / 2, -math.pi), (1, -2.5708)]
)
def test_a_box_by_hand_for_a_camera_without_tilt(rotation_y, yaw):
    """Ten metres ahead, two to the right, standing 1.75 below the camera: the centre is half a height
    higher.
    """
    objects = parse_objects(CAR.rpartition(" ")[0] + f" {rotation_y}", "x.txt")
    box = objects_to_boxes(objects, STRAIGHT)[0]
    np.testing.assert_allclose(box[:6], [10, -2, -1, 4.0, 1.6, 1.5], atol=1e-12)
    assert math.cos(box[6] - yaw) == pytest.approx(1, abs=1e-8)


def test_projection_by_hand():
    points = np.array([[10, 0, 0], [10, -1, 0], [20, 0, -2], [-5, 0, 0], [0, 0, 0]], dtype=np.float64)
    np.testing.assert_allclose(
        project_to_image(points, STRAIGHT),
        [[600, 180], [670, 180], [600, 250], [np.nan, np.nan], [np.nan, np.nan]],
        atol=1e-9,
    )
    assert in_image(points, STRAIGHT, (660, 240)).tolist() == [True, False, False, False, False]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_boxes_to_objects_and_back_is_exact(seed, roll, pitch):
    boxes = random_boxes(np.random.default_rng(seed), 5)
    calibration = tilted(roll, pitch, (0.1, -0.08, -0.27))
    objects = boxes_to_objects(boxes, np.full(5, "Car"), np.ones(5), calibration, SIZE)
    back = objects_to_boxes(objects, calibration)
    # 1e-4 is what KITTI's own files hold; the maths keeps far more.
    np.testing.assert_allclose(back[:, :6], boxes[:, :6], atol=1e-9)
    np.testing.assert_allclose(np.cos(back[:, 6] - boxes[:, 6]), 1, atol=1e-9)
    points = boxes[:, :3]
    np.testing.assert_allclose(
        lidar_from_camera(camera_from_lidar(points, calibration), calibration), points, atol=1e-9
    )


def test_heading_points_from_the_centre_to_the_front():
    """The camera heading of an object is (cos ry, 0, -sin ry); with a tilt its yaw is still what is seen from
    above.
    """
    calibration = tilted(0.05, 0.04, (0, 0, 0))
    objects = parse_objects(CAR, "x.txt")
    heading = np.array([math.cos(0.3), 0, -math.sin(0.3)])
    middle = objects.locations[0] - [0, 0.75, 0]
    front = lidar_from_camera(middle + heading, calibration) - lidar_from_camera(middle, calibration)
    assert objects_to_boxes(objects, calibration)[0, 6] == pytest.approx(math.atan2(front[1], front[0]))


def test_image_box_bounds_the_corners_of_a_box_in_full_view():
    calibration = tilted(0.01, 0.02, (0, -0.08, -0.27))
    boxes = np.array([[20, 1, -0.5, 4, 1.6, 1.5, 0.3]])
    pixels = project_to_image(corners(boxes)[0], calibration)
    np.testing.assert_allclose(
        image_boxes(boxes, calibration, SIZE)[0], [*pixels.min(axis=0), *pixels.max(axis=0)], atol=1e-9
    )


def test_image_box_of_a_box_around_the_camera_is_what_is_in_front_of_it():
    """Half of it behind: the near plane cuts it, and what is left fills the image from its middle down and
    right.
    """
    box = np.array([[0, -5, -5, 20, 9.9, 9.9, 0]], dtype=np.float64)
    left, top, right, bottom = image_boxes(box, STRAIGHT, SIZE)[0]
    # The box ends 0.05 m right of and below the axis; at its far end, 10 m ahead, that is 3.5 pixels.
    np.testing.assert_allclose([left, top, right, bottom], [603.5, 183.5, 1241, 374], atol=1e-9)


@pytest.mark.parametrize("box", [[-20, 0, 0, 4, 2, 2, 0], [10, 60, 0, 4, 2, 2, 0]])
def test_image_box_out_of_view_has_no_area(box):
    assert image_boxes(np.array([box], dtype=np.float64), STRAIGHT, SIZE).tolist() == [[0, 0, 0, 0]]


# ---- recorded frames ---------------------------------------------------------------------------------------


def load(root: Path, frame_id: str) -> tuple[np.ndarray, KittiCalibration, KittiObjects, tuple[int, int]]:
    folder = root / "kitti" / "training"
    with Image.open(folder / "image_2" / f"{frame_id}.png") as image:
        size = image.size
    objects = read_objects(folder / "label_2" / f"{frame_id}.txt")
    return (
        read_points(folder / "velodyne" / f"{frame_id}.bin"),
        read_calibration(folder / "calib" / f"{frame_id}.txt"),
        objects.select(objects.names != "DontCare"),
        size,
    )


# Counts from the data's own README, found with boxes upright in the camera frame; ours stand upright in the
# LiDAR's.
COUNTS = {"000000": {"Pedestrian": 376}, "000001": {"Truck": 70, "Car": 9, "Cyclist": 18}}


@pytest.mark.parametrize("frame_id", COUNTS)
def test_recorded_boxes_hold_the_recorded_points(real_data, frame_id):
    points, calibration, objects, _ = load(real_data, frame_id)
    boxes = torch.from_numpy(objects_to_boxes(objects, calibration).astype(np.float32))
    counts = points_per_box(torch.from_numpy(points[:, :3].copy()), boxes)
    for name, count in zip(objects.names, counts.tolist(), strict=True):
        assert abs(count - COUNTS[frame_id][str(name)]) <= 2


@pytest.mark.parametrize("frame_id, pixels", [("000001", 0.5), ("000003", 2)])
def test_recorded_boxes_project_onto_their_image_boxes(real_data, frame_id, pixels):
    _, calibration, objects, size = load(real_data, frame_id)
    boxes = objects_to_boxes(objects, calibration)
    back = boxes_to_objects(boxes, objects.names, objects.scores, calibration, size)
    np.testing.assert_allclose(back.boxes_image, objects.boxes_image, atol=pixels)
    np.testing.assert_allclose(back.locations, objects.locations, atol=1e-4)
    np.testing.assert_allclose(back.rotation_y, objects.rotation_y, atol=1e-4)
    # Labels are rounded to two decimals, from which alpha was computed before.
    np.testing.assert_allclose(back.alpha, objects.alpha, atol=0.011)


def test_a_truncated_recorded_scan_is_a_data_error(real_data, tmp_path):
    source = real_data / "kitti" / "training" / "velodyne" / "000000.bin"
    shutil.copyfile(source, tmp_path / "cut.bin")
    with open(tmp_path / "cut.bin", "rb+") as file:
        file.truncate(4 * 1001 + 3)
    with pytest.raises(DataError, match="4007 bytes are not whole points"):
        read_points(tmp_path / "cut.bin")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_in_image_is_projection_and_comparison(seed, roll, pitch):
    calibration = tilted(roll, pitch, (0.1, -0.08, -0.27))
    points = np.random.default_rng(seed).uniform((-5, -20, -3), (30, 20, 2), (200, 3)).astype(np.float32)
    pixels = project_to_image(points, calibration)
    expected = np.nan_to_num((pixels >= 0) & (pixels < SIZE)).all(axis=1)
    assert 0 < expected.sum() < 200
    np.testing.assert_array_equal(in_image(points, calibration, SIZE), expected)
