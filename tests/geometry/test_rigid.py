"""Rigid motions: what they do to points they do to boxes."""

import numpy as np
import pytest

from sparse3d.geometry.boxes import corners
from sparse3d.geometry.rigid import (
    inverse,
    is_rigid,
    rigid,
    rotation_from_euler,
    rotation_from_quaternion,
    transform_boxes,
    transform_points,
)

POSE = rigid(rotation_from_euler(0.2, -0.3, 2.5), np.array([100.0, -20, 3]))


def test_quaternions_and_angles_by_hand():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        rotation_from_quaternion(np.array([half, 0, 0, half])), [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15
    )
    np.testing.assert_allclose(
        rotation_from_euler(np.pi / 2, 0, 0), [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-15
    )
    np.testing.assert_allclose(
        rotation_from_euler(0, np.pi / 2, 0), [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], atol=1e-15
    )
    both = rotation_from_euler(0, 0, 0.4) @ rotation_from_euler(0, 0.3, 0) @ rotation_from_euler(0.2, 0, 0)
    np.testing.assert_allclose(rotation_from_euler(0.2, 0.3, 0.4), both, atol=1e-15)


def test_the_length_of_a_quaternion_does_not_matter_unless_it_is_zero():
    q = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(rotation_from_quaternion(q), rotation_from_quaternion(-3 * q), atol=1e-12)
    assert is_rigid(rigid(rotation_from_quaternion(q), np.zeros(3)))
    with pytest.raises(ValueError, match="length 0"):
        rotation_from_quaternion(np.zeros((2, 4)))


def test_the_inverse_undoes():
    np.testing.assert_allclose(inverse(POSE) @ POSE, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(inverse(np.stack([POSE, np.eye(4)]))[0], inverse(POSE))
    points = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    there = transform_points(points, POSE)
    assert there.dtype == np.float32
    np.testing.assert_array_equal(there[:, 3:], points[:, 3:])
    np.testing.assert_allclose(transform_points(there, inverse(POSE)), points, atol=2e-5)  # float32 at 100 m


def test_boxes_move_like_their_corners_where_frames_do_not_tilt():
    flat = rigid(rotation_from_euler(0, 0, 2.5), np.array([5.0, -2, 1]))
    boxes = np.array([[1.0, 2, 3, 4, 2, 1, 0.3], [-4, 0, 1, 1, 1, 2, -3]])
    moved = transform_boxes(boxes, flat)
    expected = transform_points(corners(boxes).reshape(-1, 3), flat).reshape(2, 8, 3)
    np.testing.assert_allclose(corners(moved), expected, atol=1e-12)
    np.testing.assert_allclose(transform_boxes(boxes, np.stack([flat, np.eye(4)]))[0], moved[0])


def test_what_is_no_rigid_motion():
    assert is_rigid(POSE) and is_rigid(np.zeros((0, 4, 4)))
    for bad in (np.zeros((4, 4)), np.diag([1.0, 1, -1, 1]), np.diag([2.0, 1, 1, 1]), np.full((4, 4), np.nan)):
        assert not is_rigid(bad)
