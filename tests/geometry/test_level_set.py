"""Surfaces on sparse lattices: closed, of the right shape and on the right side, wherever the voxels are."""

import math

import numpy as np
import pytest
import torch

from sparse3d.geometry.level_set import follow, level_set
from sparse3d.geometry.mesh import Mesh
from sparse3d_ops import marching_cubes_table as marching_cubes
from sparse3d_ops.visible_samples import lattice


def cube(resolution):
    """Corner rows and points (P, 4) of all voxels of a cube."""
    axis = torch.arange(resolution, dtype=torch.int32)
    voxels = torch.cartesian_prod(torch.zeros(1, dtype=torch.int32), axis, axis, axis)
    points, rows = lattice(voxels)
    return voxels, rows, points


def sphere(points, middle=(0.013, -0.02, 0.005), radius=0.31):
    return radius - (points - torch.tensor(middle)).norm(dim=1)


def torus(points):
    ring = points[:, :2].norm(dim=1) - 0.3
    return 0.11 - torch.stack([ring, points[:, 2]], 1).norm(dim=1)


def extracted(values_of, resolution, dtype=torch.float32):
    """A function of places in [-0.5, 0.5]^3 as a mesh."""
    _, rows, points = cube(resolution)
    places = points[:, 1:].to(dtype) / resolution - 0.5
    surface = level_set(rows, values_of(places))
    return Mesh((surface.positions(points) / resolution - 0.5).numpy(), surface.faces.numpy())


def triangles(surface, points):
    """The triangles as a set: each begins with its smallest corner, in lattice units."""
    corners = surface.positions(points)[surface.faces]
    found = set()
    for triangle in corners.tolist():
        first = min(range(3), key=lambda k: triangle[k])
        found.add(tuple(tuple(triangle[(first + k) % 3]) for k in range(3)))
    return found


def test_the_table_parts_the_corners_of_every_case():
    table, ends = marching_cubes.triangles(), np.stack([marching_cubes.BASE, marching_cubes.TIP], 1)
    for case in range(256):
        inside = np.array([case >> corner & 1 for corner in range(8)], dtype=bool)
        edges = table[case][table[case][:, 0] >= 0]
        crossed = np.flatnonzero(inside[ends[:, 0]] != inside[ends[:, 1]])
        assert set(edges.ravel()) == set(crossed)
        # Directed sides of triangles cancel but for those on faces: the border is a set of loops.
        sides = [tuple(t[[k, (k + 1) % 3]]) for t in edges for k in range(3)]
        border = [side for side in sides if side[::-1] not in sides]
        assert len(set(sides)) == len(sides)
        assert sorted(a for a, _ in border) == sorted(b for _, b in border) == sorted(crossed)
        faces = [set(face) for face in marching_cubes.FACES]
        for a, b in set(sides) - set(border):
            assert not any({*ends[a], *ends[b]} <= face for face in faces), "an inner edge in a face"


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_no_cracks(seed):
    """Every case of the table beside every other, ambiguous faces among them."""
    _, rows, points = cube(12)
    values = torch.randn(len(points), generator=torch.Generator().manual_seed(seed))
    border = ((points[:, 1:] == 0) | (points[:, 1:] == 12)).any(1)
    values[border] = -1.0
    surface = level_set(rows, values)
    mesh = Mesh(surface.positions(points).numpy(), surface.faces.numpy())
    assert len(mesh.faces) > 3000 and mesh.is_closed
    assert mesh.edges[1].max() == 2
    crossings = sum(
        int(((values[rows[:, a].long()] > 0) != (values[rows[:, b].long()] > 0)).sum())
        for a, b in zip(marching_cubes.BASE, marching_cubes.TIP, strict=True)
    )
    assert len(mesh.vertices) == crossings / 4, "inside of the cube an edge has four voxels, and one vertex"


@pytest.mark.parametrize(("shape", "euler"), [(sphere, 2), (torus, 0)])
def test_shapes_have_their_euler_number_and_face_outwards(shape, euler):
    mesh = extracted(shape, 24)
    assert mesh.is_closed and mesh.euler_number == euler and mesh.components[0] == 1
    assert mesh.volume > 0
    slope = torch.from_numpy(mesh.vertices.copy()).requires_grad_()
    shape(slope).sum().backward()
    assert ((-slope.grad.numpy() * mesh.vertex_normals).sum(1) > 0.8).all()


def test_two_spheres_are_two_pieces():
    def both(points):
        return torch.maximum(sphere(points, (-0.2, 0, 0), 0.15), sphere(points, (0.22, 0.1, 0), 0.2))

    mesh = extracted(both, 24)
    assert mesh.is_closed and mesh.components[0] == 2 and mesh.euler_number == 4


