"""The scene's pictures agree with its surfaces and its cameras."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sparse3d import cli
from sparse3d.data import three_spheres as scene
from sparse3d.data.photos import open_photos
from sparse3d.geometry.rays import distance_from_depth


def test_rays_end_on_the_surface_and_pass_nothing_before():
    pose = scene.cameras(5, seed=0)[2]
    origins, directions = scene.pixel_rays(pose, 24)
    _, way = scene.trace(origins, directions)
    hit = np.isfinite(way)
    assert 0.05 < hit.mean() < 0.9
    ends = origins[hit] + way[hit, None] * directions[hit]
    assert np.abs(scene.surface_distance(ends)).max() < 1e-9
    for part in np.linspace(0, 0.999, 40):
        assert scene.surface_distance(origins[hit] + part * way[hit, None] * directions[hit]).min() > 0


def test_cameras_look_at_the_middle_with_their_heads_up():
    poses = scene.cameras(20, seed=3)
    assert np.allclose(np.einsum("nji,njk->nik", poses[:, :3, :3], poses[:, :3, :3]), np.eye(3))
    assert np.allclose(np.linalg.det(poses[:, :3, :3]), 1), "rotations, not reflections"
    middle = np.linalg.inv(poses) @ np.array([0, 0, 0, 1.0])
    assert np.allclose(middle[:, :3], [0, 0, scene.DISTANCE])
    assert (poses[:, 2, 1] < 0).all(), "y of the camera points down"


def test_a_highlight_moves_with_the_eye_and_paint_does_not():
    place = scene.CENTRES[0] + scene.RADII[0] * scene.LAMP / np.linalg.norm(scene.LAMP)
    eyes = place + np.array([[2.0, 2.4, 2.6], [0.3, 0.3, 3.0]])
    directions = (place - eyes) / np.linalg.norm(place - eyes, axis=1, keepdims=True)
    dull, shiny = (scene.trace(eyes, directions, s)[0] for s in (0.0, 0.4))
    assert np.allclose(dull[0], dull[1])
    assert np.abs(shiny[0] - shiny[1]).max() > 0.1


def test_files_hold_the_pictures(tmp_path):
    config = scene.ThreeSpheresConfig(views=3, held_out=2, size=20)
    scene.write_three_spheres(tmp_path, config)
    tree = json.loads((tmp_path / "transforms_train.json").read_text())
    assert len(tree["frames"]) == 3
    pixels = np.asarray(Image.open(tmp_path / (tree["frames"][1]["file_path"] + ".png"))) / 255
    pose = np.array(tree["frames"][1]["transform_matrix"]) * [1, -1, -1, 1]
    assert np.abs(pixels - scene.picture(pose, config)).max() <= 0.5 / 255 + 1e-6
    over_white = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    colors, _ = scene.trace(*scene.pixel_rays(pose, 20, 3))
    assert np.abs(over_white - colors.reshape(20, 3, 20, 3, 3).mean((1, 3))).max() < 0.01
    assert len(json.loads((tmp_path / "transforms_test.json").read_text())["frames"]) == 2


def test_depth_maps_lead_to_the_surface(tmp_path):
    scene.write_three_spheres(tmp_path, scene.ThreeSpheresConfig(views=2, held_out=2, size=20))
    test = open_photos(tmp_path, split="test")
    depth = test.depth(1)
    assert depth is not None
    rays = test.rays(1, torch.float64)
    distance = torch.from_numpy(distance_from_depth(depth, test.cameras[1]).ravel())
    known = torch.isfinite(distance)
    assert 0.05 < known.double().mean() < 0.9
    places = rays.origins + distance[:, None] * rays.directions
    # Half a step of 0.1 mm, and the float32 of the map.
    assert np.abs(scene.surface_distance(places[known].numpy())).max() < 6e-5
    assert open_photos(tmp_path, split="train").depth(0) is None, "training does not see it unasked"
    told = open_photos(tmp_path, split="train", depths=tmp_path / "depth", depth_unit=scene.DEPTH_UNIT)
    assert np.nanmax(np.abs(told.depth(1) - scene.depth_map(told.cameras.camera_to_world[1], 20))) < 6e-5


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="size must be at least 1"):
        scene.ThreeSpheresConfig(size=0)


def test_the_command_makes_shiny_spheres(tmp_path):
    for name, specular in (("dull", "0"), ("shiny", "0.6")):
        out = ["--out", str(tmp_path / name), "--views", "1", "--specular", specular]
        assert cli.main(["data", "make", "three-spheres", *out]) == 0
    dull, shiny = (
        np.asarray(Image.open(tmp_path / name / "train/r_000.png")).astype(int) for name in ("dull", "shiny")
    )
    assert (shiny >= dull).all() and (shiny - dull).max() > 50
