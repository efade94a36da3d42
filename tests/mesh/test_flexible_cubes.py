"""Flexible cubes: closed where voxels are, open where they are not, with gradients that a fit can use."""

import numpy as np
import pytest
import torch

from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.flexible_cubes import FlexibleWeights, flexible_surface
from sparse3d_ops.visible_samples import lattice
from tests.mesh.shapes import box


def cube(count, dtype=torch.float32):
    """Voxels of a cube around the origin, their corners' rows and points, and the points' places."""
    axis = torch.arange(-(count // 2), count - count // 2, dtype=torch.int32)
    voxels = torch.cartesian_prod(torch.zeros(1, dtype=torch.int32), axis, axis, axis)
    points, rows = lattice(voxels)
    return voxels, rows, points, points[:, 1:].to(dtype)


def mesh_of(surface):
    return Mesh(surface.vertices.detach().numpy(), surface.faces.numpy())


def some_weights(count, dtype, seed=0):
    make = torch.Generator().manual_seed(seed)
    return FlexibleWeights(*(torch.randn(count, *n, generator=make, dtype=dtype) for n in ((8,), (12,), ())))


@pytest.mark.parametrize("centres", [False, True])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_sphere_is_closed_and_faces_outwards_for_any_weights_and_offsets(seed, centres):
    voxels, rows, points, x = cube(14)
    values, offsets, weights = x.norm(dim=1) - 5.3, None, None
    if seed is not None:
        offsets = torch.randn(len(points), 3, generator=torch.Generator().manual_seed(seed))
        weights = some_weights(len(voxels), torch.float32, seed)
    mesh = mesh_of(flexible_surface(voxels, rows, points, values, offsets, weights, centres))
    assert mesh.is_closed and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 5.3**3, rel=0.06 if seed is None else 0.2)


def test_a_plane_is_flat_and_where_it_was():
    voxels, rows, points, x = cube(6, torch.float64)
    normal = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    surface = flexible_surface(voxels, rows, points, x @ normal - 0.3, weights=None)
    assert len(surface.faces) > 20
    torch.testing.assert_close(surface.vertices @ normal, torch.full((len(surface.vertices),), 0.3).double())


def test_vertices_are_the_formula_s():
    """One voxel with one corner inside: three crossings, worked out by hand."""
    voxels, rows, points, x = cube(1, torch.float64)
    values = torch.ones(8, dtype=torch.float64)
    values[rows[0, 0].long()] = -0.5
    weights = some_weights(1, torch.float64)
    surface = flexible_surface(voxels, rows, points, values, weights=weights)
    alpha, beta = 0.99 * weights.alpha.tanh()[0] + 1, 0.99 * weights.beta.tanh()[0] + 1
    want, total = torch.zeros(3).double(), 0.0
    for tip, edge in ((4, 0), (2, 4), (1, 8)):  # the edges that begin at corner 0
        s_i, s_j = -0.5 * alpha[0], alpha[tip]
        u = (s_i * x[rows[0, tip].long()] - s_j * x[rows[0, 0].long()]) / (s_i - s_j)
        want, total = want + beta[edge] * u, total + beta[edge]
    torch.testing.assert_close(surface.vertices, (want / total)[None])
    assert len(surface.faces) == 0, "no edge has four voxels"


def test_the_surface_is_open_where_voxels_are_missing():
    voxels, _, _, _ = cube(14)
    voxels = voxels[voxels[:, 3] >= 1]
    points, rows = lattice(voxels)
    mesh = mesh_of(flexible_surface(voxels, rows, points, points[:, 1:].float().norm(dim=1) - 5.3))
    ends, count = mesh.edges
    rim = mesh.vertices[ends[count == 1]]
    assert mesh.euler_number == 1 and len(rim) and (rim[..., 2] < 2).all()


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_no_border(seed):
    """Each case beside each other: where two tunnels meet an edge has four faces, never one or three."""
    voxels, rows, points, x = cube(10)
    values = torch.randn(len(points), generator=torch.Generator().manual_seed(seed))
    values[(x.abs() == 5).any(1)] = 1.0
    mesh = mesh_of(flexible_surface(voxels, rows, points, values))
    assert len(mesh.faces) > 1000 and set(np.unique(mesh.edges[1])) <= {2, 4}
    ends = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    there, back = (np.sort(e.astype(np.int64) @ [len(mesh.vertices), 1]) for e in (ends, ends[:, ::-1]))
    np.testing.assert_array_equal(there, back)


@pytest.mark.parametrize("centres", [False, True])
def test_gradients_equal_finite_differences(centres):
    voxels, rows, points, _ = cube(2, torch.float64)
    make = torch.Generator().manual_seed(1)
    values = torch.randn(len(points), generator=make, dtype=torch.float64)
    values = values + values.sign() * 0.1  # no side changes within a step
    offsets = torch.randn(len(points), 3, generator=make, dtype=torch.float64)
    weights = some_weights(len(voxels), torch.float64)

    def outputs(values, offsets, *weights):
        surface = flexible_surface(voxels, rows, points, values, offsets, FlexibleWeights(*weights), centres)
        return surface.vertices, surface.deviation

    arguments = [a.requires_grad_() for a in (values, offsets, *weights)]
    assert torch.autograd.gradcheck(outputs, arguments)


def test_a_regular_piece_does_not_deviate():
    voxels, rows, points, _ = cube(1, torch.float64)
    values = torch.ones(8, dtype=torch.float64)
    values[rows[0, 0].long()] = -1.0
    assert float(flexible_surface(voxels, rows, points, values).deviation) == pytest.approx(0, abs=1e-12)
    values[rows[0, 1].long()] = 0.2
    assert float(flexible_surface(voxels, rows, points, values).deviation) > 0.05


def test_gradient_descent_fits_a_box_sharper_than_the_lattice():
    """From a sphere, by the distance of the surface from the box and of the box from the surface."""
    voxels, rows, points, x = cube(12)
    half = torch.tensor([4.2, 3.3, 2.4])
    target = box(-half.numpy(), half.numpy())
    face, parts = target.spread_points(1500)
    on_box = torch.from_numpy((parts[:, :, None] * target.vertices[target.faces[face]]).sum(1)).float()
    values, offsets = x.norm(dim=1) - 3.1, torch.zeros(len(points), 3)
    weights = FlexibleWeights.neutral(len(voxels), values)
    fitted = [a.requires_grad_() for a in (values, offsets, *weights)]
    optimizer = torch.optim.Adam(fitted, lr=0.05)
    for _ in range(120):
        surface = flexible_surface(voxels, rows, points, values, offsets, weights, centres=True)
        places = torch.cat([surface.vertices, surface.vertices[surface.faces].mean(1)])
        out = places.abs() - half
        apart = out.clamp(min=0).norm(dim=1) + out.amax(1).clamp(max=0)
        nearest = places[torch.cdist(on_box, places.detach()).argmin(1)]
        loss = apart.square().mean() + (nearest - on_box).square().sum(1).mean() + 0.02 * surface.deviation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mesh = mesh_of(flexible_surface(voxels, rows, points, values, offsets, weights))
    assert mesh.is_closed and mesh.euler_number == 2 and mesh.volume == pytest.approx(target.volume, rel=0.01)
    away = MeshDistance(mesh).unsigned(on_box.numpy())
    assert away.mean() < 0.03 and away.max() < 0.4  # voxels


def test_nothing_and_what_does_not_fit():
    voxels, rows, points, x = cube(2)
    none = flexible_surface(voxels, rows, points, torch.ones(len(points)))
    assert len(none.vertices) == 0 and len(none.faces) == 0 and float(none.deviation) == 0
    empty = flexible_surface(voxels[:0], rows[:0], points[:0], x[:0, 0])
    assert len(empty.faces) == 0
    with pytest.raises(ValueError, match="values has shape"):
        flexible_surface(voxels, rows, points, x)
    with pytest.raises(ValueError, match=r"values\[0\] is not finite"):
        flexible_surface(voxels, rows, points, x[:, 0] + torch.nan)
    with pytest.raises(ValueError, match="corner_rows"):
        flexible_surface(voxels, rows + 20, points, x[:, 0])
    with pytest.raises(ValueError, match="beta has shape"):
        weights = FlexibleWeights.neutral(len(voxels), x)._replace(beta=torch.zeros(len(voxels), 8))
        flexible_surface(voxels, rows, points, x[:, 0], weights=weights)
