"""A similarity that was applied is found again, from however few cameras."""

import numpy as np
import pytest

from sparse3d.geometry.alignment import Similarity, pose_errors, similarity_between
from sparse3d.geometry.rigid import rigid, rotation_from_euler


def some_poses(count, seed=0):
    random = np.random.default_rng(seed)
    angles = random.uniform(-3, 3, (3, count))
    return rigid(rotation_from_euler(*angles), random.normal(size=(count, 3)))


MOVE = Similarity(1.7, rotation_from_euler(*np.array([0.4, -1.1, 2.0])), np.array([3.0, -2.0, 0.5]))


@pytest.mark.parametrize("count", [2, 3, 12])
def test_a_similarity_is_found(count):
    source = some_poses(count)
    found = similarity_between(source, MOVE.poses(source))
    assert found.scale == pytest.approx(MOVE.scale)
    np.testing.assert_allclose(found.rotation, MOVE.rotation, atol=1e-12)
    np.testing.assert_allclose(found.translation, MOVE.translation, atol=1e-12)
    angles, distances = pose_errors(source, MOVE.poses(source))
    assert angles.max() < 1e-7 and distances.max() < 1e-12


def test_a_point_moves_with_its_camera():
    pose = some_poses(1)
    in_camera = np.array([0.3, 0.2, 2.0])
    before = pose[0, :3, :3] @ in_camera + pose[0, :3, 3]
    moved = MOVE.poses(pose)[0]
    after = moved[:3, :3] @ (MOVE.scale * in_camera) + moved[:3, 3]
    np.testing.assert_allclose(after, MOVE.scale * MOVE.rotation @ before + MOVE.translation, atol=1e-12)


@pytest.mark.parametrize("places", [[[1.0, 2, 3]], [[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[1, 1, 1]] * 3])
def test_cameras_in_a_line_or_in_one_place_have_axes_too(places):
    source = some_poses(len(places))
    source[:, :3, 3] = places
    found = similarity_between(source, MOVE.poses(source))
    np.testing.assert_allclose(found.rotation, MOVE.rotation, atol=1e-12)
    np.testing.assert_allclose(found.poses(source)[:, :3, :3], MOVE.poses(source)[:, :3, :3], atol=1e-12)
    assert found.scale == pytest.approx(1.0 if len(np.unique(places, axis=0)) == 1 else MOVE.scale)


def test_errors_are_angles_and_metres():
    truth = some_poses(40)
    found = truth.copy()
    turn = rotation_from_euler(*np.array([0.0, 0.0, 0.05]))
    found[0, :3, :3] = truth[0, :3, :3] @ turn
    found[1, :3, 3] += [0.2, 0, 0]
    angles, distances = pose_errors(found, truth)
    # The other 38 hold the frame, up to about 1 / 38 of what the two ask for.
    assert angles[0] == pytest.approx(0.05, rel=0.1) and np.median(angles) < 5e-3
    assert distances[1] == pytest.approx(0.2, rel=0.1) and np.median(distances) < 2e-2


def test_different_numbers_of_cameras_are_refused():
    with pytest.raises(ValueError, match="expected as many"):
        similarity_between(some_poses(3), some_poses(2))
