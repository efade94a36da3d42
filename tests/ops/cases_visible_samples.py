"""The samples that rays see under the law suite."""

import torch

from sparse3d_ops import visible_samples as op
from tests.ops.cases_grid_sample import volume
from tests.ops.laws import OpLaw
from tests.oracles import visible_samples as oracle

LOW, SIZE = [-0.5, 0.25, 0.0], 0.5


def _rays(count, dtype):
    """From a sphere around the volume to somewhere within it."""
    origins = torch.nn.functional.normalize(torch.randn(count, 3, dtype=dtype), dim=1) * 6
    targets = torch.rand(count, 3, dtype=dtype) * 3.5 - 1.5
    return origins, torch.nn.functional.normalize(targets - origins, dim=1)


def _case(voxels, rays, step=0.2, min_alpha=1e-3, stop=1e-3, bias=0.0):
    def make(dtype, device):
        coordinates = volume(voxels, frames=1)
        points, rows = op.lattice(coordinates)
        origins, directions = _rays(rays, dtype)
        spans = torch.tensor([1.0, 11.0], dtype=dtype).repeat(rays, 1)
        spans[1::5, 0] = 6.0  # begins in the volume
        values = torch.randn(len(points), dtype=dtype) * 3 + bias
        offsets = torch.rand(rays, dtype=dtype)
        tensors = [*op.voxel_table(coordinates), rows, values, origins, directions, spans, offsets]
        return *(tensor.to(device) for tensor in tensors), LOW, SIZE, step, min_alpha, stop

    return make


def _far_apart(dtype, device):
    # What is empty is looked up in blocks of as many voxels as the box around all of them asks for.
    coordinates = torch.cat(
        [volume(200, frames=1), torch.tensor([[0, 3000, -2500, 2000]], dtype=torch.int32)]
    )
    args = list(_case(0, 30)(dtype, "cpu"))
    points, rows = op.lattice(coordinates)
    args[:4] = [*op.voxel_table(coordinates), rows, torch.randn(len(points), dtype=dtype) * 3]
    return (*(arg.to(device) if isinstance(arg, torch.Tensor) else arg for arg in args),)


def _along_axes(dtype, device):
    # Parallel to the axes, through the middle of voxels; backwards; and numbers that are not finite.
    args = list(_case(200, 9)(dtype, device))
    directions = torch.eye(3, dtype=dtype).repeat(3, 1)
    directions[3:6] *= -1
    args[5] = directions.to(device)
    args[4] = (-4.0 * directions + torch.tensor([0.26, 0.51, 0.24], dtype=dtype)).to(device)
    args[4][6, 1] = torch.nan
    args[6][7, 1] = torch.inf
    args[6][8] = torch.tensor([5.0, 5.0])
    return tuple(args)


CASES = {
    "empty_volume": _case(0, 5),
    "no_rays": _case(5, 0),
    "single": _case(1, 20, bias=3.0),
    "negative": _case(200, 30),
    "far_apart": _far_apart,
    "opaque": _case(250, 30, bias=20.0),
    "transparent": _case(250, 20, bias=-20.0),
    "nothing_left_out": _case(250, 20, min_alpha=0.0, stop=0.0),
    "long_step": _case(250, 20, step=1.7),
    "along_axes": _along_axes,
}
LAWS = [OpLaw(op.visible_samples, oracle.visible_samples, CASES)]
