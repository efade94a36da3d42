"""Marching cubes over blocks as a whole: how exact the surface of a known shape is, and of which kind.

`tests/ops/test_marching_cubes.py` holds the op to its definition, `tests/geometry/test_level_set.py` the
positions on a list of voxels.
"""

import numpy as np
import pytest
import torch

from sparse3d.geometry.level_set import crossing
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.lattice_blocks import LatticeBlocks, surface_of
from sparse3d_ops.marching_cubes import dense_neighbours, extract_blocks

SIZES = (24, 48, 96)  # lattice points along an axis


def sphere(x):
    return np.linalg.norm(x - (0.013, -0.02, 0.005), axis=-1) - 0.31


def torus(x):
    return np.hypot(np.hypot(x[..., 0], x[..., 1] - 0.007) - 0.3, x[..., 2] + 0.003) - 0.11


def dense(shape, size):
    """Over all of [-0.5, 0.5]^3."""
    axis = np.linspace(-0.5, 0.5, size)
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    values = torch.from_numpy(-shape(places))[None]
    low, high, faces = extract_blocks(values, dense_neighbours(), 0.0)
    part = crossing(values.view(-1)[low], values.view(-1)[high]).numpy()[:, None]
    a, b = (places.reshape(-1, 3)[ends.numpy()] for ends in (low, high))
    return Mesh(a + part * (b - a), faces.numpy())


@pytest.mark.parametrize(
    ("shape", "radius", "euler"), [(sphere, 0.31, 2), (torus, 0.11, 0)], ids=["sphere", "torus"]
)
def test_errors_fall_with_the_square_of_the_step_and_the_kind_is_right(shape, radius, euler):
    errors = []
    for size in SIZES:
        mesh, step = dense(shape, size), 1 / (size - 1)
        assert mesh.is_closed and mesh.euler_number == euler and mesh.components[0] == 1
        face, weights = mesh.spread_points(20_000)
        on = (weights[:, :, None] * mesh.vertices[mesh.faces[face]].astype(np.float64)).sum(1)
        errors.append(np.abs(shape(on)).mean())
        # A chord's sag is h^2 / 8 R at most in each direction; the torus is also curved the other way.
        assert errors[-1] <= 0.25 * step**2 / radius
    slope = np.polyfit(np.log([size - 1 for size in SIZES]), np.log(errors), 1)[0]
    assert slope == pytest.approx(-2, abs=0.1)


def test_a_band_has_the_surface_of_the_whole_grid():
    """Cut into blocks of which most are not there, in any order."""
    size = 40
    whole = dense(torus, size)
    axis = np.arange(size)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    values = torus(points / (size - 1) - 0.5)
    near = np.abs(values) < 2 / (size - 1)
    order = np.random.default_rng(0).permutation(np.flatnonzero(near))
    listed = np.pad(points[order], ((0, 0), (1, 0))).astype(np.int32)
    found = surface_of(listed, -values[order])
    places = found.between(listed[:, 1:]) / (size - 1) - 0.5
    part = Mesh(places, found.faces)
    assert len(order) < 0.2 * len(points) and part.is_closed
    assert len(part.faces) == len(whole.faces) and len(part.vertices) == len(whole.vertices)
    assert MeshDistance(whole).unsigned(part.vertices.astype(np.float64)).max() < 1e-6


def test_points_of_negative_blocks_are_points_like_others():
    axis = np.arange(-13, 14)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    listed = np.pad(points, ((0, 0), (1, 0))).astype(np.int32)
    found = surface_of(listed, 9.3 - np.linalg.norm(points, axis=1))
    mesh = Mesh(found.between(listed[:, 1:]), found.faces)
    assert mesh.is_closed and mesh.euler_number == 2
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 9.3).max() < 0.02


def test_a_point_that_is_given_twice_is_told():
    points = np.array([[0, 1, 2, 3], [0, 4, 5, 6], [0, 1, 2, 3]], np.int32)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) is given more than once"):
        LatticeBlocks.of_points(points)
