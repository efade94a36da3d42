"""Waymo: range images whose points are known, labels, and broken files."""

import numpy as np
import pytest

from sparse3d.data.augment import AugmentConfig
from sparse3d.data.waymo import WaymoConfig, WaymoDataset, points_file
from sparse3d.errors import DataError
from tests.data.waymo_folder import (
    BOX_SPEED,
    COLUMNS,
    FRONT,
    INCLINATIONS,
    NAME,
    SPEED,
    TIMES,
    TOP_HEIGHT,
    WALL,
    WORLD,
    delay,
    pose_at,
    write_waymo,
)

pytest.importorskip("pyarrow")


@pytest.fixture
def root(tmp_path):
    return write_waymo(tmp_path / "waymo")


def dataset(root, split="train", augment=None, lasers=("TOP",), **changes):
    return WaymoDataset(WaymoConfig(root=str(root), lasers=lasers, **changes), split, augment)


def test_points_of_the_top_laser_are_the_ground_and_the_wall(root):
    frame = dataset(root)[1]
    assert frame.points.shape == (16 * COLUMNS - 1, 5), "a pixel without a return is no point"
    assert (frame.points[:, 3] == np.tanh(np.float32(0.5))).all() and (frame.points[:, 4] == 0.25).all()
    kept = np.ones((16, COLUMNS), dtype=bool)
    kept[3, 10] = False
    column = np.nonzero(kept)[1]
    row = np.nonzero(kept)[0]
    # Columns were taken while the vehicle drove on: each sees the world from a place of its own.
    centre_x = 1.43 + SPEED * np.array([delay(c) for c in column])
    from_laser = frame.points[:, :3].astype(np.float64) - np.stack(
        [centre_x, np.zeros(len(row)), np.full(len(row), TOP_HEIGHT)], axis=1
    )
    # The first column looks back and a little left, the middle one forward, the last back and right.
    azimuth = np.arctan2(from_laser[:, 1], from_laser[:, 0])
    np.testing.assert_allclose(azimuth, np.pi * (1 - 2 * (column + 0.5) / COLUMNS), atol=1e-4)
    inclination = INCLINATIONS[::-1][row]
    down = np.where(inclination < 0, TOP_HEIGHT / np.tan(-np.minimum(inclination, -1e-9)), np.inf)
    ground = down < WALL
    assert 0 < ground.sum() < len(ground)
    flat = np.hypot(from_laser[:, 0], from_laser[:, 1])
    np.testing.assert_allclose(frame.points[ground, 2], 0, atol=1e-4)
    np.testing.assert_allclose(flat, np.minimum(down, WALL), atol=2e-4)


def test_the_front_laser_has_evenly_spread_beams_and_no_poses(root):
    frame = dataset(root, lasers=("FRONT",))[0]
    inclination, azimuth = 0.4 - 0.8 * 2.5 / 8, np.pi * (1 - 2 * 5.5 / 20)
    flat = 9 * np.cos(inclination)
    expected = [flat * np.cos(azimuth), flat * np.sin(azimuth), 9 * np.sin(inclination)] + FRONT[:3, 3]
    np.testing.assert_allclose(frame.points[:, :3], [expected], atol=1e-5)
    assert frame.points[0, 3] == np.tanh(np.float32(2))


def test_lasers_follow_each_other_and_empty_second_returns_add_nothing(root):
    both = dataset(root, lasers=("FRONT", "TOP"))[2]
    np.testing.assert_array_equal(both.points[1:], dataset(root, returns=1)[2].points)


