"""What operations on meshes must leave as it was, and what they must change."""

import numpy as np
import pytest

from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.orbits import looking
from sparse3d.mesh.baking import baked
from sparse3d.mesh.cleaning import welded, without_flat_faces, without_forked_edges
from sparse3d.mesh.drawing import draw
from sparse3d.mesh.holes import borders, with_holes_filled
from sparse3d.mesh.raster import rasterized
from sparse3d.mesh.simplify import simplified
from sparse3d.mesh.smoothing import smoothed
from sparse3d.mesh.unwrapping import unwrapped


def sphere(rings=24, radius=1.0, middle=(0.0, 0.0, 0.0)):
    """Closed: rings of 2 `rings` vertices between two poles."""
    turn = np.arange(2 * rings) / rings * np.pi
    heights = np.arange(1, rings) / rings * np.pi
    ring = np.stack(
        [
            np.outer(np.sin(heights), np.cos(turn)),
            np.outer(np.sin(heights), np.sin(turn)),
            np.outer(np.cos(heights), np.ones_like(turn)),
        ],
        -1,
    )
    vertices = np.concatenate([[[0, 0, 1]], ring.reshape(-1, 3), [[0, 0, -1]]])
    n, last, faces = 2 * rings, len(vertices) - 1, []
    for j in range(n):
        k = (j + 1) % n
        faces.append((0, 1 + j, 1 + k))
        faces.append((last, last - n + k, last - n + j))
        for i in range(rings - 2):
            a, b, c, d = 1 + i * n + j, 1 + (i + 1) * n + j, 1 + (i + 1) * n + k, 1 + i * n + k
            faces += [(a, b, c), (a, c, d)]
    places = vertices * radius + np.array(middle)
    return Mesh(places, np.array(faces), paint(vertices, vertices))


def paint(places, normals):
    """A smooth colour of unit directions."""
    unit = places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-9)
    shades = 0.5 + 0.4 * unit
    return np.rint(shades * 255).astype(np.uint8) if places is normals else shades


def camera(eye, size=48, focal=60.0):
    pose = looking(np.array(eye, float), np.zeros(3), np.array([0.0, 0.0, 1.0]))
    return Camera(focal, focal, size / 2, size / 2, size, size, pose)


def test_the_sphere_of_these_tests_is_one():
    mesh = sphere()
    assert mesh.is_closed and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.02)


@pytest.mark.parametrize("place", [(0, 0, 0), (1e4, -2e4, 5e3)])
def test_fewer_triangles_for_the_same_shape_and_colours(place):
    pytest.importorskip("fast_simplification")
    mesh = sphere(48, 3.0, place)
    few = simplified(mesh, 800)
    assert 700 <= len(few.faces) <= 800 and few.is_closed and few.euler_number == 2
    away = few.vertices.astype(float) - place
    assert np.abs(np.linalg.norm(away, axis=1) - 3).max() < 0.05
    assert np.abs(few.colors / 255 - paint(away, 0)).max() < 0.1, "means of what fell together"
    assert simplified(mesh, 10**6) is mesh
    with pytest.raises(ValueError, match="at least 4"):
        simplified(mesh, 3)


def test_noise_goes_and_size_stays():
    mesh = sphere(32)
    rng = np.random.default_rng(0)
    noisy = Mesh(mesh.vertices * (1 + rng.normal(0, 0.01, (len(mesh.vertices), 1))), mesh.faces)
    calm = smoothed(noisy, 15)
    before, after = (np.linalg.norm(m.vertices, axis=1) - 1 for m in (noisy, calm))
    assert after.std() < 0.5 * before.std()
    assert calm.volume == pytest.approx(mesh.volume, rel=0.01), "the mean of neighbours alone would shrink it"
    shrunk = smoothed(noisy, 15, pass_band=1e-6)
    assert np.array_equal(calm.faces, noisy.faces) and shrunk.volume == pytest.approx(mesh.volume, rel=0.02)
    with pytest.raises(ValueError, match="part"):
        smoothed(mesh, 1, part=2.0)


