"""The windows under the law suite."""

import torch

from sparse3d_ops import windows
from tests.ops.laws import OpLaw
from tests.oracles import windows as oracle


def voxels(count, shape, batches=1, seed=0):
    """Distinct voxels of a grid, in any order."""
    cells = batches * shape[0] * shape[1] * shape[2]
    cell = torch.randperm(cells, generator=torch.Generator().manual_seed(seed))[:count]
    batch, cell = cell // (cells // batches), cell % (cells // batches)
    yz = shape[1] * shape[2]
    return torch.stack([batch, cell // yz, cell % yz // shape[2], cell % shape[2]], dim=1).int()


def _case(count, shape, window, shift, set_size, batches=1):
    def make(dtype, device):
        return voxels(count, shape, batches).to(device), shape, window, shift, set_size

    return make


CASES = {
    "empty": _case(0, [5, 4, 3], [2, 2, 2], [0, 0, 0], 3),
    "single": _case(1, [5, 4, 3], [2, 2, 2], [1, 1, 1], 3),
    "one_window_exactly_full": _case(12, [3, 4, 1], [3, 4, 1], [0, 0, 0], 4),
    "sets_of_one": _case(20, [5, 5, 1], [3, 3, 1], [1, 1, 0], 1),
    "one_set_a_window": _case(30, [6, 6, 1], [3, 3, 1], [1, 2, 0], 36),
    "pillars": _case(150, [20, 17, 1], [6, 6, 1], [3, 3, 0], 7, batches=3),
    "voxels": _case(200, [10, 12, 8], [4, 6, 4], [2, 3, 2], 9, batches=2),
    "height_of_the_grid_is_not_shifted": _case(90, [7, 9, 4], [3, 4, 4], [1, 2, 2], 5),
    "dense": _case(343, [7, 7, 7], [3, 5, 2], [2, 1, 1], 8),
}
LAWS = [OpLaw(windows._window_sets, oracle.window_sets, CASES, floating=False)]
