"""`sparse3d detect`: every input gives a KITTI result file, a JSON file and, where asked for, a picture."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from sparse3d import cli
from sparse3d.io.kitti import KittiCalibration, read_objects, write_calibration
from sparse3d.io.points import write_points
from sparse3d.models.centerpoint import CenterPoint
from sparse3d.viewers.bev import draw_bev
from tests.recipes.small_run import finding, write_run

# Axes exchanged and nothing else: camera x = -y, y = -z, z = x, all from the LiDAR's origin.
AXES = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
PINHOLE = np.array([[100, 0, 100, 0], [0, 100, 50, 0], [0, 0, 1, 0]], dtype=np.float64)
CALIBRATION = KittiCalibration(PINHOLE, np.eye(4), AXES)

# A car of 4 x 2 x 1.5 m ahead, heading away, its rear at x = 8 m; a pedestrian behind the camera.
CAR = [10.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0]
BEHIND = [-10.0, 1.0, 0.0, 0.5, 0.5, 1.75, 0.0]
CLOUD = np.array([[5, 0, -1, 0.5], [6, 1, -1, 0.25], [7, -1, -1, 0]], dtype=np.float32)

# By hand: alpha = rotation_y - atan2(x, z); the corners nearest to the camera bound the image box at
# 100 -+ 100 * 1 / 8 and 50 -+ 100 * 0.75 / 8; the location is the bottom centre, y down.
CAR_ROW = (
    "Car -1.00 -1 -1.5708 87.5000 40.6250 112.5000 59.3750 "
    "1.5000 2.0000 4.0000 0.0000 0.7500 10.0000 -1.5708 0.750000"
)
# z = -10 and x = -1 in the camera frame: atan2(-1, -10) = -3.0419 and -1.5708 + 3.0419 = 1.4711.
BEHIND_ROW = (
    "Pedestrian -1.00 -1 1.4711 -1.0000 -1.0000 -1.0000 -1.0000 "
    "1.7500 0.5000 0.5000 -1.0000 0.8750 -10.0000 -1.5708 0.500000"
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose detector finds the car, the pedestrian, and a car of low score, in whatever it is shown."""
    monkeypatch.chdir(tmp_path)
    write_calibration("calib.txt", CALIBRATION)
    monkeypatch.setattr(
        CenterPoint, "predict", finding([CAR, BEHIND, CAR], [0.75, 0.5, 0.125], labels=[0, 1, 0])
    )
    return str(write_run(tmp_path / "run"))


def write_cloud(path, points=CLOUD):
    if path.suffix == ".pcd":
        rows = "".join(" ".join(map(str, row)) + "\n" for row in points.tolist())
        head = f"WIDTH {len(points)}\nHEIGHT 1\nPOINTS {len(points)}\nDATA ascii\n"
        path.write_text(
            f"VERSION .7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n{head}{rows}"
        )
    else:
        write_points(path, points)


