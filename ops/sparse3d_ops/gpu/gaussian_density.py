"""Triton body of the density of Gaussians at points: a lane owns a point."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 64  # lanes of a block wait for that with the longest list
INF = tl.constexpr(float("inf"))


@triton.jit(do_not_specialize=["items", "channels"])
def density_kernel(
    points,
    voxel,
    starts,
    order,
    means,
    roots,
    opacities,
    features,
    least,
    out,
    sums,
    channels,
    items,
    BLOCK: tl.constexpr,
):
    """sums come in 0."""
    q = lanes(BLOCK)
    inside = q < items
    px = tl.load(points + 3 * q, mask=inside, other=0)
    py = tl.load(points + 3 * q + 1, mask=inside, other=0)
    pz = tl.load(points + 3 * q + 2, mask=inside, other=0)
    smallest = tl.load(least)
    v = tl.load(voxel + q, mask=inside, other=-1)
    at = tl.load(starts + v, mask=v >= 0, other=0)
    end = tl.load(starts + v + 1, mask=v >= 0, other=0)
    total = tl.zeros_like(px)
    while tl.max((at < end).to(tl.int32), 0) > 0:
        here = at < end
        n = tl.load(order + at, mask=here, other=0)
        x = px - tl.load(means + 3 * n, mask=here, other=0)
        y = py - tl.load(means + 3 * n + 1, mask=here, other=0)
        z = pz - tl.load(means + 3 * n + 2, mask=here, other=0)
        # Infinity less infinity is told where this is interpreted.
        finite = (tl.abs(x) < INF) & (tl.abs(y) < INF) & (tl.abs(z) < INF)
        x, y, z = tl.where(finite, x, 0.0), tl.where(finite, y, 0.0), tl.where(finite, z, 0.0)
        square = tl.zeros_like(px)
        for i in tl.static_range(3):
            row = roots + 9 * n + 3 * i
            along = tl.load(row, mask=here, other=0) * x + tl.load(row + 1, mask=here, other=0) * y
            along += tl.load(row + 2, mask=here, other=0) * z
            square += along * along
        weight = tl.load(opacities + n, mask=here, other=0) * tl.exp(square * -0.5)
        counts = here & finite & (weight >= smallest) & (weight < INF)
        weight = tl.where(counts, weight, 0.0)
        total += weight
        c = 0
        while c < channels:
            old = tl.load(sums + q * channels + c, mask=counts, other=0)
            feature = tl.load(features + n * channels + c, mask=counts, other=0)
            tl.store(sums + q * channels + c, old + weight * feature, mask=counts)
            c += 1
        at += 1
    tl.store(out + q, total, mask=inside)


def density(
    points: Tensor,
    voxel: Tensor,
    starts: Tensor,
    order: Tensor,
    means: Tensor,
    roots: Tensor,
    opacities: Tensor,
    features: Tensor,
    least: Tensor,
    out: Tensor,
    sums: Tensor,
) -> None:
    sums.zero_()
    lists = points, voxel, starts, order, means, roots, opacities, features, least, out, sums
    launch(density_kernel, len(points), BLOCK, *lists, features.shape[1])
