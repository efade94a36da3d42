"""KITTI's raw recordings: poses, times and tracklets of a drive that is known; and broken ones."""

import numpy as np
import pytest
import torch

from sparse3d.data.kitti_raw import KittiRawConfig, KittiRawDataset
from sparse3d.errors import DataError
from sparse3d.geometry.rigid import inverse, transform_points
from sparse3d.io.kitti_raw import read_times
from sparse3d_ops.boxes import points_per_box
from tests.data.kitti_raw_folder import CAR_SIZE, CAR_SPEED, LANDMARKS, car_at, velo_pose, write_kitti_raw

NAME = "2011_09_26_drive_0001"


@pytest.fixture
def root(tmp_path):
    return write_kitti_raw(tmp_path / "raw")


def dataset(root, split="all", augment=None, **changes):
    return KittiRawDataset(KittiRawConfig(root=str(root), **changes), split, augment)


def test_frames_in_order_with_poses_times_and_tracklets(root):
    data = dataset(root)
    assert data.sequences == {NAME: range(4)} and data.frame_ids[3] == f"{NAME}/0000000003"
    first = velo_pose(0)
    for index in range(4):
        frame = data[index]
        # The world is the first IMU, which looks along x.
        np.testing.assert_allclose(frame.extra["world_from_lidar"], velo_pose(index), atol=2e-4)
        np.testing.assert_allclose(frame.boxes[0, [0, 1, 2, 6]], car_at(index), atol=1e-4)
        np.testing.assert_allclose(frame.boxes[0, 3:6], CAR_SIZE, rtol=1e-6)
        inside = points_per_box(torch.from_numpy(frame.points[:, :3].copy()), torch.from_numpy(frame.boxes))
        assert inside.tolist() == [30]
        world = frame.extra["world_from_lidar"][:3, :2] @ frame.velocities[0]
        np.testing.assert_allclose(world[:2], CAR_SPEED[:2], atol=0.02)
        assert len(frame.extra["other_boxes"]) == (index == 2)
    times = [data[i].extra["timestamp"] for i in range(4)]
    np.testing.assert_allclose(np.diff(times), 0.1, atol=1e-6)
    assert abs(times[0] - 1317042145.951199337) < 1e-6 and first.shape == (4, 4)


def test_sweeps_agree_on_what_stands_still(root):
    frame = dataset(root, sweeps=4)[3]
    expected = transform_points(LANDMARKS, inverse(velo_pose(3)))
    for lag in np.unique(frame.points[:, 4]):
        sweep = frame.points[frame.points[:, 4] == lag]
        np.testing.assert_allclose(sweep[: len(LANDMARKS), :3], expected, atol=5e-4)
    assert len(np.unique(frame.points[:, 4])) == 4


def test_a_drive_without_tracklets_and_with_scans_missing_in_the_middle(tmp_path):
    root = write_kitti_raw(tmp_path / "raw", labelled=False)
    folder = root / "2011_09_26/2011_09_26_drive_0001_sync/velodyne_points"
    (folder / "data/0000000001.bin").unlink()
    lines = (folder / "timestamps.txt").read_text().splitlines()
    (folder / "timestamps.txt").write_text("\n".join([lines[0], "", *lines[2:]]))
    data = dataset(root, NAME)
    assert [i[-1] for i in data.frame_ids] == ["0", "2", "3"] and data[1].boxes.shape == (0, 7)
    with pytest.raises(DataError, match="no split or drive labelled; there are 'all'"):
        dataset(root, "labelled")


def test_times_by_hand(tmp_path):
    path = tmp_path / "timestamps.txt"
    path.write_text("1970-01-01 00:00:01.5\n\n1970-01-02 00:00:00.000000001\n1970-01-01 00:01:00\n")
    assert read_times(path) == [1_500_000_000, None, 86_400_000_000_001, 60_000_000_000]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("oxts/data/0000000001.txt", "49.0 8.4", "expected latitude, longitude, height"),
        ("oxts/data/0000000001.txt", "a b c d e f", "not an oxts file"),
        (
            "velodyne_points/timestamps.txt",
            "2011-09-26 13:02:25.9\nsoon\n",
            "timestamps.txt:2: 'soon' is not a time",
        ),
        ("velodyne_points/timestamps.txt", "2011-09-26 13:02:25.9\n", "no time of frame 1 and 2 others"),
        ("tracklet_labels.xml", "<boost_serialization><tracklets>", "tracklet_labels.xml: not whole XML"),
        (
            "tracklet_labels.xml",
            "<b><tracklets><item><h>x</h></item></tracklets></b>",
            "a tracklet's 'h' is 'x', expected a number",
        ),
        ("../calib_imu_to_velo.txt", "R: 1 0 0\n", "expected a line 'R:' of 9 numbers"),
        ("../calib_imu_to_velo.txt", "R: 1 0 0 0 1 0 0 0 2\nT: 0 0 0\n", "'R:' is not a rotation"),
    ],
)
def test_broken_files_are_named(root, name, text, message):
    (root / "2011_09_26/2011_09_26_drive_0001_sync" / name).write_text(text)
    with pytest.raises(DataError, match=message):
        dataset(root)


def test_a_truncated_scan_is_named(root):
    path = root / "2011_09_26/2011_09_26_drive_0001_sync/velodyne_points/data/0000000002.bin"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="0000000002.bin: .* are not whole points"):
        dataset(root)[2]
