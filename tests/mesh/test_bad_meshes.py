"""Meshes as they come from the wild: each way to voxels takes them or says why not, and never hangs."""

import numpy as np
import pytest

from sparse3d.geometry import memory
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.dual_grid import dual_grid_to_mesh, mesh_to_dual_grid
from sparse3d.mesh.signed_band import band_from_mesh, band_to_mesh
from sparse3d.mesh.sparcubes import mesh_to_sparcubes, sparcubes_to_mesh
from tests.mesh.shapes import box, hemisphere, icosphere, joined

WAYS = {
    "band": lambda mesh, size: band_to_mesh(band_from_mesh(mesh, size)),
    "sparcubes": lambda mesh, size: sparcubes_to_mesh(mesh_to_sparcubes(mesh, size)),
    "dual_grid": lambda mesh, size: dual_grid_to_mesh(mesh_to_dual_grid(mesh, size)),
}
VOXEL = 0.06
THREE_AT_AN_EDGE = Mesh(
    np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0.5], [-0.5, 0.8, 0.5], [-0.5, -0.8, 0.5]]),
    np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]),
)
NEEDLES = Mesh(
    np.array([[0, 0, 0], [1, 1e-7, 0], [2, 0, 0], [0, 0, 1], [0, 0, 1], [1, 1, 1]]),
    np.array([[0, 1, 2], [3, 4, 5], [3, 3, 3], [5, 5, 2]]),
)
MESHES = {
    "three_faces_at_an_edge": THREE_AT_AN_EDGE,
    "needles_and_points": NEEDLES,
    "a_sphere_among_needles": joined(icosphere(), NEEDLES),
    "the_same_faces_twice": joined(icosphere(), icosphere()),
    "faces_turned_at_random": Mesh(
        icosphere().vertices,
        np.where(np.arange(1280)[:, None] % 3 == 0, icosphere().faces[:, ::-1], icosphere().faces),
    ),
    "open": hemisphere(),
    "two_boxes_with_a_common_side": joined(box(), box((1, -0.5, -0.25), (2, 0.5, 0.25))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MESHES)
def test_what_comes_back_is_where_the_mesh_was(name, way):
    """Whatever a way can make of it; at least nothing is made up far from the mesh."""
    found = WAYS[way](MESHES[name], VOXEL)
    assert np.isfinite(found.vertices).all()
    if len(found.faces):
        assert MeshDistance(MESHES[name]).unsigned(found.vertices.astype(np.float64)).max() < 1.5 * VOXEL
    if way == "sparcubes":
        assert found.is_closed
    if "sphere" in name or "twice" in name:
        assert found.area > 0.9 * icosphere().area


@pytest.mark.parametrize("way", WAYS)
def test_corners_that_no_face_uses_do_not_count(way):
    """A stray vertex far away would make a lattice that nothing fits."""
    mesh = icosphere(rounds=2)
    stray = Mesh(np.concatenate([mesh.vertices, [[1e30, -1e30, 0]]]), mesh.faces)
    found, want = WAYS[way](stray, VOXEL), WAYS[way](mesh, VOXEL)
    np.testing.assert_array_equal(found.vertices, want.vertices)


@pytest.mark.parametrize("way", WAYS)
def test_huge_coordinates_are_taken_with_large_voxels_and_refused_with_small(way):
    huge = icosphere(1e18, (3e18, 0, 0), 2)
    found, want = WAYS[way](huge, VOXEL * 1e18), WAYS[way](icosphere(1, (3, 0, 0), 2), VOXEL)
    assert found.volume == pytest.approx(want.volume * 1e54, rel=1e-2)
    with pytest.raises(ValueError, match="does not fit a lattice"):
        WAYS[way](huge, 1.0)


@pytest.mark.parametrize("way", WAYS)
def test_a_long_diagonal_needle_costs_what_it_is(way, monkeypatch):
    """Not what the box around it holds, which is 10000 voxels along each axis. The flood of sparcubes goes
    through that box in steps of four, and says so."""
    needle = Mesh(np.array([[0, 0, 0], [1000, 1000, 1000], [1000, 1000, 1000.01]]), np.array([[0, 1, 2]]))
    if way == "sparcubes":
        monkeypatch.setattr(memory, "available_bytes", lambda: 8 << 30)
        with pytest.raises(
            ValueError, match=r"flood around a mesh of 10020 x .* a voxel size of .* would fit"
        ):
            WAYS[way](needle, 0.1)
    found = WAYS[way](needle, 1.0 if way == "sparcubes" else 0.1)
    assert len(found.vertices) < 500_000


def test_numbers_that_are_none_make_no_mesh():
    with pytest.raises(ValueError, match="not finite"):
        Mesh(np.array([[0, 0, np.nan], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
