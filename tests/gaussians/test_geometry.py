"""What a camera sees of clouds with their geometry, and of whose light it is made."""

import pytest
import torch

from sparse3d.gaussians.geometry import contributors, render_geometry
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
    with pytest.raises(ValueError, match="surfels are drawn for pinholes"):
        render_geometry(flat, view, WHITE)


def _middle(alpha):
    """Of the light, in pixels."""
    y, x = (torch.arange(n, dtype=DOUBLE) + 0.5 for n in alpha.shape)
    return torch.stack([(alpha.sum(0) * x).sum(), (alpha.sum(1) * y).sum()]).div(alpha.sum()).numpy()