def test_a_border_follows_itself_not_the_surface():
    """A cup's rim stays where it is; the mean of all neighbours would pull it into the cup."""
    mesh = sphere(24)
    cup = mesh.select(mesh.vertices[mesh.faces].mean(1)[:, 2] < 0)
    rim = np.unique(cup.edges[0][cup.edges[1] == 1])
    calm = smoothed(cup, 20)
    assert np.abs(calm.vertices[rim, 2]).max() < 1e-6 and len(rim) == 48
    np.testing.assert_allclose(np.linalg.norm(calm.vertices[rim], axis=1), 1, atol=0.01)


def test_holes_are_closed_without_new_vertices_facing_outward():
    mesh = sphere(16)
    middles = mesh.vertices[mesh.faces].mean(1)
    torn = mesh.select(~((middles[:, 2] > 0.9) | (middles[:, 0] > 0.95) | (middles[:, 1] < -0.97)))
    loops = borders(torn)
    assert len(loops) == 3 and not torn.is_closed
    whole = with_holes_filled(torn)
    assert whole.is_closed and whole.euler_number == 2 and len(whole.vertices) == len(torn.vertices)
    assert whole.volume == pytest.approx(mesh.volume, rel=0.03)
    assert len(borders(with_holes_filled(torn, len(loops[0])))) == 2, "only the smallest"
    assert with_holes_filled(mesh) is mesh
    half = sphere(200).select(sphere(200).vertices[sphere(200).faces].mean(1)[:, 2] > 0)
    fan = with_holes_filled(half, 1000)
    assert fan.is_closed and len(fan.vertices) == len(half.vertices) + 1
    assert fan.volume == pytest.approx(2 / 3 * np.pi, rel=0.01)


def test_borders_that_touch_in_a_vertex_are_two_holes():
    """Two tetrahedra without one face each, joined at a vertex of both openings."""
    one = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.array([[0, 1, 3], [0, 3, 2], [1, 2, 3]])  # without the one below
    other = np.where(faces == 0, 0, faces + 3)
    mesh = Mesh(np.concatenate([one, -one[1:, [1, 0, 2]]]), np.concatenate([faces, other]))
    assert [len(loop) for loop in borders(mesh)] == [3, 3]
    assert with_holes_filled(mesh).is_closed


def test_degenerate_and_forked_meshes():
    mesh = sphere(8)
    bad = Mesh(
        np.concatenate([mesh.vertices, [[3, 0, 0], [4, 0, 0], [5, 0, 0]]]),
        np.concatenate(
            [mesh.faces, [[0, 0, 1], mesh.faces[5][[1, 0, 2]], len(mesh.vertices) + np.arange(3)]]
        ),
    )
    clean = without_flat_faces(bad)
    assert np.array_equal(clean.vertices[clean.faces], mesh.vertices[mesh.faces])
    fin = Mesh(
        np.concatenate([mesh.vertices, [[0, 0, 1.01]]]),
        np.concatenate([mesh.faces, [[0, 1, len(mesh.vertices)]]]),
    )
    assert not fin.is_closed and np.array_equal(
        without_forked_edges(fin).vertices[without_forked_edges(fin).faces], mesh.vertices[mesh.faces]
    )
    soup = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3))
    assert not soup.is_closed and welded(soup, 1e-4).is_closed
    with pytest.raises(ValueError, match="above 0"):
        welded(soup, 0.0)
    empty = mesh.select(np.zeros(len(mesh.faces), bool))
    assert len(without_flat_faces(empty).faces) == 0 and len(smoothed(empty).faces) == 0
    assert with_holes_filled(empty) is empty


