"""Distances from meshes: exact, with the nearest point, and on the right side."""

import numpy as np
import pytest

from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.distance import MeshDistance
from tests.mesh.shapes import box, box_distance, hemisphere, icosphere, joined, turned


def places(count, spread=2.0, seed=0):
    return (np.random.default_rng(seed).random((count, 3)) * 2 - 1) * spread


def test_a_box_is_as_far_as_its_formula_says():
    points = places(2000)
    found = MeshDistance(box()).signed(points)
    np.testing.assert_allclose(found, box_distance(points), rtol=0, atol=1e-13)


def by_all_faces(mesh, points):
    """Distances by looking at every face: the foot on its plane where it is within, and its sides."""
    best = np.full(len(points), np.inf)
    for a, b, c in mesh.vertices[mesh.faces].astype(np.float64):
        n = np.cross(b - a, c - a)
        n = n / np.linalg.norm(n)
        within = np.ones(len(points), bool)
        for s, t in ((a, b), (b, c), (c, a)):
            within &= (points - s) @ np.cross(n, t - s) >= 0
            part = ((points - s) @ (t - s) / ((t - s) @ (t - s))).clip(0, 1)
            best = np.minimum(best, np.linalg.norm(s + part[:, None] * (t - s) - points, axis=1))
        best = np.where(within, np.minimum(best, np.abs((points - a) @ n)), best)
    return best


@pytest.mark.parametrize("rounds", [0, 2, 3])
def test_equals_the_search_through_all_faces(rounds):
    """Queries in no order and, of a grid, as neighbours."""
    mesh = icosphere(0.7, (0.1, 0.2, -0.3), rounds)
    axis = np.linspace(-1, 1, 12)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    for points in (places(500), grid):
        want = by_all_faces(mesh, points)
        np.testing.assert_allclose(MeshDistance(mesh).unsigned(points), want, rtol=0, atol=1e-14)


def test_the_nearest_point_is_on_the_face_that_is_named_and_as_far_as_is_said():
    mesh, points = icosphere(), places(800)
    distance, face, weights = MeshDistance(mesh).nearest(points)
    assert (weights >= 0).all() and np.allclose(weights.sum(1), 1, atol=1e-15)
    nearest = (weights[:, :, None] * mesh.vertices[mesh.faces[face]].astype(np.float64)).sum(1)
    np.testing.assert_allclose(np.linalg.norm(nearest - points, axis=1), distance, rtol=0, atol=1e-14)


def test_of_equally_near_faces_the_first_is_named():
    mesh = box()
    doubled = joined(mesh, mesh, mesh)
    points = places(300)
    for one, many in zip(
        MeshDistance(mesh).nearest(points), MeshDistance(doubled).nearest(points), strict=True
    ):
        np.testing.assert_array_equal(one, many)


def test_nothing_is_found_beyond_the_limit_and_all_within():
    mesh, points = icosphere(), places(1000)
    whole, whole_face, _ = MeshDistance(mesh).nearest(points)
    found, face, weights = MeshDistance(mesh).nearest(points, limit=0.3)
    near = whole <= 0.3
    assert 50 < near.sum() < 950
    np.testing.assert_array_equal(found, np.where(near, whole, np.inf))
    np.testing.assert_array_equal(face, np.where(near, whole_face, -1))
    assert (weights[~near] == 0).all()


@pytest.mark.parametrize("seed", [0, 2])
def test_every_place_of_a_lattice_finds_a_face(seed):
    """The bound that a query takes over from the one before is rounded, and must not hide what it is a bound
    for: where the same corner stayed nearest, one in a hundred thousand found nothing."""
    mesh = icosphere(middle=tuple(np.random.default_rng(seed).normal(size=3)), rounds=2)
    axis = np.arange(-2.3, 2.3, 0.1) + 0.0123
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    found = MeshDistance(mesh).unsigned(points)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, MeshDistance(mesh).unsigned(points[::-1])[::-1])


def test_the_order_of_the_queries_does_not_matter():
    mesh, points = icosphere(rounds=4), places(700)
    order = np.random.default_rng(1).permutation(len(points))
    for straight, mixed in zip(
        MeshDistance(mesh).nearest(points), MeshDistance(mesh).nearest(points[order]), strict=True
    ):
        np.testing.assert_array_equal(straight[order], mixed)


