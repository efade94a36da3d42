"""Argoverse 2: frames of a log whose geometry is known, of a recorded one, and broken logs."""

import numpy as np
import pytest
import torch

from sparse3d.data.argoverse2 import CLASSES, Argoverse2Config, Argoverse2Dataset
from sparse3d.data.augment import AugmentConfig
from sparse3d.errors import DataError, MissingExtraError
from sparse3d.geometry.rigid import inverse, transform_points
from sparse3d_ops.boxes import points_per_box
from tests.data.argoverse2_folder import (
    LANDMARKS,
    SIZES,
    SPEED,
    TIMES,
    WORLD,
    centres_at,
    pose_at,
    write_argoverse2,
    write_feather,
)

pytest.importorskip("pyarrow")


@pytest.fixture
def root(tmp_path):
    return write_argoverse2(tmp_path / "argoverse2")


def dataset(root, split="val", augment=None, **changes):
    return Argoverse2Dataset(Argoverse2Config(root=str(root), **changes), split, augment)


def counts(frame):
    return points_per_box(torch.from_numpy(frame.points[:, :3].copy()), torch.from_numpy(frame.boxes)).numpy()


def test_the_26_classes():
    assert len(CLASSES) == len(set(CLASSES)) == 26


def test_boxes_points_poses_and_velocities(root):
    data = dataset(root)
    assert len(data) == 8 and data.sequences == {"log-a": range(4), "log-b": range(4, 8)}
    for index in range(4):
        frame, seconds = data[index], float(TIMES[index] - TIMES[0]) * 1e-9
        assert frame.frame_id == f"log-a/{TIMES[index]}" and frame.points.shape[1] == 4
        assert sorted(data.class_names[i] for i in frame.labels) == ["PEDESTRIAN", "REGULAR_VEHICLE"]
        order = np.argsort(frame.labels)  # the car first
        assert counts(frame).tolist() == frame.box_info["points"].tolist() == [25, 25]
        np.testing.assert_allclose(frame.boxes[order, 3:6], SIZES[:2], rtol=1e-6)
        np.testing.assert_allclose(frame.boxes[:, 6], 0, atol=1e-6)
        np.testing.assert_allclose(frame.extra["world_from_lidar"], pose_at(seconds), atol=1e-6)
        city = transform_points(frame.boxes[order, :3].astype(np.float64), pose_at(seconds))
        np.testing.assert_allclose(city, centres_at(seconds)[:2], atol=1e-4)
        np.testing.assert_allclose(frame.velocities[order], SPEED[:2, :2], atol=0.02)
        assert frame.extra["other_categories"].tolist() == ["ANIMAL"]
        assert frame.points[0, 3] == np.float32(0.2)
        assert abs(frame.extra["timestamp"] - TIMES[index] * 1e-9) < 1e-6


def test_sweeps_agree_on_what_stands_still(root):
    frame = dataset(root, sweeps=3)[3]
    lags = np.unique(frame.points[:, 4])
    np.testing.assert_allclose(lags, [0, 0.0999, 0.2002], atol=1e-6)
    expected = transform_points(transform_points(LANDMARKS, WORLD), inverse(frame.extra["world_from_lidar"]))
    for lag in lags:
        sweep = frame.points[frame.points[:, 4] == lag][: len(LANDMARKS), :3]
        np.testing.assert_allclose(sweep, expected, atol=0.03)  # half floats: 1.6 cm at 30 m


def test_the_test_split_has_no_labels_and_a_log_is_a_split(root):
    (root / "val").rename(root / "test")
    for path in root.glob("test/*/annotations.feather"):
        path.unlink()
    data = dataset(root, "test")
    assert len(data) == 8 and data[0].boxes.shape == (0, 7) and len(data[0].points)
    assert dataset(root, "log-b").sequences == {"log-b": range(4)}
    assert len(dataset(root, "log-b", AugmentConfig(), every=3)) == 2


def test_missing_scans_are_named_or_skipped(root):
    scan = root / "val/log-a/sensors/lidar" / f"{TIMES[1]}.feather"
    scan.unlink()
    with pytest.raises(DataError, match=f"1 of 8 frames of 'val' lack files: val/log-a/.*{TIMES[1]}"):
        dataset(root)
    data = dataset(root, skip_missing=True, sweeps=4)
    assert len(data) == 7
    assert len(np.unique(data[2].points[:, 4])) == 3


def damaged(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_column(path):
    write_feather(path, {"timestamp_ns": [1], "x": [1.0]})


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("annotations.feather", damaged, "annotations.feather: not a whole feather file"),
        (
            "annotations.feather",
            without_column,
            "annotations.feather: no column num_interior_pts, track_uuid",
        ),
        ("city_SE3_egovehicle.feather", damaged, "egovehicle.feather: not a whole feather file"),
        ("city_SE3_egovehicle.feather", lambda path: path.unlink(), "egovehicle.feather: no such file"),
    ],
)
def test_broken_tables_are_named(root, name, damage, message):
    damage(root / "val/log-a" / name)
    with pytest.raises(DataError, match=message):
        dataset(root)


def test_broken_scans_are_named_when_they_are_read(root):
    scan = root / "val/log-a/sensors/lidar" / f"{TIMES[1]}.feather"
    data = dataset(root)
    damaged(scan)
    assert len(data[0].points)
    with pytest.raises(DataError, match=f"{TIMES[1]}.feather: not a whole feather file"):
        data[1]


def test_a_time_without_a_pose(root):
    path = root / "val/log-b/city_SE3_egovehicle.feather"
    quaternion = {name: [value] for name, value in zip(("qw", "qx", "qy", "qz"), (1.0, 0, 0, 0), strict=True)}
    place = {name: [0.0] for name in ("tx_m", "ty_m", "tz_m")}
    write_feather(path, {"timestamp_ns": [int(TIMES[0])], **quaternion, **place})
    with pytest.raises(DataError, match=f"no pose at {TIMES[1]} and 2 other times"):
        dataset(root)
    write_feather(
        path, {"timestamp_ns": TIMES, **{k: v * 4 for k, v in (quaternion | place).items()}, "qw": [0.0] * 4}
    )
    with pytest.raises(DataError, match="length 0"):
        dataset(root)


def test_unknown_splits_say_what_is_there(root):
    with pytest.raises(DataError, match=r"no such split or log \(train\); .* has val"):
        dataset(root, "train")


def test_without_pyarrow_the_error_says_what_to_install(root, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.feather", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sparse3d\[datasets\]'"):
        dataset(root)


def test_a_recorded_log(real_data, tmp_path):
    data = dataset(real_data / "av2_sceneflow", skip_missing=True, cache_dir=str(tmp_path))
    assert len(data) == 2
    for frame in (data[0], data[1]):
        assert len(frame.boxes) == 81 and len(frame.points) > 99_000
        np.testing.assert_array_equal(counts(frame), frame.box_info["points"])
        assert np.isfinite(frame.velocities).mean() > 0.9
        assert np.nanmax(np.abs(frame.velocities)) < 30
