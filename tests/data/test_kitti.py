"""The KITTI data set: what frames hold, what is cropped, and what it says of folders that are not whole."""

import json
import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from sparse3d.data.augment import AugmentConfig, PointShuffle, RandomFlip, RandomRotation
from sparse3d.data.kitti import KittiDataset, KittiDatasetConfig
from sparse3d.data.kitti_check import check_kitti
from sparse3d.data.kitti_index import index_path
from sparse3d.errors import DataError
from sparse3d.io.kitti import in_image
from sparse3d.io.points import read_points, write_points
from sparse3d_ops.boxes import points_per_box
from tests.data.kitti_folder import write_folder


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "kitti")


def dataset(root, split="train", augment=None, **changes):
    return KittiDataset(KittiDatasetConfig(root=str(root), **changes), split, augment)


def test_a_frame_has_its_boxes_labels_and_scene(root):
    data = dataset(root)
    frame = data[1]
    assert (len(data), data.frame_ids[1], frame.frame_id) == (4, "000001", "000001")
    assert [data.class_names[i] for i in frame.labels] == ["Car", "Car", "Pedestrian"]
    assert frame.points.dtype == frame.boxes.dtype == np.float32 and frame.labels.dtype == np.int64
    assert frame.extra["objects"].names.tolist() == ["Car", "Car", "Pedestrian", "Van", "DontCare"]
    assert frame.box_info["occlusion"].tolist() == [0, 1, 2]
    assert frame.extra["image_size"] == (1242, 375)
    counts = points_per_box(torch.from_numpy(frame.points[:, :3].copy()), torch.from_numpy(frame.boxes))
    assert counts.tolist() == [30, 30, 30]


def test_classes_choose_and_number_the_boxes(root):
    frame = dataset(root, classes=("Van", "Car"))[0]
    assert frame.labels.tolist() == [1, 1, 0]


def test_camera_view_keeps_exactly_the_points_in_the_image(root):
    raw, seen = dataset(root).frame(0), dataset(root)[0]
    mask = in_image(raw.points, raw.extra["calibration"], raw.extra["image_size"])
    assert 0 < mask.sum() < len(mask)
    np.testing.assert_array_equal(seen.points, raw.points[mask])
    np.testing.assert_array_equal(dataset(root, camera_view=False)[0].points, raw.points)


def test_bounds_are_half_open_for_points_and_box_centres(root):
    raw = dataset(root, camera_view=False)[0]
    x = float(np.sort(raw.boxes[:, 0])[1])
    frame = dataset(root, camera_view=False, bounds=(-5.0, -40.0, -3.0, x, 40.0, 1.0))[0]
    assert frame.boxes[:, 0].tolist() == [v for v in raw.boxes[:, 0].tolist() if v < x]
    assert len(frame.labels) == 1
    expected = raw.points[(raw.points[:, 0] >= -5) & (raw.points[:, 0] < x)]
    np.testing.assert_array_equal(frame.points, expected)


def test_boxes_with_few_points_are_no_training_targets(root):
    points = read_points(root / "training/velodyne/000000.bin")
    boxes = dataset(root).frame(0).boxes
    gone = points[
        ~np.isin(np.arange(len(points)), np.arange(400, 429))
    ]  # 29 of the 30 points of the first car
    write_points(root / "training/velodyne/000000.bin", gone)
    assert len(dataset(root, min_points=2)[0].boxes) == 3
    assert len(dataset(root, augment=AugmentConfig(), min_points=1)[0].boxes) == 3
    np.testing.assert_array_equal(dataset(root, augment=AugmentConfig(), min_points=2)[0].boxes, boxes[1:])


