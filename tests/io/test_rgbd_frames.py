"""Depth frames in the style of 7-Scenes, TUM and ScanNet."""

import numpy as np
import pytest
from PIL import Image

from sparse3d.errors import DataError
from sparse3d.io.rgbd_frames import find_rgbd_frames

POSE = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def _picture(path, kind=np.uint16, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if kind == np.uint8 else (size[1], size[0])
    Image.fromarray(np.full(shape, 100, kind)).save(path)


def _text(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(" ".join(map(str, row)) for row in rows))


def test_seven_scenes(tmp_path):
    for number in range(3):
        _picture(tmp_path / f"frame-{number:06d}.depth.png")
        _picture(tmp_path / f"frame-{number:06d}.color.png", np.uint8)
        _text(tmp_path / f"frame-{number:06d}.pose.txt", POSE if number != 1 else np.full((4, 4), np.nan))
    found = find_rgbd_frames(tmp_path)
    assert found.format == "7-Scenes" and [f.name for f in found.frames] == ["frame-000000", "frame-000002"]
    assert found.frames[0].intrinsics == (585.0, 585.0, 320.0, 240.0) and found.frames[0].depth_unit == 1e-3
    np.testing.assert_array_equal(found.frames[0].camera_to_world, POSE)
    assert found.skipped[0].name == "frame-000001" and "not finite" in found.skipped[0].reason


def test_tum_pairs_by_time_and_knows_its_cameras(tmp_path):
    root = tmp_path / "rgbd_dataset_freiburg2_desk"
    for name in ("depth/1.png", "depth/2.png", "depth/3.png"):
        _picture(root / name)
    _picture(root / "rgb/1.png", np.uint8)
    _text(
        root / "depth.txt",
        [("# time", "file"), (3.0, "depth/3.png"), (1.0, "depth/1.png"), (2.0, "depth/2.png")],
    )
    _text(root / "rgb.txt", [(1.015, "rgb/1.png"), (1.5, "rgb/none.png")])
    # A quarter turn about z; scaled quaternions are the same turn.
    turn = [0.0, 0.0, 1.0, 1.0]
    _text(
        root / "groundtruth.txt",
        [(1.001, 1, 2, 3, *turn), (3.01, 1, 2, 3, *turn), (2.5, 0, 0, 0, 0, 0, 0, 1)],
    )
    found = find_rgbd_frames(root)
    assert [frame.name for frame in found.frames] == ["1", "3"]
    np.testing.assert_allclose(found.frames[0].camera_to_world, POSE, atol=1e-12)
    assert found.frames[0].color == root / "rgb/1.png" and found.frames[1].color is None
    assert found.frames[0].depth_unit == 1 / 5000
    assert found.frames[0].intrinsics == (520.9, 521.0, 325.6, 250.2)  # pixel centres at +0.5
    assert found.skipped[0].name == "2" and "no pose within" in found.skipped[0].reason


def test_scannet(tmp_path):
    for number in (0, 2, 10):
        _picture(tmp_path / f"depth/{number}.png")
        _picture(tmp_path / f"color/{number}.jpg", np.uint8, (8, 6))
        _text(tmp_path / f"pose/{number}.txt", POSE if number else np.full((4, 4), -np.inf))
    matrix = np.diag([577.0, 578.0, 1, 1])
    matrix[:2, 2] = 319.5, 239.5
    _text(tmp_path / "intrinsic/intrinsic_depth.txt", matrix)
    matrix[0, 0] = 1170.0
    _text(tmp_path / "intrinsic/intrinsic_color.txt", matrix)
    found = find_rgbd_frames(tmp_path)
    assert found.format == "ScanNet" and [frame.name for frame in found.frames] == ["2", "10"]
    assert found.frames[0].intrinsics == (577.0, 578.0, 319.5, 239.5)
    assert found.frames[0].color_intrinsics[0] == 1170.0
    assert [name for name, _ in found.skipped] == ["0"]


def test_a_recording_without_poses_has_none(tmp_path):
    _picture(tmp_path / "frame-000000.depth.png")
    found = find_rgbd_frames(tmp_path)
    assert not found.has_poses and found.frames[0].color is None


def test_other_folders_are_no_recording_and_lost_ones_are_told(tmp_path):
    assert find_rgbd_frames(tmp_path) is None
    _picture(tmp_path / "frame-000000.depth.png")
    _text(tmp_path / "frame-000000.pose.txt", np.full((4, 4), np.nan))
    with pytest.raises(DataError, match="no frame of this 7-Scenes recording can be used.*not finite"):
        find_rgbd_frames(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("depth.txt", "1.0 a.png b.png", "line 1: expected a time and a file"),
        ("depth.txt", "soon a.png", "line 1: 'soon' is not a number"),
        ("groundtruth.txt", "1.0 2.0", "line 1: expected a time and 7 numbers"),
    ],
)
def test_malformed_lists_are_told_with_their_line(tmp_path, file, text, message):
    (tmp_path / "depth.txt").write_text("1.0 depth/1.png")
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=message):
        find_rgbd_frames(tmp_path)
