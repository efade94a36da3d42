"""SemanticKITTI's files: labels, poses, calibration, and what is wrong with broken ones."""

import numpy as np
import pytest

from sparse3d.errors import DataError
from sparse3d.io import semantickitti as io


def test_labels_are_uint32_with_the_class_below(tmp_path):
    path = tmp_path / "a.label"
    path.write_bytes(bytes([10, 0, 7, 0, 252, 0, 0, 1]))  # little endian: class 10 of object 7, 252 of 256
    labels = io.read_labels(path, 2)
    assert labels.semantic.tolist() == [10, 252] and labels.instance.tolist() == [7, 256]


def test_labels_survive_writing(tmp_path):
    rng = np.random.default_rng(0)
    semantic, instance = rng.integers(0, 1 << 16, (2, 1000))
    io.write_labels(tmp_path / "b.label", semantic, instance)
    found = io.read_labels(tmp_path / "b.label", 1000)
    np.testing.assert_array_equal(found.semantic, semantic)
    np.testing.assert_array_equal(found.instance, instance)
    io.write_labels(tmp_path / "empty.label", np.zeros(0, np.int64))
    assert len(io.read_labels(tmp_path / "empty.label", 0).semantic) == 0


def test_labels_that_do_not_fit(tmp_path):
    path = tmp_path / "c.label"
    io.write_labels(path, np.arange(5))
    with pytest.raises(DataError, match=r"c\.label: 5 labels for a scan of 6 points"):
        io.read_labels(path, 6)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="19 bytes are not whole labels"):
        io.read_labels(path)
    with pytest.raises(ValueError, match=r"semantic lies in \[0, 65536\]"):
        io.write_labels(path, np.array([0, 1 << 16]))
    with pytest.raises(ValueError, match="must both be"):
        io.write_labels(path, np.zeros(3), np.zeros(4))


TR = "Tr: 0 -1 0 0.1 0 0 -1 0.2 1 0 0 0.3\n"


def test_poses_bring_scans_into_the_frame_of_the_first(tmp_path):
    """The car drives 2 m forward: 2 m along z of the camera, along x of the LiDAR."""
    (tmp_path / "calib.txt").write_text("P0: 1 0 0 0 0 1 0 0 0 0 1 0\n" + TR)
    (tmp_path / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 2\n\n")
    poses = io.lidar_poses(
        io.read_poses(tmp_path / "poses.txt"), io.read_camera_from_lidar(tmp_path / "calib.txt")
    )
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(poses[1, :3, 3], [2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(poses[1, :3, :3], np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("P0: 1 0 0 0 0 1 0 0 0 0 1 0\n", "no row 'Tr:'"),
        ("Tr: 1 2 3\n", "line 1: expected 12 finite numbers .* got 3"),
        ("\nTr: 0 -1 0 0.1 0 0 -1 0.2 1 0 0 x\n", "line 2: could not convert"),
        ("Tr: 0 -1 0 0.1 0 0 -1 0.2 1 0 0 nan\n", "line 1: expected 12 finite"),
    ],
)
def test_broken_calibrations(tmp_path, text, message):
    (tmp_path / "calib.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        io.read_camera_from_lidar(tmp_path / "calib.txt")


def test_poses_of_real_sequences(real_data):
    """The car of sequence 00 drives on; its poses are rigid."""
    root = real_data / "semantickitti" / "sequences" / "00"
    if not root.is_dir():
        pytest.skip("no SemanticKITTI there")
    poses = io.read_poses(root / "poses.txt")
    assert len(poses) == 4541
    turn = poses[:, :3, :3]
    np.testing.assert_allclose(
        turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-4
    )
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert 0 <= steps.min() and steps.max() < 3  # metres in a tenth of a second