def test_errors_fall_with_the_square_of_the_voxel():
    sizes, errors, volumes = (16, 32, 64), [], []
    for resolution in sizes:
        mesh = extracted(sphere, resolution)
        middles = mesh.vertices[mesh.faces].mean(1) - (0.013, -0.02, 0.005)
        errors.append(np.abs(np.linalg.norm(middles, axis=1) - 0.31).mean())
        volumes.append(abs(mesh.volume / (4 / 3 * math.pi * 0.31**3) - 1))
    for found in (errors, volumes):
        slope = np.polyfit(np.log(sizes), np.log(found), 1)[0]
        assert slope == pytest.approx(-2, abs=0.1)
    assert errors[-1] < 0.4 / 64**2 / 0.31  # sag of a chord of a voxel, h^2 / R


def test_only_voxels_at_the_surface_are_needed_and_their_order_does_not_matter():
    voxels, rows, points = cube(16)
    whole = level_set(rows, sphere(points[:, 1:] / 16 - 0.5))
    near = sphere(voxels[:, 1:] / 16 - 0.47).abs() < 0.12
    some = voxels[near][torch.randperm(int(near.sum()), generator=torch.Generator().manual_seed(0))]
    few_points, few_rows = lattice(some)
    surface = level_set(few_rows, sphere(few_points[:, 1:] / 16 - 0.5))
    assert len(some) < len(voxels) / 2
    assert triangles(surface, few_points) == triangles(whole, points)


def test_voxels_with_an_unknown_corner_have_no_surface():
    _, rows, points = cube(16)
    values = sphere(points[:, 1:] / 16 - 0.5)
    values[points[:, 1] > 8] = float("nan")
    surface = level_set(rows, values)
    mesh = Mesh(surface.positions(points).numpy(), surface.faces.numpy())
    assert len(mesh.faces) and mesh.vertices[:, 0].max() <= 8
    single = mesh.edges[0][mesh.edges[1] == 1]
    assert len(single) and (mesh.vertices[single.ravel(), 0] == 8).all(), "cut open along one plane"


def test_infinite_values_and_those_on_the_level_are_harmless():
    _, rows, points = cube(3)
    values = torch.full((len(points),), -float("inf"))
    middle = (points[:, 1:] == 1).all(1)
    values[middle] = float("inf")
    surface = level_set(rows, values)
    assert surface.fraction.eq(0.5).all() and len(surface.faces) == 8
    values = torch.zeros(len(points))  # on the level is outside
    values[middle] = 1.0
    assert len(level_set(rows, values).faces) == 8
    values = torch.full((len(points),), -1.0)  # six vertices at one point, but for the margin
    values[middle] = 1e-30
    mesh = Mesh(level_set(rows, values).positions(points).numpy(), level_set(rows, values).faces.numpy())
    assert mesh.is_closed and mesh.volume > 0 and len(np.unique(mesh.vertices, axis=0)) == 6


def test_vertices_follow_the_values():
    _, rows, points = cube(5)
    values = sphere(points[:, 1:].double() / 5 - 0.5).requires_grad_()

    def places(values):
        return level_set(rows, values).positions(points)

    assert torch.autograd.gradcheck(places, (values,), eps=1e-7)


def test_nothing_has_no_surface():
    _, rows, points = cube(4)
    assert len(level_set(rows, torch.ones(len(points))).faces) == 0
    assert len(level_set(rows[:0], torch.ones(len(points))).low) == 0


def box(half):
    return torch.full((3,), -half, dtype=torch.int32), torch.full((3,), half, dtype=torch.int32)


def test_a_surface_is_followed_from_one_voxel_and_each_place_asked_once():
    asked = []

    def sample(points):
        asked.append(points)
        return 9.3 - (points[:, 1:] - 0.2).norm(dim=1)

    seed = torch.tensor([[0, 9, 0, 0], [0, 0, 0, 0], [0, 99, 0, 0]], dtype=torch.int32)
    found = follow(sample, seed, 0.0, *box(20))
    surface = level_set(found.corner_rows, found.values)
    mesh = Mesh(surface.positions(found.points).numpy(), surface.faces.numpy())
    assert mesh.is_closed and mesh.euler_number == 2
    assert len(torch.unique(torch.cat(asked), dim=0)) == sum(map(len, asked))
    assert torch.equal(found.values, sample(found.points))
    everywhere = follow(
        sample, cube(40)[0] - torch.tensor([[0, 20, 20, 20]], dtype=torch.int32), 0.0, *box(20)
    )
    assert torch.equal(everywhere.voxels, found.voxels)


def test_a_surface_ends_at_the_bounds():
    found = follow(
        lambda points: 9.3 - (points[:, 1:] - 0.2).norm(dim=1),
        torch.tensor([[0, 0, 0, 5]], dtype=torch.int32),
        0.0,
        *box(6),
    )
    assert len(found.voxels) == 0, "a seed inside touches nothing"
    found = follow(lambda points: 7.3 - (points[:, 1:] - 0.2).norm(dim=1), cube(6)[0], 0.0, *box(6))
    surface = level_set(found.corner_rows, found.values)
    mesh = Mesh(surface.positions(found.points).numpy(), surface.faces.numpy())
    single = mesh.edges[0][mesh.edges[1] == 1]
    assert len(single) and (np.abs(mesh.vertices[single]) == 6).any(2).all()
