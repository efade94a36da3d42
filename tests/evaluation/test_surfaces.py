"""Distances of meshes from shapes that are known."""

import numpy as np
import pytest
import torch

from sparse3d.evaluation.surfaces import (
    distance_to_mesh,
    points_on_mesh,
    score_against_cloud,
    score_against_mesh,
    score_against_points,
    score_against_shape,
    thinned,
)
from sparse3d.evaluation.thinning import thinned_by_radius
from sparse3d.geometry.level_set import level_set
from sparse3d.geometry.mesh import Mesh
from sparse3d_ops.visible_samples import lattice

SAG = 3 * 0.1**2 / 8  # metres, of a chord as long as a voxel's diagonal, voxels of 0.1 m, in a ball of 1 m


def ball(radius, resolution=24):
    axis = torch.arange(resolution, dtype=torch.int32)
    voxels = torch.cartesian_prod(torch.zeros(1, dtype=torch.int32), axis, axis, axis)
    points, rows = lattice(voxels)
    places = points[:, 1:].double() / resolution * 2.4 - 1.2
    surface = level_set(rows, radius - places.norm(dim=1))
    vertices = surface.positions(points) / resolution * 2.4 - 1.2
    return Mesh(vertices.numpy(), surface.faces.numpy())


def on_sphere(count, radius=1.0):
    directions = np.random.default_rng(1).normal(size=(count, 3))
    return radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def unit_distance(points):
    return np.linalg.norm(points, axis=1) - 1


def test_a_sphere_that_is_too_large_is_off_by_what_it_is_too_large():
    exact = score_against_shape(ball(1.0), unit_distance, on_sphere(2000), 0.01, 5000)
    assert exact.accuracy < SAG and exact.completeness < SAG
    assert exact.precision == exact.recall == exact.f_score == 1
    larger = score_against_shape(ball(1.05), unit_distance, on_sphere(2000), 0.01, 5000)
    for found in (larger.accuracy, larger.completeness, larger.chamfer, larger.accuracy_p95):
        assert found == pytest.approx(0.05, abs=SAG)
    assert larger.f_score == 0


def test_what_is_missing_lowers_completeness_alone():
    mesh = ball(1.0)
    half = mesh.select(mesh.vertices[mesh.faces].mean(1)[:, 2] > 0)
    found = score_against_shape(half, unit_distance, on_sphere(4000), 0.02, 5000)
    assert found.accuracy < SAG and found.precision == 1
    assert found.recall == pytest.approx(0.5, abs=0.05)
    assert found.completeness > 0.2 and found.f_score == pytest.approx(2 / 3, abs=0.04)


def test_points_are_spread_by_area_and_repeat():
    big, small = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0]]), np.array([[9, 0, 0], [10, 0, 0], [9, 1, 0]])
    mesh = Mesh(np.concatenate([big, small]), np.array([[0, 1, 2], [3, 4, 5]]))
    points = points_on_mesh(mesh, 1000)
    assert (points[:, 0] > 5).sum() == pytest.approx(100, abs=1)
    assert np.array_equal(points, points_on_mesh(mesh, 1000))
    first = points[points[:, 0] < 5]
    np.testing.assert_allclose(first.mean(0), [1, 1, 0], atol=0.1)
    with pytest.raises(ValueError, match="without area"):
        points_on_mesh(Mesh(big, np.array([[0, 0, 1]])), 5)


def test_distances_to_a_triangle_by_hand():
    mesh = Mesh(np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0]]), np.array([[0, 1, 2]]))
    places = np.array([[0.5, 0.5, 3], [-3, -4, 0], [1, -2, 0], [2, 2, 0], [5, 0, 4], [0.2, 0.2, 0]])
    np.testing.assert_allclose(distance_to_mesh(mesh, places), [3, 5, 2, 2**0.5, 5, 0], atol=1e-12)


def test_the_nearest_triangle_is_found_whatever_the_sizes():
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(60, 1, 3)) + rng.normal(size=(60, 3, 3)) * rng.choice([0.01, 2.0], (60, 1, 1))
    mesh = Mesh(corners.reshape(-1, 3), np.arange(180).reshape(60, 3))
    places = rng.normal(size=(200, 3)) * 2
    one_by_one = [distance_to_mesh(mesh.select(np.arange(60) == n), places) for n in range(60)]
    np.testing.assert_allclose(distance_to_mesh(mesh, places), np.min(one_by_one, axis=0), atol=1e-12)
    # No point of a triangle is nearer than what is said, and some point nearly as near.
    weights = rng.dirichlet(np.ones(3), 4000)
    triangle = mesh.vertices[:3].astype(float)
    gaps = np.linalg.norm(places[:, None] - weights @ triangle, axis=2).min(1)
    assert (gaps >= one_by_one[0] - 1e-9).all() and (gaps - one_by_one[0]).max() < 0.2


