"""tracks.json and folders of scans: what is written is read, what is wrong is named."""

import json

import numpy as np
import pytest

from sparse3d.errors import DataError
from sparse3d.geometry.rigid import inverse
from sparse3d.io.scan_folder import find_scans, read_sequence_calibration
from sparse3d.io.tracks import TrackedFrame, read_tracks, write_tracks


def frame_of(name="000000", time=0.0, count=2) -> TrackedFrame:
    rng = np.random.default_rng(count)
    return TrackedFrame(
        name,
        time,
        ids=np.arange(1, count + 1),
        boxes=rng.uniform(0.5, 9, (count, 7)).round(3).astype(np.float32),
        labels=np.arange(count) % 2,
        scores=rng.uniform(0, 1, count).round(3).astype(np.float32),
        velocities=np.array([[1.5, -2.0], [np.nan, np.nan], [0.0, 0.25]], np.float32)[:count],
    )


@pytest.mark.parametrize("scores", [True, False])
def test_tracks_round_trip(tmp_path, scores):
    frames = [frame_of("a", 0.0, 2), frame_of("b", 0.1, 0), frame_of("c", 0.25, 3)]
    write_tracks(tmp_path / "t.json", ("Car", "Cyclist"), frames, scores)
    found = read_tracks(tmp_path / "t.json")
    assert found.classes == ("Car", "Cyclist") and [f.name for f in found.frames] == ["a", "b", "c"]
    for a, b in zip(frames, found.frames, strict=True):
        assert b.time == a.time
        for name in ("ids", "labels"):
            np.testing.assert_array_equal(getattr(b, name), getattr(a, name))
        np.testing.assert_allclose(b.boxes, a.boxes, atol=1e-4)
        np.testing.assert_allclose(b.velocities, a.velocities, atol=1e-4)
        np.testing.assert_allclose(b.scores, a.scores if scores else np.ones(len(a.ids)), atol=1e-4)


def broken(change):
    tree = {
        "format": "sparse3d tracks",
        "classes": ["Car"],
        "frames": [
            {"name": "a", "time": 0, "objects": [dict.fromkeys(BOX, 1.0) | {"id": 1, "class": "Car"}]}
        ],
    }
    change(tree)
    return json.dumps(tree)


BOX = ("x", "y", "z", "length", "width", "height", "yaw")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(format="x"), "another kind of file"),
        (lambda t: t.pop("classes"), "classes"),
        (lambda t: t["frames"][0]["objects"][0].pop("yaw"), "yaw"),
        (lambda t: t["frames"][0]["objects"][0].update({"class": "Dog"}), "not as it should be"),
        (lambda t: t["frames"][0]["objects"][0].update(x=float("inf")), "not finite"),
        (lambda t: t["frames"][0]["objects"].append(t["frames"][0]["objects"][0]), "id twice"),
        (lambda t: t["frames"].append(t["frames"][0]), "follows one at"),
    ],
)
def test_broken_tracks_are_named(tmp_path, change, message):
    (tmp_path / "t.json").write_text(broken(change))
    with pytest.raises(DataError, match=message):
        read_tracks(tmp_path / "t.json")


def test_half_a_file_is_named(tmp_path):
    (tmp_path / "t.json").write_text(broken(lambda t: None)[:40])
    with pytest.raises(DataError, match="not JSON"):
        read_tracks(tmp_path / "t.json")


# ---- folders of scans --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "velodyne").mkdir()
    for k in (0, 1, 4):
        np.zeros((3, 4), "<f4").tofile(tmp_path / "velodyne" / f"{k:06d}.bin")
    return tmp_path


ROW = "1 0 0 {} 0 1 0 0 0 0 1 0\n"


def test_without_poses_and_times_the_sensor_stands(folder, caplog):
    scans = find_scans(folder, period=0.5)
    assert [s.path.stem for s in scans] == ["000000", "000001", "000004"]
    assert [s.time for s in scans] == [0, 0.5, 1.0]
    assert all((s.world_from_lidar == np.eye(4)).all() for s in scans) and "no poses.txt" in caplog.text


def test_rows_belong_to_the_numbers_of_the_files(folder):
    (folder / "poses.txt").write_text("".join(ROW.format(k) for k in range(6)))
    (folder / "times.txt").write_text("0 0.1 0.2 0.3 0.4 0.5")
    scans = find_scans(folder)
    assert [s.time for s in scans] == [0, 0.1, 0.4] and scans[2].world_from_lidar[0, 3] == 4
    # As many rows as files: one after the other.
    (folder / "times.txt").write_text("0 1 2")
    assert [s.time for s in find_scans(folder)] == [0, 1, 2]


def test_with_a_calibration_poses_are_the_cameras(folder):
    camera_from_lidar = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1.0]])
    text = " ".join(str(v) for v in camera_from_lidar[:3].reshape(-1))
    (folder / "calib.txt").write_text(f"P2: {' '.join(['1'] * 12)}\nTr: {text}\n")
    (folder / "poses.txt").write_text("".join(ROW.format(k) for k in range(3)))
    scans = find_scans(folder)
    moved = np.eye(4)
    moved[0, 3] = 2.0  # of camera 0, along its x: the LiDAR's -y
    want = inverse(camera_from_lidar) @ moved @ camera_from_lidar
    np.testing.assert_allclose(scans[2].world_from_lidar, want, atol=1e-12)
    assert want[1, 3] == pytest.approx(-2.0)
    camera = read_sequence_calibration(folder)
    assert camera is not None
    np.testing.assert_array_equal(camera.camera_from_lidar, camera_from_lidar)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("times.txt", "0 1", "2 rows for 3 scans"),
        ("times.txt", "0 1 1", "must rise"),
        ("times.txt", "0 one 2", "not a list of seconds"),
        ("times.txt", "0 nan 2", "not finite"),
        ("poses.txt", "2 0 0 0 0 1 0 0 0 0 1 0\n" * 3, "row 1 is not a rotation"),
        ("poses.txt", "1 0 0\n" * 3, "poses.txt"),
        ("calib.txt", "P2: 1 2\nTr: 1", "row P2"),
    ],
)
def test_broken_files_are_named(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        find_scans(folder)
        read_sequence_calibration(folder)


def test_folders_without_scans_are_named(tmp_path):
    with pytest.raises(DataError, match="no point clouds"):
        find_scans(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_scans(tmp_path / "none")


def test_real_sequence(real_data, caplog):
    """SemanticKITTI's scans, of which a few are there of thousands of poses; its calib.txt has no row Tr."""
    scans = find_scans(real_data / "semantickitti" / "sequences" / "00")
    assert len(scans) >= 5 and scans[1].time == pytest.approx(0.1037359)
    step = inverse(scans[0].world_from_lidar) @ scans[1].world_from_lidar
    assert 0.3 < step[0, 3] < 1.5 and abs(step[1, 3]) < 0.1  # it drives forward, x of the LiDAR
    assert "no row Tr" in caplog.text
