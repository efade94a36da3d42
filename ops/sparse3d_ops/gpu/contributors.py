"""Triton body of the strongest splats of each pixel: a program walks through a tile as `surfel_blend` does,
and each pixel sorts what it meets into its row."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import launch_grid
from sparse3d_ops.gpu.splat_blend import grid_of, pixels
from sparse3d_ops.gpu.surfel_blend import PACKED, meet, pack


@triton.jit(do_not_specialize=["width", "height", "count"])
def strongest_kernel(
    packed, starts, splats, limits, ids, weights, width, height, count, ORTHOGRAPHIC: tl.constexpr
):
    """ids come in -1 and weights 0. limits: least alpha, largest alpha, the transmittance to stop at, near,
    low-pass."""
    kind = packed.dtype.element_ty
    least_alpha, most_alpha, stop = tl.load(limits), tl.load(limits + 1), tl.load(limits + 2)
    near, low_pass = tl.load(limits + 3), tl.load(limits + 4)
    py, px, there = pixels(width, height)
    centre_x, centre_y = px.to(kind) + 0.5, py.to(kind) + 0.5
    row = (py.to(tl.int64) * width + px) * count
    light = there.to(kind)
    k, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    while (k < end) & (tl.max(light, 0) >= stop):
        n = tl.load(splats + k).to(tl.int64)
        splat = packed + PACKED * n
        x, y = centre_x - tl.load(splat), centre_y - tl.load(splat + 1)
        bare, _, _, _, _, _, _ = meet(splat, x, y, near, low_pass, ORTHOGRAPHIC)
        alpha = tl.where(bare > most_alpha, most_alpha, bare)
        counts = there & (alpha >= least_alpha) & (light >= stop)
        weight = tl.where(counts, alpha * light, 0.0)
        light = light - weight
        moves = counts & (weight > tl.load(weights + row + count - 1, mask=counts, other=0))
        tl.store(weights + row + count - 1, weight, mask=moves)
        tl.store(ids + row + count - 1, (n + tl.zeros_like(row)).to(tl.int32), mask=moves)
        place = count - 1
        while (place > 0) & (tl.max(moves.to(tl.int32), 0) > 0):
            before = row + place - 1
            was = tl.load(weights + before, mask=moves, other=0)
            moves = moves & (weight > was)
            was_id, my_id = tl.load(ids + before, mask=moves), tl.load(ids + before + 1, mask=moves)
            tl.store(weights + before + 1, was, mask=moves)
            tl.store(ids + before + 1, was_id, mask=moves)
            tl.store(weights + before, weight, mask=moves)
            tl.store(ids + before, my_id, mask=moves)
            place -= 1
        k += 1


def strongest(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    starts: Tensor,
    splats: Tensor,
    limits: Tensor,
    orthographic: bool,
    ids: Tensor,
    weights: Tensor,
) -> None:
    packed = pack(means2d, slopes, depths, opacities, limits)
    ids.fill_(-1)
    weights.fill_(0)
    height, width, count = ids.shape
    inputs = packed, starts, splats, limits, ids, weights, width, height, count
    constants = {"ORTHOGRAPHIC": orthographic, "num_warps": 4, "fused": False}
    launch_grid(strongest_kernel, grid_of(ids), *inputs, **constants)