def test_against_points_the_way_of_dtu():
    cloud = np.concatenate([on_sphere(60000), [[9, 9, 9]]])
    found = score_against_points(ball(1.0), cloud, threshold=0.05, spacing=0.03, cap=0.5)
    # Between points that are 0.03 m apart the nearest one is about half as far.
    assert found.accuracy < 0.02 and found.completeness < 0.02 and found.precision == 1
    uncapped = score_against_points(ball(1.0), cloud, threshold=0.05, spacing=0.03)
    assert uncapped.completeness > found.completeness, "the outlier counts where no cap leaves it out"
    assert len(thinned(np.array([[0, 0, 0], [0.1, 0, 0], [1.2, 0, 0]]), 1.0)) == 2
    with pytest.raises(ValueError, match="spacing"):
        score_against_points(ball(1.0), cloud[:0], 0.05, 0.03)


def test_a_mesh_against_a_mesh_counts_both_ways_and_normals():
    truth = ball(1.0)
    same = score_against_mesh(truth, truth, 0.01, 3000)
    assert same.chamfer < 1e-6 and same.f_score == 1 and same.normal_consistency == pytest.approx(1, abs=1e-6)
    larger = score_against_mesh(ball(1.05), truth, 0.01, 3000)
    assert larger.chamfer == pytest.approx(0.05, abs=2 * SAG) and larger.normal_consistency > 0.99
    inside_out = Mesh(truth.vertices, truth.faces[:, ::-1])
    assert score_against_mesh(inside_out, truth, 0.01, 3000).normal_consistency == pytest.approx(1, abs=1e-6)
    half = truth.select(truth.vertices[truth.faces].mean(1)[:, 2] > 0)
    found, back = score_against_mesh(half, truth, 0.02, 3000), score_against_mesh(truth, half, 0.02, 3000)
    assert found.accuracy < 1e-6 < 0.2 < found.completeness
    assert (found.accuracy, found.recall) == pytest.approx((back.completeness, back.precision), abs=1e-6)


def test_normals_are_those_of_what_is_nearest():
    """A plane over a plane that is turned by 30 degrees."""
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    angle = np.radians(30)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    flat, turned = Mesh(square, faces), Mesh(9 * square @ turn.T, faces)
    found = score_against_mesh(flat, turned, 0.1, 500)
    assert found.normal_consistency == pytest.approx(np.cos(angle), abs=1e-6)
    shape = score_against_shape(flat, lambda p: p @ turn[:, 2], np.zeros((3, 3)), 0.1, 500)
    assert shape.normal_consistency == pytest.approx(np.cos(angle), abs=1e-6)


def test_a_measured_cloud_is_a_surface_and_not_its_points():
    cloud = on_sphere(4000)  # about 0.056 m apart: the nearest point is on average 0.028 m away
    exact = score_against_cloud(ball(1.0), cloud, threshold=0.01, count=4000)
    assert exact.accuracy < 0.004 and exact.completeness < SAG and exact.normal_consistency > 0.99
    larger = score_against_cloud(ball(1.05), cloud, threshold=0.01, count=4000)
    assert larger.accuracy == pytest.approx(0.05, abs=0.004) and larger.f_score < 0.01
    half = score_against_cloud(ball(1.0), cloud[cloud[:, 2] > 0], threshold=0.02, count=4000)
    assert half.accuracy > 0.2 and half.precision == pytest.approx(0.5, abs=0.05), "discs end where points do"
    assert score_against_cloud(ball(1.0), cloud[cloud[:, 2] > 0], 0.02, 0.1, 4000).accuracy < 0.02
    with pytest.raises(ValueError, match="more than 8"):
        score_against_cloud(ball(1.0), cloud[:5], 0.02)


def test_thinned_points_keep_their_distance_and_cover_the_rest():
    rng = np.random.default_rng(0)
    points = rng.random((3000, 3)) - 7
    rows = thinned_by_radius(points, 0.11)
    gaps = np.linalg.norm(points[rows][:, None] - points[rows], axis=2) + np.eye(len(rows))
    assert gaps.min() >= 0.11
    taken: list[int] = []  # the definition itself
    for row, point in enumerate(points):
        if not taken or np.linalg.norm(points[taken] - point, axis=1).min() >= 0.11:
            taken.append(row)
    assert rows.tolist() == taken
    assert len(thinned_by_radius(points[:0], 1.0)) == 0
    for bad in (0.0, 1e-9):
        with pytest.raises(ValueError, match="radius|fine"):
            thinned_by_radius(points, bad)
