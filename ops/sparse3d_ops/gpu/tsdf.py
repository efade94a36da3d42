"""Triton bodies of averaging depth maps and rays into blocks of truncated distances: a program owns a block,
a lane a lattice point."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import launch_grid
from sparse3d_ops.gpu.tsdf_blocks import (
    first_of,
    followed,
    free_way,
    near_the_point,
    planes,
    second_of,
    third_of,
)


@triton.jit(do_not_specialize=["height", "width"])
def depth_kernel(
    values,
    weights,
    colors,
    rows,
    places,
    offsets,
    numbers,
    depth,
    picture,
    shares,
    height,
    width,
    TINTED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    POINTS: tl.constexpr,
):
    """values, weights (B, POINTS) and colors (B, 3, POINTS) are changed."""
    m = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + m)
    i = tl.arange(0, POINTS)
    fx, fy, cx, cy = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2), tl.load(numbers + 3)
    truncation, near, far = tl.load(numbers + 4), tl.load(numbers + 5), tl.load(numbers + 6)
    x = tl.load(offsets + i) + tl.load(places + 3 * m)
    y = tl.load(offsets + POINTS + i) + tl.load(places + 3 * m + 1)
    z = tl.load(offsets + 2 * POINTS + i) + tl.load(places + 3 * m + 2)
    ahead = z > 0
    one = tl.full((POINTS,), 1.0, tl.float32)
    inverse = tl.div_rn(one, tl.where(ahead, z, 1.0))
    u, v = x * inverse * fx + cx, y * inverse * fy + cy
    kept = ahead & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    column, line = tl.where(kept, u, 0.0).to(tl.int64), tl.where(kept, v, 0.0).to(tl.int64)
    pixel = line * width + column
    d = tl.load(depth + pixel, mask=kept, other=0)
    kept = kept & (d > 0) & (d >= near) & (d <= far)
    behind = tl.div_rn(z - tl.where(kept, d, 0.0), truncation + tl.zeros_like(z))
    kept = kept & (behind <= 1)
    share = one
    if WEIGHTED:
        share = tl.load(shares + pixel, mask=kept, other=0)
        kept = kept & (share > 0)
    at = row * POINTS + i
    old = tl.load(weights + at, mask=kept, other=0)
    before = tl.load(values + at, mask=kept, other=0)
    total = tl.where(kept, old + share, 1.0)
    part = tl.div_rn(tl.where(kept, share, 0.0), total)
    tl.store(values + at, before + (tl.maximum(behind, -1.0) - before) * part, mask=kept)
    tl.store(weights + at, tl.minimum(total, tl.load(numbers + 7)), mask=kept)
    if TINTED:
        for k in tl.static_range(3):
            plane = colors + (3 * row + k) * POINTS + i
            was = tl.load(plane, mask=kept, other=0)
            seen = tl.load(picture + 3 * pixel + k, mask=kept, other=0).to(tl.float32)
            tl.store(plane, was + (seen - was) * part, mask=kept)


def integrate_depth(
    values: Tensor,
    weights: Tensor,
    colors: Tensor,
    rows: Tensor,
    places: Tensor,
    offsets: Tensor,
    numbers: Tensor,
    depth: Tensor,
    picture: Tensor | None,
    pixel_weights: Tensor | None,
) -> None:
    if not len(rows):
        return
    launch_grid(
        depth_kernel,
        (len(rows),),
        values,
        weights,
        colors,
        rows.contiguous(),
        places,
        offsets,
        numbers,
        depth,
        depth if picture is None else picture,
        depth if pixel_weights is None else pixel_weights,
        *depth.shape,
        fused=False,
        TINTED=picture is not None,
        WEIGHTED=pixel_weights is not None,
        POINTS=values.shape[1] ** 3,
    )


@triton.jit
def shares(points, ray, numbers, gx, gy, gz, FREE: tl.constexpr):
    """Of the lattice points of a block at a ray: which it passes on its part that tells of the surface, or
    FREE on its free way, their shares in the bilinear interpolation, how far behind its point they are, by
    the truncation, and along which axis it runs."""
    x, y, z, length, axis, there = followed(points, ray, numbers, ray >= 0)
    ox, oy, oz = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    va, vb, vc = first_of(x, y, z, axis), second_of(x, y, z, axis), third_of(x, y, z, axis)
    oa, ob, oc = first_of(ox, oy, oz, axis), second_of(ox, oy, oz, axis), third_of(ox, oy, oz, axis)
    a, u, v = first_of(gx, gy, gz, axis), second_of(gx, gy, gz, axis), third_of(gx, gy, gz, axis)
    truncation = tl.load(numbers + 3)
    if FREE:
        begin, end = free_way(length, truncation, tl.load(numbers + 4))
    else:
        begin, end = near_the_point(length, truncation)
    first, last = planes(oa, va, begin, end)
    t = (a - oa) / va
    b, c = ob + t * vb, oc + t * vc
    passed = there & (a >= first) & (a <= last)
    passed = passed & (u - tl.floor(b) >= 0) & (u - tl.floor(b) <= 1)
    passed = passed & (v - tl.floor(c) >= 0) & (v - tl.floor(c) <= 1)
    behind = (va * (a - oa) + vb * (u - ob) + vc * (v - oc) - length) / truncation
    share = (1 - tl.abs(b - u)) * (1 - tl.abs(c - v))
    return passed & (share > 0), share, behind, axis


@triton.jit
def plane_sums(x, axis, SIDE: tl.constexpr):
    """Of numbers of lattice points (SIDE^3,): the sum over the plane of each across an axis."""
    cube = tl.reshape(x, (SIDE, SIDE, SIDE))
    zero = cube * 0
    along_x = tl.sum(tl.sum(cube, 2), 1)[:, None, None] + zero
    along_y = tl.sum(tl.sum(cube, 2), 0)[None, :, None] + zero
    along_z = tl.sum(tl.sum(cube, 1), 0)[None, None, :] + zero
    return tl.reshape(
        tl.where(axis == 0, along_x, tl.where(axis == 1, along_y, along_z)), (SIDE * SIDE * SIDE,)
    )


@triton.jit
def ray_kernel(
    values,
    weights,
    colors,
    rows,
    blocks,
    starts,
    rays,
    free_starts,
    free_rays,
    points,
    tints,
    numbers,
    SIDE: tl.constexpr,
    TINTED: tl.constexpr,
):
    """values, weights (B, SIDE^3) and colors (B, 3, SIDE^3) are changed."""
    m = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + m)
    i = tl.arange(0, SIDE * SIDE * SIDE)
    gx = (tl.load(blocks + 4 * m + 1) * SIDE + i // (SIDE * SIDE)).to(tl.float64)
    gy = (tl.load(blocks + 4 * m + 2) * SIDE + i // SIDE % SIDE).to(tl.float64)
    gz = (tl.load(blocks + 4 * m + 3) * SIDE + i % SIDE).to(tl.float64)
    limit = tl.load(numbers + 8)
    at = row * SIDE * SIDE * SIDE + i
    value = tl.load(values + at).to(tl.float64)
    weight = tl.load(weights + at).to(tl.float64)
    plane = 3 * row * SIDE * SIDE * SIDE + i
    red, green, blue = value, value, value
    if TINTED:
        red = tl.load(colors + plane).to(tl.float64)
        green = tl.load(colors + plane + SIDE * SIDE * SIDE).to(tl.float64)
        blue = tl.load(colors + plane + 2 * SIDE * SIDE * SIDE).to(tl.float64)
    s = tl.load(starts + m)
    end = tl.load(starts + m + 1)
    measured = i < 0
    while s < end:
        ray = tl.load(rays + s).to(tl.int64)
        passed, share, behind, axis = shares(points, ray, numbers, gx, gy, gz, False)
        w = tl.load(numbers + 7) * share
        passed = passed & (behind <= 1) & (w > 0)
        measured = measured | passed
        part = tl.where(passed, w, 0.0) / tl.where(passed, weight + w, 1.0)
        # Kept as float32 between two rays, as the numba body keeps them.
        change = (tl.maximum(behind, -1.0) - value) * part
        value = tl.where(passed, value + change, value).to(tl.float32).to(tl.float64)
        weight = tl.where(passed, tl.minimum(weight + w, limit), weight).to(tl.float32).to(tl.float64)
        if TINTED:
            r = tl.load(tints + 3 * ray).to(tl.float64)
            g = tl.load(tints + 3 * ray + 1).to(tl.float64)
            b = tl.load(tints + 3 * ray + 2).to(tl.float64)
            red = (red + (r - red) * part).to(tl.float32).to(tl.float64)
            green = (green + (g - green) * part).to(tl.float32).to(tl.float64)
            blue = (blue + (b - blue) * part).to(tl.float32).to(tl.float64)
        s += 1
    s = tl.load(free_starts + m)
    end = tl.load(free_starts + m + 1)
    while s < end:
        ray = tl.load(free_rays + s).to(tl.int64)
        passed, share, behind, axis = shares(points, ray, numbers, gx, gy, gz, True)
        passed = passed & (measured == 0) & (weight > 0)
        passed = passed & (plane_sums(tl.where(passed, share * value, 0.0), axis, SIDE) > 0)
        w = tl.load(numbers + 9) * share
        part = tl.where(passed, w, 0.0) / tl.where(passed, weight + w, 1.0)
        value = tl.where(passed, value + (-1 - value) * part, value).to(tl.float32).to(tl.float64)
        weight = tl.where(passed, tl.minimum(weight + w, limit), weight).to(tl.float32).to(tl.float64)
        s += 1
    tl.store(values + at, value.to(tl.float32))
    tl.store(weights + at, weight.to(tl.float32))
    if TINTED:
        tl.store(colors + plane, red.to(tl.float32))
        tl.store(colors + plane + SIDE * SIDE * SIDE, green.to(tl.float32))
        tl.store(colors + plane + 2 * SIDE * SIDE * SIDE, blue.to(tl.float32))


def integrate_rays(
    values: Tensor,
    weights: Tensor,
    colors: Tensor,
    rows: Tensor,
    blocks: Tensor,
    starts: Tensor,
    rays: Tensor,
    free_starts: Tensor,
    free_rays: Tensor,
    points: Tensor,
    tints: Tensor | None,
    numbers: Tensor,
) -> None:
    if not len(rows):
        return
    launch_grid(
        ray_kernel,
        (len(rows),),
        values,
        weights,
        colors,
        rows,
        blocks,
        starts,
        rays,
        free_starts,
        free_rays,
        points,
        rays if tints is None else tints,
        numbers,
        fused=False,
        SIDE=values.shape[1],
        TINTED=tints is not None,
    )
