"""Paths around scenes follow the cameras that took the photos."""

import math

import numpy as np
import pytest

from sparse3d.data.three_spheres import cameras as around
from sparse3d.geometry.cameras import Camera, Cameras
from sparse3d.geometry.orbits import even_directions, looking, orbit, upright
from sparse3d.geometry.rigid import rigid, rotation_from_euler

TILT = rigid(rotation_from_euler(np.array(0.4), np.array(-0.3), np.array(1.0)), np.array([3.0, -2.0, 5.0]))


def stack(poses, size=(80, 60)):
    return Cameras.stack([Camera(70.0, 72.0, 41.0, 29.0, *size, pose) for pose in poses])


def fan(count=5, half=0.4):
    """Cameras on an arc before the origin, which they look at; up is +z."""
    angles = np.linspace(-half, half, count)
    eyes = [2 * np.array([math.cos(a), math.sin(a), 0.2 * math.cos(3 * a)]) for a in angles]
    return [looking(eye, np.zeros(3), np.array([0.0, 0, 1])) for eye in eyes]


def test_cameras_all_around_give_a_full_circle_in_the_scenes_own_frame():
    poses = TILT @ around(40, seed=1)
    target, up = TILT[:3, 3], TILT[:3, 2]
    cameras = stack(poses)
    np.testing.assert_allclose(upright(cameras), up, atol=0.1)
    path = orbit(cameras, target, 12, longer_side=40)
    away = np.array([shot.camera_to_world[:3, 3] for shot in path]) - target
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), 2.4, rtol=1e-6)
    heights = away @ upright(cameras)
    np.testing.assert_allclose(heights, heights[0], rtol=1e-6)
    assert heights[0] == pytest.approx(((poses[:, :3, 3] - target) @ upright(cameras)).mean(), rel=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(away, axis=0, append=away[:1]), axis=1).std(), 0, atol=1e-6
    )
    for shot in path:
        assert (shot.width, shot.height) == (40, 30)
        assert shot.fx / shot.width == pytest.approx(70 / 80) and shot.fy / shot.height == pytest.approx(
            72 / 60
        )
        pixel, depth = shot.project(target[None])
        np.testing.assert_allclose(pixel[0], [20, 15], atol=1e-6)
        assert depth[0] == pytest.approx(2.4)
        assert shot.camera_to_world[:3, 1] @ up < 0, "upright"


def test_cameras_on_one_side_give_a_path_that_stays_there():
    cameras = stack(fan())
    path = orbit(cameras, np.zeros(3), 16)
    eyes = np.array([shot.camera_to_world[:3, 3] for shot in path])
    angles = np.arctan2(eyes[:, 1], eyes[:, 0])
    assert np.abs(angles).max() <= 0.4 and angles.max() > 0.3 and angles.min() < -0.3
    steps = np.linalg.norm(np.diff(eyes, axis=0, append=eyes[:1]), axis=1)
    assert steps.max() < 4 * np.median(steps), "it ends where it began"


def test_one_camera_and_cameras_from_straight_above_have_a_path():
    assert len(orbit(stack(fan(1)), np.zeros(3), 3)) == 3
    eyes = [np.array([0.3 * math.cos(a), 0.3 * math.sin(a), 5.0]) for a in (0.3, 2.3, 4.4)]
    above = [looking(eye, np.zeros(3), np.array([1.0, 0, 0])) for eye in eyes]
    for shot in orbit(stack(above), np.zeros(3), 5):
        assert np.isfinite(shot.camera_to_world).all()
    # Rolled all around the axis they share, so that no direction is up for most of them.
    turns = [rigid(rotation_from_euler(*np.array([0, 0, a])), np.zeros(3)) for a in (0, 2.1, 4.2)]
    rolled = [pose @ turn for pose, turn in zip(above, turns, strict=True)]
    assert np.isfinite(upright(stack(rolled))).all()


def test_paths_that_cannot_be():
    with pytest.raises(ValueError, match="at least one"):
        orbit(stack(fan()), np.zeros(3), 0)
    with pytest.raises(ValueError, match="stand off"):
        orbit(stack([np.eye(4)]), np.zeros(3), 4)
    with pytest.raises(ValueError, match="upright"):
        looking(np.array([0, 0, 1.0]), np.zeros(3), np.array([0, 0, 1.0]))


def test_directions_are_even():
    ways = even_directions(500)
    np.testing.assert_allclose(np.linalg.norm(ways, axis=1), 1)
    # A random half space holds half of them; independent draws would be off by 11.
    for axis in even_directions(17):
        assert abs((ways @ axis > 0).sum() - 250) <= 6
