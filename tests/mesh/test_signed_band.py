"""Signed bands: exact distances, right sides, and the same solid when they become a mesh again."""

import numpy as np
import pytest

from sparse3d.geometry import memory
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.signed_band import SignedBand, band_from_mesh, band_to_mesh
from tests.mesh.shapes import box, box_distance, hemisphere, icosphere, joined, turned

VOXEL = 0.05


@pytest.mark.parametrize("width", [2.0, 3.5])
def test_a_band_has_all_lattice_points_near_the_surface_and_no_others(width):
    band = band_from_mesh(box(), VOXEL, width, origin=np.array([0.01, 0.02, 0.03]))
    axis = np.arange(-30, 31)
    everywhere = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    truth = box_distance(VOXEL * everywhere + (0.01, 0.02, 0.03))
    near = np.abs(truth) <= width * VOXEL
    found = {
        tuple(point): value for point, value in zip(band.points[:, 1:].tolist(), band.distances, strict=True)
    }
    assert len(found) == len(band.points) and set(found) == set(map(tuple, everywhere[near].tolist()))
    want = [found[tuple(point)] for point in everywhere[near].tolist()]
    np.testing.assert_allclose(want, truth[near], atol=1e-6)


@pytest.mark.parametrize(
    "mesh",
    [
        icosphere(rounds=4),
        turned(icosphere()),
        joined(turned(icosphere(0.6)), icosphere()),
        joined(icosphere(), icosphere(1, (0.6, 0, 0))),
        joined(icosphere(0.4), icosphere(0.3, (0, 0, 0.71), 2)),
    ],
    ids=["sphere", "turned", "hollow", "through_itself", "nearly_touching"],
)
def test_sides_of_a_closed_mesh_are_those_of_each_point_alone(mesh):
    assert mesh.is_closed
    band = band_from_mesh(mesh, VOXEL)
    want = MeshDistance(mesh).signed(band.places)
    sure = np.abs(want) > 1e-9
    np.testing.assert_array_equal(band.distances[sure] < 0, want[sure] < 0)


def test_there_and_back_keeps_the_shape():
    mesh = icosphere(rounds=5)
    found = band_to_mesh(band_from_mesh(mesh, VOXEL))
    assert found.is_closed and found.euler_number == 2 and found.components[0] == 1
    radius = np.linalg.norm(found.vertices, axis=1)
    assert np.abs(radius - 1).max() < VOXEL**2  # a chord's sag is h^2 / 8 R, the mesh's own 5e-4
    assert found.volume == pytest.approx(mesh.volume, rel=2e-3)


def test_a_hemisphere_stays_open_and_near():
    mesh = hemisphere()
    found = band_to_mesh(band_from_mesh(mesh, VOXEL))
    assert not found.is_closed and len(found.faces) > 1000
    assert MeshDistance(mesh).unsigned(found.vertices.astype(float)).max() < VOXEL


def test_colours_are_those_of_the_nearest_place():
    mesh = icosphere(rounds=4)
    shades = ((mesh.vertices + 1) / 2 * 255).astype(np.uint8)
    band = band_from_mesh(mesh.with_colors(shades), VOXEL)
    directions = band.places / np.linalg.norm(band.places, axis=1, keepdims=True)
    assert band.colors is not None
    assert np.abs(band.colors - (directions + 1) / 2 * 255).max() < 4
    found = band_to_mesh(band)
    assert found.colors is not None
    assert np.abs(found.colors - (found.vertices + 1) / 2 * 255).max() < 5


def test_what_needs_more_memory_than_there_is_is_refused_with_what_would_fit(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 20)
    with pytest.raises(ValueError, match=r"voxel size of 0.001 .* GiB.* would fit") as refused:
        band_from_mesh(box(), 0.001)
    fits = float(str(refused.value).split("voxel size of ")[-1].split()[0])
    assert 0.001 < fits < 1


def test_what_has_no_band_is_refused():
    with pytest.raises(ValueError, match="without triangles"):
        band_from_mesh(Mesh(np.zeros((0, 3)), np.zeros((0, 3), int)), VOXEL)
    with pytest.raises(ValueError, match="does not fit a lattice"):
        band_from_mesh(box((0, 0, 0), (1e30, 1, 1)), 1.0)
    for voxel_size in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="voxel_size is"):
            band_from_mesh(box(), voxel_size)
    with pytest.raises(ValueError, match="width is 1"):
        band_from_mesh(box(), VOXEL, width=1.0)
    points, one = np.zeros((1, 4), np.int32), np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"distances\[0\] is not finite"):
        SignedBand(points, one + np.nan, 1.0, np.zeros(3))
    with pytest.raises(ValueError, match="points are"):
        SignedBand(points[:, 1:], one, 1.0, np.zeros(3))


def test_an_empty_band_is_an_empty_mesh():
    band = SignedBand(np.zeros((0, 4), np.int32), np.zeros(0, np.float32), 1.0, np.zeros(3))
    assert len(band_to_mesh(band).faces) == 0
