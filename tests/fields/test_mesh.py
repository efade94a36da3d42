"""The surface of a field is where the field says, closed, whatever kind of field it is."""

import math

import numpy as np
import pytest
import torch

from sparse3d.fields import mesh as mesh_module
from sparse3d.fields.hash_field import HashField, HashFieldConfig
from sparse3d.fields.mesh import DEPTH_OF_SIDE, MeshConfig, default_level, field_mesh
from sparse3d.fields.nerf import NeRF
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.volsdf import VolSDF, VolSDFConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig

MIDDLE = torch.tensor([0.1, -0.05, 0.2])
SPACE = SpaceConfig(low=(-0.9, -1.1, -0.8), side=2.0)


def distance(points, radius=0.5):
    return (points - MIDDLE).norm(dim=1) - radius


def voxel_sphere(resolution=16, prune=True):
    """Density exp(-20 distance) in 1 / metre, at the corners of the voxels, and colours that say where."""
    field = VoxelField(VoxelFieldConfig(space=SPACE, resolution=resolution, sh_degree=0))
    with torch.no_grad():
        corners = field.lattice.points[:, 1:] * field.voxel_size + torch.tensor(SPACE.low)
        sigma = torch.exp((-20 * distance(corners)).clamp(max=4))
        field.raw_density.copy_(torch.log(torch.expm1((sigma * field.unit).double()))[:, None])
        field.harmonics.copy_(corners)
    if prune:
        field.prune(0.02)
    return field


def network_sphere(cls=HashField, config=None, radius=0.5):
    """A field of functions with the density exp(-20 distance)."""
    field = cls(config or HashFieldConfig(space=SPACE))

    def raw(unit):
        low, high = SPACE.corners(unit)
        points = unit * SPACE.side / 2 + (low + high) / 2
        return torch.exp((-20 * distance(points, radius)).clamp(max=4)) * SPACE.side / 2

    field.raw_density = raw
    return field


def errors(mesh, level):
    """How far vertices are from where exp(-20 distance) is the level."""
    return np.abs(distance(torch.from_numpy(mesh.vertices)).numpy() + math.log(level) / 20)


@pytest.mark.parametrize("make", [voxel_sphere, network_sphere])
@pytest.mark.parametrize("level", [None, 1.0, 3.0])
def test_a_density_is_cut_at_its_level(make, level):
    field = make()
    mesh = field_mesh(field, MeshConfig(level=level, resolution=32))
    found = level or DEPTH_OF_SIDE / SPACE.side
    assert default_level(field) == DEPTH_OF_SIDE / SPACE.side
    assert mesh.is_closed and mesh.euler_number == 2 and mesh.volume > 0
    # Voxels interpolate between their corners, a function is met where it is: within 1/256 of a cell.
    assert errors(mesh, found).max() < (0.02 if make is voxel_sphere else 2 / 32 / 200)
    assert mesh.colors is not None and len(np.unique(mesh.colors, axis=0)) > 1


def test_a_finer_mesh_of_a_voxel_field_is_on_its_own_surface():
    field = voxel_sphere()
    for resolution in (16, 64):
        mesh = field_mesh(field, MeshConfig(level=2.0, resolution=resolution))
        with torch.no_grad():
            density = field.density(torch.from_numpy(mesh.vertices))
        slope = 20 * 2.0  # of the density, 1 / metre^2
        assert ((density - 2.0).abs() / slope).max() < 2 / resolution / 128
    assert len(mesh.faces) > 12 * 16**2


def test_colours_are_those_of_the_field_on_the_surface():
    field = voxel_sphere()
    mesh = field_mesh(field)
    with torch.no_grad():
        seen = field.color(torch.from_numpy(mesh.vertices), torch.from_numpy(-mesh.vertex_normals))
    assert np.abs(mesh.colors / 255 - seen.numpy()).max() <= 0.5 / 255 + 1e-6
    assert np.corrcoef(mesh.colors[:, 0], mesh.vertices[:, 0])[0, 1] > 0.99