def test_charts_do_not_overlap_and_a_texture_shows_what_was_painted():
    pytest.importorskip("xatlas")
    mesh = sphere(16, 2.0, (50.0, 0, 0))
    flat = unwrapped(mesh, 256)
    assert flat.uv.min() >= 0 and flat.uv.max() <= 1 and flat.is_closed
    edges = flat.uv[:, 1:] - flat.uv[:, :1]
    areas = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]) / 2
    covered = rasterized(flat.uv * 1024.0, np.ones((len(flat.faces), 3)), (1024, 1024))
    assert (covered.face >= 0).mean() == pytest.approx(areas.sum(), rel=0.01), "an overlap would count twice"
    painted = baked(flat, 256, lambda places, normals: paint(places - (50, 0, 0), normals))
    face, weights = painted.spread_points(5000)
    places = (weights[:, :, None] * painted.vertices[painted.faces[face]].astype(float)).sum(1) - (50, 0, 0)
    # A texel is 1/256 of a chart; on seams lies what was dilated.
    assert np.abs(painted.colors_at(face, weights) - paint(places, 0)).max() < 0.03
    own = baked(flat, 256)
    assert np.abs(own.colors_at(face, weights) - mesh.colors_at(face, weights)).max() < 0.03
    assert own.colors is None and own.has_texture
    assert np.abs(own.with_vertex_colors().colors.astype(int) - mesh.colors).max() <= 8
    by_normal = baked(flat, 64, lambda places, normals: 0.5 + 0.5 * normals)
    away = places / np.linalg.norm(places, axis=1, keepdims=True)
    assert np.abs(by_normal.colors_at(face, weights) - 0.5 - 0.5 * away).mean() < 0.05
    with pytest.raises(ValueError, match="unwrap"):
        baked(mesh)
    with pytest.raises(ValueError, match="simplify"):
        unwrapped(mesh.select(np.zeros(len(mesh.faces), bool)))
    with pytest.raises(ValueError, match="nothing to bake"):
        baked(Mesh(flat.vertices, flat.faces, uv=flat.uv))


def test_what_a_camera_sees_of_a_ball():
    mesh = sphere(64)
    view = draw(mesh, camera((0, -3, 0)), (0.0, 0.0, 0.0), samples=3)
    # The rim of a ball of 1 m seen from 3 m: sin = 1/3, so the disc's radius is 60 tan(asin(1/3)) pixels.
    assert view.opacity.sum() == pytest.approx(np.pi * (60 / np.sqrt(8)) ** 2, rel=0.01)
    assert view.depth[24, 24] == pytest.approx(2, abs=0.01)
    np.testing.assert_allclose(view.color[24, 24], 0.5 + 0.4 * np.array([0, -1, 0]), atol=0.03)
    assert (view.color[0, 0] == 0).all() and view.depth[0, 0] == 0
    white = draw(mesh, camera((0, -3, 0)))
    assert (white.color[0, 0] == 1).all()
    within = draw(mesh, camera((0, 0.2, 0)))  # triangles with a corner behind are left out
    assert np.isfinite(within.color).all()


def test_weights_are_those_on_the_triangle_not_on_its_picture():
    """A floor that goes away: half way in the picture is nearer than half way on the floor."""
    corners = np.array([[[0, 0], [0, 64], [64, 64]]], dtype=float)
    near = np.array([[1.0, 0.25, 0.25]])
    found = rasterized(corners, near, (64, 64))
    u = np.linspace(0, 1, 65)[:-1] + 0.5 / 64
    expected = (1 - u) / ((1 - u) + 0.25 * u)
    np.testing.assert_allclose(found.weights[np.arange(64), 0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(found.weights[found.face >= 0].sum(1), 1, atol=1e-6)
    assert (found.face >= 0).sum() == 64 * 65 // 2
    both = rasterized(np.concatenate([corners, corners]), np.concatenate([near, 2 * near]), (64, 64))
    assert set(np.unique(both.face)) == {-1, 1}, "the nearer one"
