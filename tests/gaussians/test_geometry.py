"""What a camera sees of clouds with their geometry, and of whose light it is made."""

import pytest
import torch

from sparse3d.gaussians.geometry import contributors, depth_normals, render_geometry
from sparse3d.gaussians.initial import from_points
from sparse3d.gaussians.render import SplatConfig, SplatView, render
from sparse3d.geometry.cameras import Camera, Lens
from tests.gaussians.clouds import DOUBLE, some_cloud

VIEW = SplatView(
    torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]], dtype=DOUBLE),
    torch.tensor([40.0, 40.0, 16.0, 12.0], dtype=DOUBLE),
    (32, 24),
)
WHITE = torch.ones(3, dtype=DOUBLE)


@pytest.mark.parametrize("surfels", [False, True])
def test_contributions_make_up_the_picture(surfels):
    cloud = some_cloud(60, degree=0, surfels=surfels)
    found = contributors(cloud, VIEW, 60)
    seen = render_geometry(cloud, VIEW, WHITE)
    torch.testing.assert_close(found.weights.sum(-1), seen.alpha)
    shades = torch.relu(cloud.sh0[:, 0] * 0.28209479177387814 + 0.5)
    blended = (found.weights[..., None] * shades[found.ids.long().clamp(min=0)]).sum(2)
    torch.testing.assert_close(blended + (1 - seen.alpha)[..., None], seen.color)
    assert (found.weights.diff(dim=-1) <= 0).all() and ((found.ids >= 0) == (found.weights > 0)).all()


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_geometry_has_the_colours_of_the_picture(mode):
    cloud, config = some_cloud(60), SplatConfig(mode=mode)
    seen, drawn = render_geometry(cloud, VIEW, WHITE, config), render(cloud, VIEW, WHITE, config)
    torch.testing.assert_close(seen.color, drawn.color)
    torch.testing.assert_close(seen.alpha, drawn.alpha)
    torch.testing.assert_close(seen.depth, drawn.depth)


@pytest.mark.parametrize("lens", [Lens((0.1, -0.05, 0.01, -0.02)), Lens((0.05,), fisheye=True)])
def test_a_lens_shows_gaussians_where_the_camera_sees_them(lens):
    camera = Camera(60.0, 62.0, 31.0, 25.0, 64, 48, lens=lens)
    place = torch.tensor([[0.6, -0.35, 2.0]], dtype=DOUBLE)
    dot = from_points(place, torch.ones(1, 3, dtype=DOUBLE), sh_degree=0, opacity=0.9, scale=3.0)
    view = SplatView.of(camera, dot.means)
    straight = SplatView(view.world_to_camera, view.intrinsics, view.size)
    wanted = camera.project(place.numpy())[0][0]
    for draw in (render, render_geometry):
        found = [
            _middle(draw(dot, seen_by, torch.zeros(3, dtype=DOUBLE)).alpha) for seen_by in (view, straight)
        ]
        assert found[0] == pytest.approx(wanted, abs=0.05)
        assert abs(found[1] - wanted).max() > 0.15, "the lens matters here"
    flat = from_points(place, torch.ones(1, 3, dtype=DOUBLE), sh_degree=0, surfels=True)
    with pytest.raises(ValueError, match="surfels are not drawn through a lens"):
        render_geometry(flat, view, WHITE)


@pytest.mark.parametrize("surfels", [False, True])
def test_an_orthographic_view_is_that_of_a_pinhole_far_away(surfels):
    # Harmonics too: all rays have one direction.
    cloud, away = some_cloud(60, surfels=surfels), 1e5
    flat = SplatView(VIEW.world_to_camera, VIEW.intrinsics / 4, VIEW.size, orthographic=True)
    moved, lens = flat.world_to_camera.clone(), flat.intrinsics.clone()
    moved[2, 3] += away
    lens[:2] *= away
    far = SplatView(moved, lens, flat.size)
    wanted = render_geometry(cloud, far, WHITE, SplatConfig(near=away))
    seen = render_geometry(cloud, flat, WHITE, SplatConfig(near=1e-6))
    assert seen.alpha.max() > 0.5
    # What is as faint as 1/255 may count in one and not in the other.
    torch.testing.assert_close(seen.color, wanted.color, atol=5e-3, rtol=0)
    torch.testing.assert_close(seen.normal, wanted.normal, atol=5e-3, rtol=0)
    torch.testing.assert_close(seen.depth, wanted.depth - away * (seen.alpha > 0), atol=1e-2, rtol=0)
    weights = [contributors(cloud, view, 5, SplatConfig(near=near)).weights for view, near in
               ((flat, 1e-6), (far, away))]  # fmt: skip
    torch.testing.assert_close(*weights, atol=5e-3, rtol=0)
    if not surfels:
        drawn = render(cloud, flat, WHITE, SplatConfig(near=1e-6))
        torch.testing.assert_close(drawn.color, seen.color)


def test_normals_of_a_plane_seen_by_parallel_rays():
    # The plane z = 2 + x / 2 + y / 4 in the camera's frame, 10 px a metre.
    view = SplatView(
        VIEW.world_to_camera, torch.tensor([10, 10, 16, 12], dtype=DOUBLE), VIEW.size, orthographic=True
    )
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(32) - 15.5, indexing="ij")
    found = depth_normals((2 + x / 20 + y / 40).double(), view)[1:-1, 1:-1]
    wanted = torch.nn.functional.normalize(torch.tensor([0.5, 0.25, -1.0], dtype=DOUBLE), dim=0)
    torch.testing.assert_close(found, wanted.expand_as(found), atol=1e-5, rtol=0)


def test_an_orthographic_camera_has_no_lens():
    with pytest.raises(ValueError, match="no lens"):
        SplatView(VIEW.world_to_camera, VIEW.intrinsics, VIEW.size, Lens((0.1,)), orthographic=True)


def _middle(alpha):
    """Of the light, in pixels."""
    y, x = (torch.arange(n, dtype=DOUBLE) + 0.5 for n in alpha.shape)
    return torch.stack([(alpha.sum(0) * x).sum(), (alpha.sum(1) * y).sum()]).div(alpha.sum()).numpy()
