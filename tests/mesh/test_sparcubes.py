"""Sparcubes: closed whatever came in, and where the mesh is."""

import numpy as np
import pytest

from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.signed_band import band_from_mesh
from sparse3d.mesh.sparcubes import mesh_to_sparcubes, sparcubes_to_mesh
from tests.mesh.shapes import box, hemisphere, icosphere, joined, turned

VOXEL = 0.04


def wrapped(mesh, seal=1.0):
    return sparcubes_to_mesh(mesh_to_sparcubes(mesh, VOXEL, seal))


def on(mesh, count=20_000):
    face, weights = mesh.spread_points(count)
    return (weights[:, :, None] * mesh.vertices[mesh.faces[face]].astype(np.float64)).sum(1)


def test_a_closed_mesh_has_the_signs_of_its_winding_number():
    mesh = icosphere(rounds=4)
    deformed = mesh_to_sparcubes(mesh, VOXEL)
    moved = (deformed.offsets != 0).any(1)
    assert moved.mean() < 1e-3  # where the sphere pokes through an edge and back
    signed = MeshDistance(mesh).signed(deformed.band.places)
    np.testing.assert_allclose(deformed.band.distances[~moved], signed[~moved], atol=1e-6)
    found = sparcubes_to_mesh(deformed)
    assert (
        found.is_closed and found.euler_number == 2 and found.volume == pytest.approx(mesh.volume, rel=2e-3)
    )


@pytest.mark.parametrize("res", [0.0, 0.013])
def test_walls_within_are_not_there_and_senses_do_not_matter(res):
    outer = icosphere(rounds=4, middle=(res, res, 0))
    mesh = joined(turned(outer), icosphere(0.5), icosphere(1, (0.7, 0.1, 0.2), 4))
    found = wrapped(mesh)
    assert found.is_closed and found.components[0] == 1 and found.euler_number == 2
    at = on(found)
    apart = np.minimum(
        np.linalg.norm(at - (res, res, 0), axis=1) - 1, np.linalg.norm(at - (0.7, 0.1, 0.2), axis=1) - 1
    )
    # Where the spheres meet in a crease, cubes cut it.
    assert np.abs(apart).mean() < 0.05 * VOXEL and np.abs(apart).max() < VOXEL


def test_a_sheet_is_wrapped_thinly_and_closed():
    """An open hemisphere: one shell around it, no holes in it, everywhere near it."""
    mesh = hemisphere(rounds=5)
    found = wrapped(mesh)
    assert found.is_closed and found.components[0] == 1 and found.euler_number == 2
    assert MeshDistance(mesh).unsigned(on(found)).max() < VOXEL
    assert MeshDistance(found).unsigned(on(mesh)).mean() < 0.1 * VOXEL
    assert 0 < found.volume / (mesh.area * VOXEL) < 0.3


def test_holes_narrower_than_the_seal_are_closed_over():
    """A sphere without one of its 1280 triangles, a hole 2.4 voxels wide."""
    whole = icosphere(rounds=3)
    mesh = whole.select(np.arange(len(whole.faces)) != 77)
    assert not mesh.is_closed
    thin, solid = wrapped(mesh), wrapped(mesh, seal=4.0)
    assert thin.is_closed and abs(thin.volume) < 0.3
    assert solid.is_closed and solid.euler_number == 2
    assert solid.volume == pytest.approx(whole.volume, rel=5e-3)


def test_a_plate_thinner_than_a_voxel_stays():
    plate = box((-1, -1, 0), (1, 1, 0.3 * VOXEL))
    found = wrapped(plate)
    assert found.is_closed and found.components[0] == 1 and found.euler_number == 2
    assert MeshDistance(found).unsigned(on(plate)).max() < VOXEL


def test_a_hollow_is_filled():
    """What cannot be reached from outside is inside."""
    found = wrapped(joined(icosphere(rounds=4), turned(icosphere(0.5))))
    assert found.components[0] == 1 and found.volume == pytest.approx(4 / 3 * np.pi, rel=0.01)
    assert (band_from_mesh(icosphere(0.5), VOXEL).distances < 0).any()


def test_triangles_without_area_and_soups_are_closed_too():
    rng = np.random.default_rng(0)
    soup = Mesh(rng.normal(size=(90, 3)), np.arange(90).reshape(-1, 3))
    found = wrapped(joined(soup, Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]))))
    assert found.is_closed
    assert MeshDistance(soup).unsigned(on(found)).max() < 2 * VOXEL


def test_what_cannot_be_wrapped_is_refused():
    with pytest.raises(ValueError, match="seal is 0.5"):
        mesh_to_sparcubes(box(), VOXEL, seal=0.5)
    with pytest.raises(ValueError, match="without triangles"):
        mesh_to_sparcubes(Mesh(np.zeros((0, 3)), np.zeros((0, 3), int)), VOXEL)
    with pytest.raises(ValueError, match="voxel_size is"):
        mesh_to_sparcubes(box(), -1.0)
