"""The strongest splats of pixels: their weights make up what is blended, for surfels and Gaussians."""

import pytest
import torch

from sparse3d_ops.contributors import strongest_gaussians, strongest_surfels
from sparse3d_ops.splat_blend import blend_splats
from sparse3d_ops.splat_projection import project_gaussians
from sparse3d_ops.splat_tiles import list_splats
from tests.ops.cases_surfels import SIZE, camera, projected, surfels

CPU = torch.device("cpu")


def test_all_weights_make_up_the_image_of_gaussians():
    torch.manual_seed(0)
    means, quats, scales, opacities = surfels(20, torch.float64, CPU)
    scales = torch.cat((scales, scales[:, :1]), 1)
    found = project_gaussians(means, quats, scales, opacities, *camera(torch.float64, CPU), SIZE)
    tiles = list_splats(found.means2d, found.reach, found.depths, SIZE)
    features = torch.rand(20, 3, dtype=torch.float64)
    image, through = blend_splats(found.means2d, found.conics, opacities, features, tiles, SIZE)
    shape = found.means2d, found.conics, found.depths, opacities, tiles, SIZE
    ids, weights = strongest_gaussians(*shape, 20)
    assert (ids >= 0).sum(-1).max() > 2
    torch.testing.assert_close(weights.sum(-1), 1 - through)
    torch.testing.assert_close((weights[..., None] * features[ids.long().clamp(min=0)]).sum(2), image)
    few = strongest_gaussians(*shape, 3)
    assert torch.equal(few.ids, ids[..., :3]) and torch.equal(few.weights, weights[..., :3])


def test_what_is_wrong_is_refused():
    torch.manual_seed(0)
    means2d, slopes, depths, opacities, tiles = projected(lambda d, x: surfels(4, d, x), torch.float32, CPU)
    with pytest.raises(ValueError, match="count is 0"):
        strongest_surfels(means2d, slopes, depths, opacities, tiles, SIZE, 0)
    with pytest.raises(ValueError, match="slopes has shape"):
        strongest_surfels(means2d, slopes[:2], depths, opacities, tiles, SIZE, 1)
    beyond = tiles._replace(splats=tiles.splats + 4)
    with pytest.raises(ValueError, match=r"expected a value in \[0, 4\)"):
        strongest_surfels(means2d, slopes, depths, opacities, beyond, SIZE, 1)
