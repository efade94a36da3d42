"""The lists of tiles under the law suite."""

import torch

from sparse3d_ops import splat_tiles
from tests.ops.laws import OpLaw
from tests.oracles import splat_tiles as oracle


def _places(count, width, height, reach=8.0, depths=None):
    def make(dtype, device):
        size = torch.tensor([width, height], dtype=dtype)
        means2d = (torch.rand(count, 2, dtype=dtype) * 1.4 - 0.2) * size
        around = torch.rand(count, 2, dtype=dtype) * 2 * reach
        around[::5] = 0  # not seen
        depth = torch.rand(count, dtype=dtype) * 4 + 0.1
        if depths:  # few depths: ties
            depth = torch.randint(1, depths + 1, (count,)).to(dtype)
        return means2d.to(device), around.to(device), depth.to(device), width, height

    return make


def _border(dtype, device):
    """Boxes that end at borders of tiles, and around and beside the image."""
    listed = [[16, 16, 0.5, 0.5], [8, 8, 8, 8], [24, 8, 8, 8], [-4, 8, 4, 1], [-5, 8, 4, 1], [40, 40, 1, 1]]
    listed += [[16, 0, 1e30, 1e-30], [1e30, 8, 1, 1], [0, 33, 1, 1], [-1e30, 0, 1, 9]]
    both = torch.tensor(listed, dtype=dtype, device=device)
    depths = torch.ones(len(listed), dtype=dtype, device=device)
    return both[:, :2].contiguous(), both[:, 2:].contiguous(), depths, 33, 32


CASES = {
    "empty": _places(0, 33, 20),
    "single": _places(2, 16, 16),
    "one_pixel": _places(9, 1, 1),
    "many": _places(120, 70, 45),
    "ties": _places(60, 33, 50, depths=2),
    "small": _places(60, 64, 64, reach=0.5),
    "large": _places(20, 50, 100, reach=60.0),
    "border": _border,
}
LAWS = [OpLaw(splat_tiles.tile_lists, oracle.tile_lists, CASES)]
