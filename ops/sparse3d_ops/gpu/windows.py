"""Triton body of the windows: the keys that are sorted."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 256


@triton.jit(do_not_specialize=["items"])
def window_key_kernel(coordinates, geometry, along_y, along_x, place, items, BLOCK: tl.constexpr):
    """geometry: counts, window and shift, (x, y, z) each, int64."""
    row = lanes(BLOCK)
    inside = row < items
    batch = tl.load(coordinates + row * 4, mask=inside, other=0).to(tl.int64)
    x = tl.load(coordinates + row * 4 + 1, mask=inside, other=0) + tl.load(geometry + 6)
    y = tl.load(coordinates + row * 4 + 2, mask=inside, other=0) + tl.load(geometry + 7)
    z = tl.load(coordinates + row * 4 + 3, mask=inside, other=0) + tl.load(geometry + 8)
    wx, wy, wz = tl.load(geometry + 3), tl.load(geometry + 4), tl.load(geometry + 5)
    here = (batch * tl.load(geometry) + x // wx) * tl.load(geometry + 1) + y // wy
    here = (here * tl.load(geometry + 2) + z // wz) * (wx * wy * wz)
    x, y, z = x % wx, y % wy, z % wz
    tl.store(along_y + row, here + (y * wx + x) * wz + z, mask=inside)
    tl.store(along_x + row, here + (x * wy + y) * wz + z, mask=inside)
    tl.store(place + row * 3, x.to(tl.int32), mask=inside)
    tl.store(place + row * 3 + 1, y.to(tl.int32), mask=inside)
    tl.store(place + row * 3 + 2, z.to(tl.int32), mask=inside)


def window_keys(
    coordinates: Tensor, counts: list[int], window: list[int], shift: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """along_y, along_x (N,) int64 and place (N, 3) int32."""
    rows = len(coordinates)
    geometry = torch.tensor([*counts, *window, *shift], device=coordinates.device)
    along_y, along_x = (geometry.new_empty(rows) for _ in range(2))
    place = coordinates.new_empty(rows, 3)
    launch(window_key_kernel, rows, BLOCK, coordinates.contiguous(), geometry, along_y, along_x, place)
    return along_y, along_x, place