def test_triangles_without_area_are_segments_and_points():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 5, 0]], dtype=np.float32)
    faces = np.array([[0, 1, 2], [3, 3, 3], [0, 2, 0]])
    points = places(300, 6)
    on_line = np.stack([points[:, 0].clip(0, 2), 0 * points[:, 1], 0 * points[:, 2]], 1)
    want = np.minimum(np.linalg.norm(points - on_line, axis=1), np.linalg.norm(points - vertices[3], axis=1))
    np.testing.assert_allclose(MeshDistance(Mesh(vertices, faces)).unsigned(points), want, atol=1e-13)


def test_slivers_are_as_far_as_their_sides():
    """A foot of a perpendicular computed from a nearly singular system would lie anywhere."""
    sliver = Mesh(np.array([[0, 0, 0], [1, 1e-7, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    points = places(500, 3)
    on_line = np.stack([points[:, 0].clip(0, 2), 0 * points[:, 1], 0 * points[:, 2]], 1)
    want = np.linalg.norm(points - on_line, axis=1)
    np.testing.assert_allclose(MeshDistance(sliver).unsigned(points), want, atol=2e-7)


def test_winding_numbers_count_how_often_faces_go_around():
    inner, outer = icosphere(0.5), icosphere(1.0)
    at = np.array([[0.1, 0, 0], [0.7, 0.1, 0], [3.0, 0, 0]])
    np.testing.assert_allclose(MeshDistance(joined(inner, outer)).winding(at), [2, 1, 0], atol=0.05)
    np.testing.assert_allclose(MeshDistance(turned(outer)).winding(at), [-1, -1, 0], atol=0.05)
    hollow = joined(turned(inner), outer)
    np.testing.assert_array_equal(MeshDistance(hollow).inside(at), [False, True, False])
    bowl = MeshDistance(hemisphere()).winding(np.array([[0, 0, 1e-4], [0, 0, 0.5], [0, 0, -5.0]]))
    assert bowl[0] == pytest.approx(0.5, abs=0.05) and bowl[1] > 0.6 and abs(bowl[2]) < 0.05


def test_sides_are_right_where_a_mesh_passes_through_itself():
    """The pseudo-normal at the nearest point, on the inner wall, would say outside."""
    both = MeshDistance(joined(icosphere(), icosphere(1, (0.6, 0, 0))))
    points = places(2000)
    truth = np.minimum(np.linalg.norm(points, axis=1) - 1, np.linalg.norm(points - (0.6, 0, 0), axis=1) - 1)
    clear = np.abs(truth) > 0.02  # the facets lie within the spheres
    assert np.array_equal(both.inside(points)[clear], truth[clear] < 0)


def test_places_far_from_the_origin_keep_their_digits():
    far = box((1e6, 1e6, 1e6), (1e6 + 4, 1e6 + 2, 1e6 + 1))
    points = 1e6 + places(200, 3)
    want = box_distance(points, (1e6, 1e6, 1e6), (1e6 + 4, 1e6 + 2, 1e6 + 1))
    np.testing.assert_allclose(MeshDistance(far).signed(points), want, atol=1e-9)
    huge = MeshDistance(box((-1e37, -1e37, -1e37), (1e37, 1e37, 1e37)))
    assert huge.signed(np.zeros((1, 3)))[0] == pytest.approx(-1e37)


def test_what_is_no_place_and_no_mesh_is_refused():
    with pytest.raises(ValueError, match="without triangles"):
        MeshDistance(Mesh(np.zeros((0, 3)), np.zeros((0, 3), int)))
    distance = MeshDistance(box())
    with pytest.raises(ValueError, match=r"points\[1\] = \(nan"):
        distance.unsigned(np.array([[0, 0, 0], [np.nan, 0, 0]]))
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        distance.unsigned(np.zeros(3))
    with pytest.raises(ValueError, match="limit is -1"):
        distance.unsigned(np.zeros((1, 3)), limit=-1.0)
    assert distance.unsigned(np.zeros((0, 3))).shape == (0,)
