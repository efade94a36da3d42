"""Features of a bird's-eye-view map at any place: bilinear, differentiable, the same bits every time."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse3d.models.center_code import BevGrid
from sparse3d_ops.grid_sample import trilinear_gather


def sample_bev(
    bev: Float[Tensor, "B C X Y"], grid: BevGrid, points: Float[Tensor, "Q 2"], frame: Int[Tensor, "Q"]
) -> Float[Tensor, "Q C"]:
    """The map of each point's frame at x, y (metres), between the centres of the four cells around it.

    A point beyond the outermost centres gets what the nearest place on their border has. Gradients reach the
    map alone: torch's grid_sample has some for the points too, but none that repeats on a GPU.
    """
    _, channels, size_x, size_y = bev.shape
    last = points.new_tensor([size_x - 1, size_y - 1])
    place = (points.detach() - points.new_tensor(grid.bounds[:2])) / points.new_tensor(grid.cell) - 0.5
    place = torch.minimum(place.clamp(min=0), last)
    low = place.floor()
    high, upper = torch.minimum(low + 1, last), place - low

    rows, weights = [], []
    for x, along_x in ((low[:, 0], 1 - upper[:, 0]), (high[:, 0], upper[:, 0])):
        for y, along_y in ((low[:, 1], 1 - upper[:, 1]), (high[:, 1], upper[:, 1])):
            rows.append((frame * size_x + x.long()) * size_y + y.long())
            weights.append(along_x * along_y)
    # The op sums over the eight corners of a voxel: four of them do not exist.
    corners = torch.full((len(points), 8), -1, dtype=torch.int32, device=bev.device)
    corners[:, :4] = torch.stack(rows, dim=1).int()
    shares = points.new_zeros(len(points), 8)
    shares[:, :4] = torch.stack(weights, dim=1)
    cells = bev.permute(0, 2, 3, 1).reshape(-1, channels)
    return trilinear_gather(cells, corners, shares)