@pytest.mark.parametrize("suffix", [".bin", ".pcd", ".ply", ".npy"])
def test_every_format_gives_txt_and_json_by_hand(run, tmp_path, suffix, capsys):
    cloud = tmp_path / f"scan{suffix}"
    write_cloud(cloud)
    assert cli.main(["detect", run, str(cloud), "--out", "found", "--calib", "calib.txt"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{cloud}: 2 objects\n"
    assert shown.err == "sparse3d: 1 files; written to found\n"
    assert (tmp_path / "found/scan.txt").read_text() == f"{CAR_ROW}\n{BEHIND_ROW}\n"
    document = json.loads((tmp_path / "found/scan.json").read_text())
    assert document["input"] == cloud.name
    assert document["objects"] == [
        dict(zip(("class", "score", "x", "y", "z", "length", "width", "height", "yaw"), row, strict=True))
        for row in (["Car", 0.75, *CAR], ["Pedestrian", 0.5, *BEHIND])
    ]
    assert sorted(os.listdir(tmp_path / "found")) == ["scan.json", "scan.txt"]


def test_a_cloud_in_a_kitti_folder_uses_the_calibration_and_picture_beside_it(run, tmp_path, capsys):
    training = tmp_path / "kitti" / "training"
    for name in ("000001", "000002"):
        (training / "velodyne").mkdir(parents=True, exist_ok=True)
        write_cloud(training / "velodyne" / f"{name}.bin")
        write_calibration(training / "calib" / f"{name}.txt", CALIBRATION)
    (training / "image_2").mkdir()
    Image.new("RGB", (105, 300)).save(training / "image_2" / "000001.png")
    assert cli.main(["detect", run, str(training / "velodyne"), "--out", "found", "--score", "0.6"]) == 0
    assert "calibration" not in capsys.readouterr().err
    # The picture of the first ends at pixel 104; without one KITTI's 1242 x 375 is taken.
    assert (tmp_path / "found/000001.txt").read_text() == CAR_ROW.replace("112.5000", "104.0000") + "\n"
    assert (tmp_path / "found/000002.txt").read_text() == CAR_ROW + "\n"


def test_without_a_calibration_minidrives_is_taken_and_said(run, tmp_path, capsys):
    (tmp_path / "velodyne").mkdir()
    write_cloud(tmp_path / "velodyne" / "a.bin")  # a folder of that name without calib/ beside it
    write_cloud(tmp_path / "b.ply")
    assert cli.main(["detect", run, "velodyne/a.bin", "b.ply", "--out", "found", "--score", "0.6"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "sparse3d: no calibration for 2 of 2 inputs: their .txt assume minidrive's (see --calib)"
    )
    for name in ("a", "b"):
        found = read_objects(tmp_path / "found" / f"{name}.txt")
        # minidrive's camera: 4 mm beside, 76 mm above, 272 mm before the LiDAR.
        assert found.locations.tolist() == [[-0.004, 0.75 - 0.076, 10 - 0.272]]


def test_an_empty_cloud_gives_an_empty_txt_and_a_picture(tmp_path, monkeypatch):
    """With an untrained network, whose biases alone would be objects everywhere."""
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", model={"decode": {"score_threshold": 0.0}})
    (tmp_path / "empty.bin").touch()
    write_points(tmp_path / "behind.bin", CLOUD - [20, 0, 0, 0])
    call = ["detect", str(run), "empty.bin", "behind.bin", "--out", "found", "--pictures", "--score", "0"]
    assert cli.main(call) == 0
    assert (tmp_path / "found/behind.txt").read_text() == ""
    assert (tmp_path / "found/empty.txt").read_text() == ""
    assert json.loads((tmp_path / "found/empty.json").read_text())["objects"] == []
    expected = draw_bev(
        np.zeros((0, 4), np.float32),
        (0, -12.8, -3, 25.6, 12.8, 1),
        boxes=np.zeros((0, 7), np.float32),
        labels=np.zeros(0, np.int64),
        scores=np.zeros(0, np.float32),
        class_names=("Car", "Pedestrian", "Cyclist"),
        title="empty.bin",
    )
    with Image.open(tmp_path / "found/empty.png") as picture:
        assert picture.size == expected.size and picture.tobytes() == expected.tobytes()


def test_points_that_are_not_finite_change_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", model={"decode": {"score_threshold": 0.0}})
    bad = np.full((3, 4), 0.5, np.float32)
    bad[0, 0], bad[1, 2], bad[2, 3] = np.nan, np.inf, -np.inf
    cloud = np.random.default_rng(0).uniform([1, -8, -2, 0], [20, 8, 0, 1], (300, 4)).astype(np.float32)
    for folder, points in (("good", cloud), ("bad", np.concatenate([bad[:1], cloud, bad[1:]]))):
        (tmp_path / folder).mkdir()
        write_points(tmp_path / folder / "a.bin", points)
        assert cli.main(["detect", str(run), folder, "--out", f"{folder}_found", "--score", "0"]) == 0
    assert "dropped 3 points with nan or infinite values" in caplog.text
    texts = [(tmp_path / f"{folder}_found/a.txt").read_text() for folder in ("good", "bad")]
    assert texts[0] == texts[1] and texts[0].count("\n") > 10


def one_line_fault(capsys, *argv):
    assert cli.main(argv) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("sparse3d: error: ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.bin", bytes(35), "cut.bin: 35 bytes are not whole points of 4 float32 (16 bytes)"),
        ("cut.npy", b"\x93NUMPY\x01", "cut.npy: bad npy header"),
        ("cut.ply", b"ply\nformat", "cut.ply:2: the header ends before its end_header line"),
        ("cut.pcd", b"VERSION .7\nFIELDS x", "cut.pcd:2: not a .pcd header, or it ends before its DATA line"),
        ("cloud.las", b"LASF", "cloud.las: unknown point cloud suffix '.las'; expected .bin, .pcd"),
    ],
)
def test_a_broken_cloud_is_named(run, tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert one_line_fault(capsys, "detect", run, name, "--out", "found").startswith(message)
    assert not (tmp_path / "found").exists()


def test_a_broken_calibration_or_picture_is_named_before_anything_is_written(run, tmp_path, capsys):
    write_cloud(tmp_path / "a.bin")
    text = (tmp_path / "calib.txt").read_text()
    (tmp_path / "calib.txt").write_text(text.replace("R0_rect:", "R9:"))
    call = ["detect", run, "a.bin", "--out", "found", "--calib"]
    assert one_line_fault(capsys, *call, "calib.txt") == (
        "calib.txt: no line 'R0_rect:'; expected P2, R0_rect and Tr_velo_to_cam"
    )
    assert "nowhere.txt" in one_line_fault(capsys, *call, "nowhere.txt")
    (tmp_path / "velodyne").mkdir()
    write_cloud(tmp_path / "velodyne" / "a.bin")
    write_calibration(tmp_path / "calib" / "a.txt", CALIBRATION)
    (tmp_path / "image_2").mkdir()
    (tmp_path / "image_2" / "a.png").write_bytes(b"no picture")
    fault = one_line_fault(capsys, "detect", run, "velodyne/a.bin", "--out", "found")
    assert "image_2/a.png: not a picture" in fault
    assert not (tmp_path / "found").exists()


def test_inputs_of_one_name_and_an_out_that_is_a_file_are_refused(run, tmp_path, capsys):
    write_cloud(tmp_path / "a.bin")
    write_cloud(tmp_path / "a.ply")
    assert "another input has the same name" in one_line_fault(
        capsys, "detect", run, "a.bin", "a.ply", "--out", "found"
    )
    (tmp_path / "taken").touch()
    assert "taken" in one_line_fault(capsys, "detect", run, "a.bin", "--out", "taken", "--calib", "calib.txt")


@pytest.mark.parametrize("write", range(3))
def test_a_full_disk_is_said_and_leaves_only_whole_files(run, tmp_path, capsys, monkeypatch, write):
    """Files of one input: JSON, txt, picture. The first call fills the disk, the second one has room."""
    write_cloud(tmp_path / "a.bin")
    calls, real = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == write + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    call = ["detect", run, "a.bin", "--out", "found", "--pictures", "--calib", "calib.txt"]
    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(call) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("sparse3d: error: the disk is full (") and "No space left on device" in line
    assert line.endswith("make room and give the same command again")
    names = ["a.json", "a.txt", "a.png"]
    assert set(os.listdir(tmp_path / "found")) == set(names[:write])
    assert cli.main(call) == 0
    assert set(os.listdir(tmp_path / "found")) == set(names)


def test_clouds_are_cut_to_the_cameras_view_as_in_training_where_the_calibration_is_known(
    run, tmp_path, monkeypatch
):
    shown = []
    predict = CenterPoint.predict

    def spy(model, batch):
        shown.append(batch.points[:, 0].tolist())
        return predict(model, batch)

    monkeypatch.setattr(CenterPoint, "predict", spy)
    behind = np.array([[-5, 0, -1, 0.5]], dtype=np.float32)
    write_cloud(tmp_path / "scan.bin", np.concatenate([CLOUD, behind]))
    assert cli.main(["detect", run, "scan.bin", "--out", "known", "--calib", "calib.txt"]) == 0
    assert cli.main(["detect", run, "scan.bin", "--out", "assumed"]) == 0
    assert shown == [[5.0, 6.0, 7.0], [5.0, 6.0, 7.0, -5.0]]