def test_a_signed_distance_is_cut_at_zero():
    torch.manual_seed(0)
    field = VolSDF(VolSDFConfig(space=SPACE))
    mesh = field_mesh(field, MeshConfig(resolution=32))
    with torch.no_grad():
        left = field.distance(torch.from_numpy(mesh.vertices))
    assert mesh.is_closed and mesh.euler_number == 2 and mesh.volume > 0, "it begins as a sphere"
    assert left.abs().max() < 2 / 32 / 128
    larger = field_mesh(field, MeshConfig(resolution=32, level=0.1))
    assert larger.volume > 1.2 * mesh.volume


def test_the_search_finds_what_a_dense_grid_finds(monkeypatch):
    """From 24 cells to 96, against all 96^3 cells at once."""
    field = network_sphere(radius=0.3)
    monkeypatch.setattr(mesh_module, "_SCAN", 24)
    mesh = field_mesh(field, MeshConfig(resolution=96, level=1.0))
    monkeypatch.setattr(mesh_module, "_SCAN", 96)
    whole = field_mesh(field, MeshConfig(resolution=96, level=1.0))
    assert np.array_equal(mesh.vertices, whole.vertices) and np.array_equal(mesh.faces, whole.faces)


def test_voxels_that_were_dropped_too_early_leave_no_crack():
    field = voxel_sphere(prune=False)
    kept = (field.coordinates[:, 1:] - 8).abs().amax(1) < 3  # only the inside: dense up to the last voxel
    fewer, rows = field.lattice.keep(kept)
    field._reshape(fewer, field.raw_density[rows], field.harmonics[rows])
    assert field_mesh(field, MeshConfig(level=1.0)).is_closed


def test_a_surface_that_leaves_the_cube_is_open_there():
    field = network_sphere(radius=1.5)
    mesh = field_mesh(field, MeshConfig(resolution=32))
    border = mesh.edges[0][mesh.edges[1] == 1]
    low = np.array(SPACE.low)
    ends = mesh.vertices[np.unique(border)]
    assert len(ends) and (np.minimum(ends - low, low + SPACE.side - ends).min(1) < 1e-3).all()
    assert (mesh.vertices >= low).all() and (mesh.vertices <= low + SPACE.side).all()


def test_small_pieces_and_hollows_are_left_out():
    def two(points):  # a shell, and a small ball beside it
        shell = (distance(points).abs() - 0.1) * 20
        ball = ((points - torch.tensor([-0.6, -0.8, -0.5])).norm(dim=1) - 0.12) * 20
        return torch.exp(-torch.minimum(shell, ball).clamp(min=-4)) * SPACE.side / 2

    field = network_sphere()
    field.raw_density = lambda unit: two(unit + torch.tensor([0.1, -0.1, 0.2]))
    whole = field_mesh(field, MeshConfig(level=1.0, resolution=48, min_faces=0))
    assert whole.components[0] == 2 and whole.is_closed and whole.volume > 4 / 3 * math.pi * 0.58**3
    large = field_mesh(field, MeshConfig(level=1.0, resolution=48, min_faces=1000))
    assert large.components[0] == 1 and large.is_closed


def test_a_field_that_is_empty_or_full_has_no_surface():
    with pytest.raises(ValueError, match="level 1e\\+06 nowhere.*--level"):
        field_mesh(voxel_sphere(), MeshConfig(level=1e6))
    with pytest.raises(ValueError, match="nowhere"):
        field_mesh(network_sphere(radius=9.0), MeshConfig(resolution=16))
    for wrong in ({"resolution": 1}, {"level": float("nan")}):
        with pytest.raises(ValueError):
            MeshConfig(**wrong)


def test_every_kind_of_field_has_a_mesh():
    torch.manual_seed(0)
    mesh = field_mesh(network_sphere(NeRF, NeRF().config.__class__(space=SPACE)), MeshConfig(resolution=16))
    assert mesh.is_closed and mesh.colors is not None
