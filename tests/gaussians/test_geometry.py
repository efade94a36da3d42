"""What a camera sees of clouds with their geometry, and of whose light it is made."""

import pytest
import torch

from sparse3d.gaussians.geometry import contributors, render_geometry
from sparse3d.gaussians.render import SplatConfig, SplatView, render
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