def test_boxes_velocities_tracks_and_levels(root):
    data = dataset(root)
    assert data.sequences == {NAME: range(3)} and data.frame_ids[2] == f"{NAME}/{TIMES[2]}"
    for index, seconds in enumerate((0.0, 0.1, 0.2)):
        frame = data[index]
        assert [data.class_names[i] for i in frame.labels] == ["Vehicle", "Cyclist"]
        np.testing.assert_allclose(frame.extra["world_from_lidar"], pose_at(seconds), atol=1e-9)
        in_vehicle = WORLD[:2, :2].T @ BOX_SPEED
        np.testing.assert_allclose(frame.velocities, [in_vehicle, [0, 0]], atol=1e-6)
        expected = np.array([12, 4]) + seconds * (in_vehicle - [SPEED, 0])
        np.testing.assert_allclose(frame.boxes[0, :2], expected, atol=1e-4)
        np.testing.assert_allclose(frame.boxes[:, 3:], [[4.6, 2, 1.6, 0.3], [1.8, 0.6, 1.7, -2]], rtol=1e-6)
        assert frame.box_info["difficulty"].tolist() == [-1, 2]
        assert frame.box_info["points"].tolist() == [120, 3]
        assert frame.extra["other_categories"].tolist() == ["Sign"]
    assert data[0].box_info["track"].tolist() == data[2].box_info["track"].tolist()


def test_sweeps_are_moved_with_the_vehicle(root):
    frame = dataset(root, sweeps=3)[2]
    one = dataset(root)[2].points
    lags = np.unique(frame.points[:, 5])
    np.testing.assert_allclose(lags, [0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_array_equal(frame.points[frame.points[:, 5] == 0][:, :5], one)
    # The made-up wall moves with the vehicle: an older scan of it lies back by the way driven.
    old = frame.points[frame.points[:, 5] == lags[1]]
    np.testing.assert_allclose(old[:, 0], one[:, 0] - 1.0, atol=1e-3)


def test_decoded_points_are_read_in_place_of_the_images(root):
    for laser in ("SIDE_LEFT", "SIDE_RIGHT", "REAR"):
        with pytest.raises(DataError, match=f"lidar/{NAME}.parquet: no laser {laser} in the frame"):
            dataset(root, lasers=(laser,))[0]
    points = np.arange(20, dtype="<f4").reshape(4, 5)
    path = points_file(root / "training", NAME, int(TIMES[0]))
    path.parent.mkdir(parents=True)
    path.write_bytes(points.tobytes())
    everything = WaymoDataset(WaymoConfig(root=str(root)), "train")
    np.testing.assert_array_equal(everything[0].points, points)
    assert len(dataset(root)[0].points) > 4, "they hold all lasers"
    path.write_bytes(points.tobytes()[:-1])
    with pytest.raises(DataError, match=".bin: 79 bytes are not whole points"):
        everything[0]


def test_the_test_split_has_no_labels_and_a_segment_is_a_split(root):
    (root / "training").rename(root / "testing")
    for path in (root / "testing/lidar_box").iterdir():
        path.unlink()
    (root / "testing/lidar_box").rmdir()
    assert dataset(root, "test")[0].boxes.shape == (0, 7)
    assert len(dataset(root, NAME, AugmentConfig(), every=2)) == 2
    with pytest.raises(DataError, match=r"no such split or segment \(val\); .* has testing"):
        dataset(root, "val")


def test_missing_components_are_named(root):
    (root / f"training/lidar/{NAME}.parquet").unlink()
    with pytest.raises(DataError, match="3 of 3 frames of 'train' lack files: training/"):
        dataset(root)


@pytest.mark.parametrize(
    "component", ["vehicle_pose", "lidar_box", "lidar", "lidar_pose", "lidar_calibration"]
)
def test_broken_components_are_named(root, component):
    path = root / f"training/{component}/{NAME}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{component}/{NAME}.parquet: not a whole parquet file"):
        dataset(root)[0]


def test_a_component_with_other_columns_is_named(root):
    box = root / f"training/lidar_box/{NAME}.parquet"
    box.write_bytes((root / f"training/vehicle_pose/{NAME}.parquet").read_bytes())
    with pytest.raises(
        DataError, match=r"lidar_box/.*: no column key.laser_object_id, \[LiDARBoxComponent\]"
    ):
        dataset(root)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="lasers must be names"):
        WaymoConfig(lasers=())
    with pytest.raises(ValueError, match="returns must be 1 or 2"):
        WaymoConfig(returns=3)
