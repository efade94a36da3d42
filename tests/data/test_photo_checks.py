"""Captures that cannot be reconstructed are told before anything is trained."""

import json
import logging

import numpy as np
import pytest

from sparse3d.data.photo_checks import check_views
from sparse3d.data.photos import open_photos
from sparse3d.errors import DataError
from tests.data.photo_folders import ring_pose, to_opengl, transforms_folder


def photos_at(root, poses):
    transforms_folder(root, len(poses))
    table = json.loads((root / "transforms.json").read_text())
    for frame, pose in zip(table["frames"], poses, strict=True):
        frame["transform_matrix"] = to_opengl(pose).tolist()
    (root / "transforms.json").write_text(json.dumps(table))
    return open_photos(root)


def facing(pose, turns):
    """The same place, looking elsewhere: turned about its own y."""
    c, s = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    turn = np.eye(4)
    turn[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    return pose @ turn


def test_a_ring_is_fine(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        check_views(photos_at(tmp_path, [ring_pose(i / 6) for i in range(6)]))
    assert not caplog.records


def test_cameras_in_one_place(tmp_path):
    tripod = photos_at(tmp_path, [facing(ring_pose(0), i / 20) for i in range(4)])
    with pytest.raises(DataError, match="all 4 cameras stand in one place"):
        check_views(tripod)


def test_photos_without_anything_in_common(tmp_path, caplog):
    outwards = [facing(ring_pose(i / 4), 0.5) for i in range(4)]
    with pytest.raises(DataError, match="no photo shows anything that another one shows"):
        check_views(photos_at(tmp_path / "a", outwards))
    one = [ring_pose(i / 4) for i in range(3)] + [outwards[3]]
    with caplog.at_level(logging.WARNING):
        check_views(photos_at(tmp_path / "b", one))
    assert "1 photos share their view with no other one: images/0003.png" in caplog.text


def test_a_single_photo(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        check_views(photos_at(tmp_path, [ring_pose(0)]))
    assert "a single photo" in caplog.text


def test_real_captures_are_fine(real_data, caplog):
    with caplog.at_level(logging.WARNING, logger="sparse3d.data.photo_checks"):
        for name in ("fox", "llff_fern", "dtu/scan24", "rgbd_7scenes", "lego_tiny"):
            check_views(open_photos(real_data / name))
    assert not [r for r in caplog.records if r.name.endswith("photo_checks")]
