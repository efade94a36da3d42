"""What is shown, from where, and the picture of it that needs no browser."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse3d.data.three_spheres import CENTRES, RADII
from sparse3d.gaussians.render import SplatView, render
from sparse3d.geometry.mesh import Mesh
from sparse3d.viewers.exhibit import (
    UP,
    Exhibit,
    Points,
    Viewpoint,
    around,
    exhibit_of_mesh,
    exhibit_of_scene,
    exhibit_of_splats,
)
from sparse3d.viewers.scene import Boxes, Scene
from sparse3d.viewers.still import PLAIN, draw_exhibit
from tests.viewers.spheres import PAINT, sphere_cloud, sphere_mesh, textured_mesh


@pytest.mark.parametrize("up", UP.values(), ids=UP)
def test_the_first_view_has_everything_in_it_and_is_upright(up):
    mesh = sphere_mesh(at=(3, -2, 5))
    view = around([mesh.vertices], up)
    camera = view.camera(400, 300)
    pixels, depth = camera.project(mesh.vertices.astype(float))
    assert (depth > 0).all() and (pixels >= 0).all() and (pixels <= (400, 300)).all()
    assert pixels[:, 1].max() - pixels[:, 1].min() > 100, "and it is not far away"
    assert np.dot(-camera.camera_to_world[:3, 1], up) > 0.9


def test_strays_do_not_push_the_eye_away():
    places = np.concatenate([sphere_mesh().vertices, [[1e4, 0, 0]]])
    assert around([places], UP["z"]).distance < 5


@pytest.mark.parametrize(
    "view",
    [
        ((0, 0, 0), (0, 0, 0)),
        ((0, 0, 1), (0, 0, 0)),
        ((np.nan, 0, 1), (0, 0, 0)),
        ((1, 0, 0), (0, 0, 0), (0,) * 3),
    ],
)
def test_views_of_nothing_are_refused(view):
    with pytest.raises(ValueError):
        Viewpoint(*view)


def test_things_without_anything_are_refused():
    with pytest.raises(ValueError, match="without triangles"):
        exhibit_of_mesh("empty", Mesh(np.zeros((3, 3)), np.zeros((0, 3), int)))
    with pytest.raises(ValueError, match="no Gaussians"):
        exhibit_of_splats("empty", sphere_cloud(4)[:0])


def inside(exhibit, size):
    """(H, W) which of three spheres the ray through each pixel's middle meets first, -1 for none."""
    camera = exhibit.viewpoint.camera(*size)
    y, x = np.mgrid[: size[1], : size[0]]
    rays = camera.unproject(np.stack([x, y], -1).reshape(-1, 2) + 0.5) @ camera.camera_to_world[:3, :3].T
    offset = camera.camera_to_world[:3, 3] - CENTRES
    along = rays @ offset.T
    reach = along**2 - (offset**2).sum(1) + RADII**2
    way = np.where(reach > 0, -along - np.sqrt(np.maximum(reach, 0)), np.inf)
    return np.where(np.isfinite(way).any(1), way.argmin(1), -1).reshape(size[1], size[0])


def test_triangles_are_where_rays_meet_the_spheres():
    exhibit = exhibit_of_mesh("spheres", sphere_mesh())
    picture = np.asarray(draw_exhibit(exhibit, (200, 150), title=False)).astype(int)
    wanted = np.array([*PAINT, exhibit.background])[inside(exhibit, (200, 150))]
    # Polygons lie within the spheres, and outlines are smoothed: a pixel's breadth there.
    assert (np.abs(picture - wanted).max(2) > 2).mean() < 0.02


def test_a_mesh_without_colours_is_shaded_from_the_eye():
    exhibit = exhibit_of_mesh("spheres", sphere_mesh(colors=False))
    picture = np.asarray(draw_exhibit(exhibit, (200, 150), title=False))
    camera = exhibit.viewpoint.camera(200, 150)
    # The place of the large sphere that is nearest to the eye faces it.
    towards = camera.camera_to_world[:3, 3] - CENTRES[0]
    (pixel,), _ = camera.project((CENTRES[0] + RADII[0] * towards / np.linalg.norm(towards))[None])
    column, row = pixel.astype(int)
    assert np.abs(picture[row, column].astype(int) - PLAIN).max() <= 3
    assert picture[inside(exhibit, (200, 150)) == 0].mean(1).min() < 120, "its edge is dark"


def test_a_texture_is_where_its_coordinates_say():
    view = Viewpoint((0, -4, 0), (0, 0, 0), field_of_view=2 * np.degrees(np.arctan(0.25)))
    picture = np.asarray(draw_exhibit(Exhibit("", view, (textured_mesh(),)), (80, 80), title=False))
    # Four times across: middles of the eight columns, of the upper and the lower half.
    columns, upper, lower = np.arange(5, 80, 10), picture[20], picture[60]
    assert np.abs(upper[columns].astype(int) - np.tile(PAINT[:2], (4, 1))).max() <= 1
    assert np.abs(lower[columns].astype(int) - np.tile([PAINT[2], [240] * 3], (4, 1))).max() <= 1


def test_the_nearer_of_two_meshes_is_seen():
    near = replace(textured_mesh(), vertices=textured_mesh().vertices * [0.5, 1, 0.5] + [0, -1, 0])
    far = Mesh(textured_mesh().vertices, textured_mesh().faces, np.full((4, 3), 77, np.uint8))
    view = Viewpoint((0, -4, 0), (0, 0, 0), field_of_view=50)
    pictures = [
        np.asarray(draw_exhibit(Exhibit("", view, meshes), (60, 60), title=False))
        for meshes in ((near, far), (far, near))
    ]
    assert np.array_equal(*pictures)
    assert (pictures[0] == 77).all(2).any() and (pictures[0][30, 30] != 77).any()


def test_gaussians_are_drawn_by_the_renderer():
    exhibit = exhibit_of_splats("spheres", sphere_cloud(), UP["z"])
    picture = np.asarray(draw_exhibit(exhibit, (120, 90), title=False)).astype(float)
    camera = exhibit.viewpoint.camera(120, 90)
    behind = torch.tensor(exhibit.background) / 255
    seen = render(exhibit.splats, SplatView.of(camera, behind), behind, exhibit.drawing)
    assert np.abs(picture - 255 * seen.color.clamp(0, 1).numpy()).max() < 1


def test_points_are_squares_of_their_size():
    points = Points(np.array([[0.0, 4, 0], [0, 8, 0]]), np.array([[255, 0, 0], [0, 255, 0]], np.uint8), 1.0)
    view = Viewpoint((0, 0, 0), (0, 1, 0), field_of_view=90)
    picture = np.asarray(draw_exhibit(Exhibit("", view, points=points), (80, 80), title=False))
    red = (picture == (255, 0, 0)).all(2)
    assert red.sum() == 100 and red[35:45, 35:45].all(), "1 m at 4 m, 10 pixels at a focal length of 40"
    assert not (picture == (0, 255, 0)).all(2).any(), "the nearer one hides the other"


def test_a_scene_brings_its_boxes_and_legend():
    box = Boxes(np.array([[8.0, 0, 0, 4, 2, 1.5, 0]]), np.array([0]))
    points = np.array([[1, 2, 3, 0.5], [np.nan, 0, 0, 0]], np.float32)
    exhibit = exhibit_of_scene(Scene("drive", points, found=box, truth=box, box_classes=("Car",)))
    assert len(exhibit.points.places) == 1 and exhibit.lines.ends.shape == (26, 2, 3)
    assert [row.text for row in exhibit.legend] == ["Car (1)", "labelled (1)"]
    assert exhibit.contents == "1 points"
