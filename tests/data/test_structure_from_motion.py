"""Poses found from photos alone: a room that is rendered here, where pycolmap is installed; and what is said
where it is not, or where nothing fits together."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from sparse3d.data import structure_from_motion
from sparse3d.data.photos import open_photos
from sparse3d.data.structure_from_motion import StructureFromMotionConfig
from sparse3d.errors import DataError, MissingExtraError
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.rays import rays_of_image
from tests.data.photo_folders import colmap_folder, picture, ring_pose, write_image

CONFIG = StructureFromMotionConfig(lens="SIMPLE_PINHOLE", threads=1)
SIZE = 200, 150


def room_photo(pose, texture):
    """(H, W, 3): the corner of three walls at -1 with a texture each, seen from inside."""
    camera = Camera(180, 180, SIZE[0] / 2, SIZE[1] / 2, *SIZE, pose)
    origins, directions = (part.double().numpy() for part in rays_of_image(camera))
    with np.errstate(divide="ignore"):
        reach = (-1 - origins) / directions
    reach = np.where(reach > 0, reach, np.inf)
    wall = reach.argmin(1)
    hit = origins + directions * reach.min(1)[:, None]
    u, v = np.take_along_axis(hit, np.stack([(wall + 1) % 3, (wall + 2) % 3], 1), 1).T
    cells = len(texture[0])
    rows, columns = (np.clip((w + 1) / 3.5 * cells, 0, cells - 2) for w in (u, v))
    r, c = rows.astype(int), columns.astype(int)
    fr, fc = rows - r, columns - c
    out = 0
    for i, j, weight in (
        (0, 0, (1 - fr) * (1 - fc)),
        (1, 0, fr * (1 - fc)),
        (0, 1, (1 - fr) * fc),
        (1, 1, fr * fc),
    ):
        out = out + weight * texture[wall, r + i, c + j]
    grey = np.rint(255 * out).astype(np.uint8).reshape(SIZE[::-1])
    return np.repeat(grey[..., None], 3, -1)


def look(origin, at):
    forward = (at - origin) / np.linalg.norm(at - origin)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, origin], 1)
    return pose


def test_poses_of_a_room(tmp_path):
    """Six views of textured walls and one of nothing. Poses are known up to a similarity, which the centres
    fix; 1 % of the ring's size is a tenth of a pixel's worth of SIFT on pictures as small as these."""
    pytest.importorskip("pycolmap")
    texture = np.random.default_rng(0).random((3, 90, 90))
    poses = [
        look(np.array([1.0 + 0.25 * i, 1.6 - 0.2 * i, 0.9 + 0.05 * i]), np.full(3, -0.7)) for i in range(6)
    ]
    for number, pose in enumerate(poses):
        write_image(tmp_path / "images" / f"{number}.png", room_photo(pose, texture))
    write_image(tmp_path / "images" / "nothing.png", np.full((*SIZE[::-1], 3), 90, np.uint8))
    stages = []
    photos = open_photos(tmp_path, poses=CONFIG, progress=lambda *step: stages.append(step))
    assert photos.names == tuple(f"{i}.png" for i in range(6))
    assert [s.name for s in photos.skipped] == ["nothing.png"] and "no features" in photos.skipped[0].reason
    assert stages[0] == ("features", 0, 7) and stages[-1] == ("placing", 7, 7)
    truth, found = np.array([p[:3, 3] for p in poses]), photos.cameras.origins
    a, b = truth - truth.mean(0), found - found.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (s * np.diag(flip)).sum() / (b**2).sum()
    off = np.linalg.norm(a - scale * b @ (u @ flip @ vt).T, axis=1)
    assert off.max() < 0.02 * np.linalg.norm(a, axis=1).max()
    assert photos.cameras.focal[0] == pytest.approx(180, rel=0.05)
    points = photos.capture.points
    assert points is not None and len(points.positions) > 100 and len(points.track_point) > 200
    # The second time it is only read.
    again = open_photos(tmp_path, poses=CONFIG, progress=lambda *_: pytest.fail("made again"))
    assert (again.cameras.camera_to_world == photos.cameras.camera_to_world).all()
    assert [s.name for s in again.skipped] == ["nothing.png"]


def test_photos_that_have_nothing_in_common(tmp_path):
    pytest.importorskip("pycolmap")
    for number in range(3):
        write_image(tmp_path / f"{number}.png", np.full((60, 80, 3), 40 * number, np.uint8))
    with pytest.raises(DataError, match="placed none of 3 photos .*0.png: no features found"):
        open_photos(tmp_path, poses=CONFIG)
    assert {p.suffix for p in tmp_path.iterdir()} == {".png"}  # nothing half made is left


def test_without_pycolmap(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    for number in range(2):
        write_image(tmp_path / f"{number}.png", picture(number))
    with pytest.raises(MissingExtraError, match=r"sparse3d\[sfm\]"):
        open_photos(tmp_path, poses=CONFIG)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match="1 photos; structure from motion needs two"):
        open_photos(tmp_path, poses=CONFIG)
    with pytest.raises(DataError, match="--poses colmap"):
        open_photos(tmp_path)


def test_a_stored_result_is_used_as_long_as_the_photos_are_the_same(tmp_path, monkeypatch):
    """A stand-in writes the model, so that this runs without pycolmap."""
    made = []

    def stand_in(out, photos, names, config, progress):
        made.append(config.lens)
        colmap_folder(out)
        (out / "sparse" / "0").rename(out / "model")
        (out / "sparse").rmdir()
        (out / "model").rename(out / "sparse")
        (out / "unplaced.json").write_text(json.dumps([["blurred.png", "40 features"]]))

    monkeypatch.setattr(structure_from_motion, "_reconstruct", stand_in)
    for name in ("6", "7", "8"):
        write_image(tmp_path / f"{name}.png", picture(0))
    for _ in range(2):
        photos = open_photos(tmp_path, poses=CONFIG)
        np.testing.assert_allclose(photos.cameras.camera_to_world[0], ring_pose(1), atol=1e-9)
        assert photos.skipped == (("blurred.png", "40 features"),)
    assert made == ["SIMPLE_PINHOLE"]
    open_photos(tmp_path, poses=StructureFromMotionConfig(lens="RADIAL"))
    Image.fromarray(picture(5)).save(tmp_path / "7.png")
    open_photos(tmp_path, poses=CONFIG)
    assert made == ["SIMPLE_PINHOLE", "RADIAL", "SIMPLE_PINHOLE"]

    def killed(out, *_):
        (out / "half").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(structure_from_motion, "_reconstruct", killed)
    with pytest.raises(KeyboardInterrupt):
        open_photos(tmp_path, poses=StructureFromMotionConfig(lens="OPENCV"))
    assert not list(tmp_path.glob(".sparse3d_sfm*"))
