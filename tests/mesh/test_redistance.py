"""Distances again: of slope 1, with the zeros where they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.redistance import redistance
from sparse3d.mesh.signed_band import SignedBand, band_from_mesh, band_to_mesh
from sparse3d_ops.hashing import build, look_up, pack
from tests.mesh.shapes import icosphere

VOXEL = 0.04


def distorted(band):
    """The zeros stay, but for what is between two lattice points; the slope goes from 0.2 to 4."""
    size = (1 + 0.5 * np.sin(7 * band.places[:, 0])) * np.exp(band.places[:, 1])
    return replace(band, distances=(band.distances * size).astype(np.float32))


def slopes(band):
    """(N,) |grad| by central differences, where both neighbours along each axis are in the band."""
    points = torch.from_numpy(band.points)
    table, parts, whole = build(pack(points)), [], np.ones(len(points), bool)
    for axis in range(3):
        step = torch.zeros(4, dtype=torch.int32)
        step[1 + axis] = 1
        after, before = (look_up(*table, pack(points + sign * step)).numpy() for sign in (1, -1))
        whole &= (after >= 0) & (before >= 0)
        parts.append((band.distances[after] - band.distances[before]) / (2 * band.voxel_size))
    return np.linalg.norm(np.stack(parts, 1)[whole], axis=1)


@pytest.fixture(scope="module")
def wrong():
    return distorted(band_from_mesh(icosphere(rounds=5), VOXEL))


def test_the_slope_is_one(wrong):
    assert np.abs(slopes(wrong) - 1).mean() > 0.3
    assert np.abs(slopes(redistance(wrong)) - 1).mean() <= 0.02


def test_the_zeros_stay(wrong):
    before, after = band_to_mesh(wrong), band_to_mesh(redistance(wrong))
    for one, other in ((before, after), (after, before)):
        moved = MeshDistance(one).unsigned(other.vertices.astype(np.float64))
        assert moved.max() <= 0.05 * VOXEL
    assert after.is_closed and len(after.faces) == len(before.faces)


def test_distances_are_those_of_the_sphere(wrong):
    truth = np.linalg.norm(wrong.places, axis=1) - 1
    assert np.abs(redistance(wrong).distances - truth).mean() < 0.02 * VOXEL


def test_points_colours_and_sides_are_kept(wrong):
    colors = np.arange(3 * len(wrong.points)).reshape(-1, 3).astype(np.uint8)
    found = redistance(replace(wrong, colors=colors))
    assert found.points is wrong.points and found.colors is colors
    assert ((found.distances < 0) == (wrong.distances < 0)).all()


def test_a_band_on_one_side_is_refused():
    points = np.pad(np.argwhere(np.ones((2, 2, 2))), ((0, 0), (1, 0))).astype(np.int32)
    with pytest.raises(ValueError, match="8 points has values on both sides"):
        redistance(SignedBand(points, np.ones(8, np.float32), 1.0, np.zeros(3)))