def test_image_size_comes_from_the_picture_where_there_is_one(root):
    (root / "training/image_2").mkdir()
    Image.new("RGB", (1224, 370)).save(root / "training/image_2/000000.png")
    data = dataset(root)
    assert [data[i].extra["image_size"] for i in (0, 1)] == [(1224, 370), (1242, 375)]
    (root / "training/image_2/000001.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match="000001.png: not a picture"):
        dataset(root)


def test_nan_points_are_dropped_with_a_warning(root, caplog):
    path = root / "training/velodyne/000000.bin"
    points = read_points(path)
    points[3, 1] = np.nan
    write_points(path, points)
    with caplog.at_level(logging.WARNING):
        frame = dataset(root).frame(0)
    np.testing.assert_array_equal(frame.points, np.delete(points, 3, axis=0))
    assert "dropped 1 points" in caplog.text


def test_a_frame_without_points_or_objects_is_legal(root):
    (root / "training/velodyne/000000.bin").write_bytes(b"")
    (root / "training/label_2/000001.txt").write_text("")
    steps = AugmentConfig((RandomFlip(), RandomRotation(), PointShuffle()))
    data = dataset(root, augment=steps, bounds=(0, -40, -3, 70, 40, 1))
    assert data[0].points.shape == (0, 4) and data[0].boxes.shape == (0, 7)
    assert data[1].boxes.shape == (0, 7) and len(data[1].points)
    assert dataset(root)[0].boxes.shape == (3, 7)


def test_the_test_split_has_no_labels(root):
    (root / "training").rename(root / "testing")
    for path in (root / "testing/label_2").iterdir():
        path.unlink()
    (root / "ImageSets/train.txt").rename(root / "ImageSets/test.txt")
    frame = dataset(root, "test")[2]
    assert len(frame.extra["objects"]) == len(frame.boxes) == 0 and len(frame.points)


# ---- augmentation seeds ------------------------------------------------------------------------------------


def test_a_sample_depends_on_seed_epoch_and_index_alone(root):
    steps = AugmentConfig((RandomFlip(), RandomRotation(), PointShuffle()))
    data, again = dataset(root, augment=steps), dataset(root, augment=steps)
    first = data[2].points
    data.set_epoch(1)
    second = data[2].points
    again.set_epoch(1)
    for index in (3, 0, 2):
        last = again[index].points
    np.testing.assert_array_equal(last, second)
    np.testing.assert_array_equal(again[(0, 2)].points, first)
    assert not np.array_equal(first, second)
    assert not np.array_equal(dataset(root, augment=steps, seed=1)[2].points, first)
    np.testing.assert_array_equal(data[-2].points, second)


# ---- folders that are not whole ----------------------------------------------------------------------------


def test_a_missing_root_says_the_way_out(tmp_path):
    with pytest.raises(
        DataError, match="no such folder.*SPARSE3D_DATASETS.*datasets/README.md.*data make minidrive"
    ):
        dataset(tmp_path / "none")


def test_a_relative_root_is_looked_for_among_the_datasets(root, monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSE3D_DATASETS", str(root.parent))
    monkeypatch.chdir(tmp_path / "kitti" / "training")
    assert len(dataset("kitti")) == 4


def test_a_missing_split_lists_what_exists(root):
    with pytest.raises(DataError, match="trainval.txt: no such split; .* has train, val"):
        dataset(root, "trainval")


@pytest.mark.parametrize(
    "line, message", [("../../etc", "is not a frame id"), ("000001", "stands in it twice")]
)
def test_split_files_hold_frame_ids(root, line, message):
    with open(root / "ImageSets/train.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        dataset(root)


def test_missing_files_are_reported_or_skipped(root, caplog):
    (root / "training/velodyne/000001.bin").unlink()
    (root / "training/label_2/000003.txt").unlink()
    with pytest.raises(
        DataError, match=r"2 of 4 frames of 'train' lack files: 000001 \(velodyne\), 000003 \(label\)"
    ):
        dataset(root)
    with caplog.at_level(logging.WARNING):
        assert dataset(root, skip_missing=True).frame_ids == ("000000", "000002")
    assert "2 of 4 frames" in caplog.text


def test_truncated_scans_and_broken_labels_are_named(root):
    path = root / "training/velodyne/000001.bin"
    path.write_bytes(path.read_bytes()[:-1])
    data = dataset(root)
    with pytest.raises(DataError, match="000001.bin: .* 15 bytes are left over"):
        data[1]
    label = root / "training/label_2/000002.txt"
    label.write_text(label.read_text() + "Car 0 0\n")
    with pytest.raises(DataError, match="000002.txt:6: 3 columns"):
        dataset(root)[2]
    label.write_text("Car 0 0 0 1 1 9 9 1 -1 1 0 1 9 0\n")
    with pytest.raises(DataError, match="000002.txt: .* not positive"):
        dataset(root)[2]


# ---- index -------------------------------------------------------------------------------------------------


def test_the_index_is_written_once_and_used(root):
    dataset(root)
    path = index_path(root, "train")
    before = path.stat()
    assert (
        path.parent == root and [f["frame_id"] for f in json.loads(path.read_text())["frames"]][0] == "000000"
    )
    dataset(root)
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino


def test_the_index_goes_to_the_cache_folder_that_is_named(root, tmp_path):
    dataset(root, cache_dir=str(tmp_path / "cache"))
    assert [p.name[:14] for p in (tmp_path / "cache").iterdir()] == ["sparse3d_index"]
    assert not list(root.glob("sparse3d*"))


def test_a_changed_label_is_read_anew(root):
    assert len(dataset(root)[0].boxes) == 3
    path = root / "training/label_2/000000.txt"
    path.write_text("".join(path.read_text().splitlines(True)[1:]))
    assert len(dataset(root)[0].boxes) == 2
    # The same size, only later.
    path.write_text(path.read_text().replace("Car", "Bus"))
    os.utime(path, ns=(1, 1))
    assert len(dataset(root)[0].boxes) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("Pedestrian", "Pedestrain"),
        lambda text: "[" * 100_000,
        lambda text: json.dumps({"version": 1, "frames": 3}),
        lambda text: json.dumps(json.loads(text) | {"version": 0}),
    ],
)
def test_a_corrupt_index_is_rebuilt(root, damage):
    dataset(root)
    path = index_path(root, "train")
    whole = path.read_text()
    path.write_text(damage(whole))
    assert len(dataset(root)[0].boxes) == 3
    assert path.read_text() == whole


def test_an_unwritable_cache_costs_only_time(root, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert len(dataset(root, cache_dir=str(tmp_path / "file"))[0].boxes) == 3
    assert "not written" in caplog.text


# ---- check -------------------------------------------------------------------------------------------------


def test_check_of_a_whole_folder(root):
    report = check_kitti(root)
    assert report.ok and report.splits == {"train": 4, "val": 1}
    assert report.objects == {"Car": 8, "Pedestrian": 4, "Van": 4} and report.empty_boxes == {}
    assert report.points == 4 * 520
    assert str(report).splitlines()[-1] == "ok" and "4 of 4 frames have no picture" in str(report)


def test_check_names_every_broken_file_and_label(root):
    training = root / "training"
    (training / "velodyne/000000.bin").write_bytes(bytes(17))
    (training / "calib/000001.txt").unlink()
    (training / "label_2/000002.txt").write_text("Car 0 0 0 1 1 9 9 1 1\n")
    label = training / "label_2/000003.txt"
    lines = label.read_text().splitlines(True)
    label.write_text(
        lines[0].replace("Car 0.00 0", "Car 2.00 7")
        + "Car 0 0 0 1 1 9 9 1 1 1 0 -3 9 0\n"
        + "Car 0 0 0 9 9 1 1 0 1 1 0 1 -9 4\n"
    )
    report = check_kitti(root)
    text = "\n".join(report.problems)
    assert not report.ok
    for expected in (
        "000000.bin: 17 bytes",
        "000001.txt: no such file",
        "000002.txt:1: 10 columns",
        "000003.txt: object 0 (Car) has a truncation",
        "000003.txt: object 0 (Car) has an occlusion",
        "000003.txt: object 2 (Car) has a size",
        "000003.txt: object 2 (Car) has an image box",
        "000003.txt: object 2 (Car) has a rotation_y",
        "000003.txt: object 2 (Car) has a place behind",
    ):
        assert expected in text
    assert len(report.problems) == 9
    assert report.empty_boxes == {"Car": 1}


def test_check_of_a_folder_without_splits(tmp_path):
    assert "no split files" in check_kitti(tmp_path).problems[0]


# ---- recorded frames ---------------------------------------------------------------------------------------


def test_recorded_frames(real_data, tmp_path):
    data = dataset(real_data / "kitti", "val", cache_dir=str(tmp_path))
    assert data.frame_ids == ("000000", "000001", "000003")
    frames = [data[i] for i in range(3)]
    assert [f.extra["image_size"] for f in frames] == [(1224, 370), (1242, 375), (1242, 375)]
    assert [[data.class_names[label] for label in f.labels] for f in frames] == [
        ["Pedestrian"],
        ["Car", "Cyclist"],
        ["Car"],
    ]
    for index, frame in enumerate(frames):
        assert 0 < len(frame.points) < len(data.frame(index).points)
        counts = points_per_box(torch.from_numpy(frame.points[:, :3].copy()), torch.from_numpy(frame.boxes))
        assert (counts > 0).all()
