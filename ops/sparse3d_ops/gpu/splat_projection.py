"""Triton bodies of the projection of Gaussians; `cpu/splat_projection.py` has the notation.

A lane projects one Gaussian. Numbers of what is not seen are replaced by harmless ones before they are
computed with.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

# Lanes hold about a hundred numbers each on the way back, so small blocks; never measured.
BLOCK = 128
BORDER = tl.constexpr(0.3)
INF = tl.constexpr(float("inf"))


@triton.jit
def row3(rows, n, there):
    """Columns of (N, 3); 0 for lanes that are not there."""
    return (
        tl.load(rows + 3 * n, mask=there, other=0),
        tl.load(rows + 3 * n + 1, mask=there, other=0),
        tl.load(rows + 3 * n + 2, mask=there, other=0),
    )


@triton.jit
def in_camera(x, y, z, world, row: tl.constexpr):
    """One coordinate in the camera's frame."""
    w = world + 4 * row
    return tl.load(w) * x + tl.load(w + 1) * y + tl.load(w + 2) * z + tl.load(w + 3)


@triton.jit
def finite3(x, y, z):
    """Whether all three are; without sums, which may overflow."""
    return (tl.abs(x) < INF) & (tl.abs(y) < INF) & (tl.abs(z) < INF)


@triton.jit
def unit(w, x, y, z):
    """A quaternion of length 1, and the length that it had; the identity in place of 0."""
    length = tl.sqrt(w * w + x * x + y * y + z * z)
    over = tl.where(length > 0, length, 1.0)
    return tl.where(length > 0, w / over, 1.0), x / over, y / over, z / over, length


@triton.jit
def rotation(w, x, y, z):
    """The nine entries, row after row."""
    return (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )


@triton.jit
def held(ratio, focal, centre, size):
    """The slope of a ray within the image and its border, and whether it was within."""
    border = BORDER * size / 2 / focal
    low, high = -centre / focal - border, (size - centre) / focal + border
    return tl.minimum(tl.maximum(ratio, low), high), (low <= ratio) & (ratio <= high)


@triton.jit
def jacobian(x, y, z, lens, limits, ORTHOGRAPHIC: tl.constexpr):
    """Entries (0, 0), (0, 2), (1, 1), (1, 2) of J; the others are 0."""
    fx, fy = tl.load(lens), tl.load(lens + 1)
    if ORTHOGRAPHIC:
        return fx + x * 0, x * 0, fy + y * 0, y * 0
    else:
        a, _ = held(x / z, fx, tl.load(lens + 2), tl.load(limits))
        b, _ = held(y / z, fy, tl.load(lens + 3), tl.load(limits + 1))
        return fx / z, -fx * a / z, fy / z, -fy * b / z


@triton.jit
def row_of_m(j, j2, world, row: tl.constexpr):
    """A row of M = J W."""
    w, last = world + 4 * row, world + 8
    return (
        j * tl.load(w) + j2 * tl.load(last),
        j * tl.load(w + 1) + j2 * tl.load(last + 1),
        j * tl.load(w + 2) + j2 * tl.load(last + 2),
    )


@triton.jit
def spread(u0, u1, u2, v0, v1, v2, s0, s1, s2):
    """The image's sharp covariance of the rows u, v of M R, and its determinant as a sum of squares: a d -
    b^2 of a needle would cancel."""
    s0, s1, s2 = s0 * s0, s1 * s1, s2 * s2
    a = s0 * u0 * u0 + s1 * u1 * u1 + s2 * u2 * u2
    b = s0 * u0 * v0 + s1 * u1 * v1 + s2 * u2 * v2
    d = s0 * v0 * v0 + s1 * v1 * v1 + s2 * v2 * v2
    c01, c02, c12 = u0 * v1 - u1 * v0, u0 * v2 - u2 * v0, u1 * v2 - u2 * v1
    return a, b, d, s0 * s1 * c01 * c01 + s0 * s2 * c02 * c02 + s1 * s2 * c12 * c12


@triton.jit(do_not_specialize=["items"])
def project_kernel(
    means,
    quats,
    scales,
    opacities,
    world,
    lens,
    limits,
    means2d,
    conics,
    depths,
    reach,
    compensation,
    items,
    ORTHOGRAPHIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Limits: width, height, near, blur, least alpha. Outputs of what is not seen are 0."""
    n = lanes(BLOCK)
    inside = n < items
    width, height, near = tl.load(limits), tl.load(limits + 1), tl.load(limits + 2)
    blur, least_alpha = tl.load(limits + 3), tl.load(limits + 4)
    mx, my, mz = row3(means, n, inside)
    s0, s1, s2 = row3(scales, n, inside)
    qw, qx = tl.load(quats + 4 * n, mask=inside, other=0), tl.load(quats + 4 * n + 1, mask=inside, other=0)
    qy, qz = (
        tl.load(quats + 4 * n + 2, mask=inside, other=0),
        tl.load(quats + 4 * n + 3, mask=inside, other=0),
    )
    opacity = tl.load(opacities + n, mask=inside, other=0)
    seen = inside & finite3(mx, my, mz) & finite3(s0, s1, s2) & finite3(qw, qx, qy) & (tl.abs(qz) < INF)
    mx, my, mz = tl.where(seen, mx, 0.0), tl.where(seen, my, 0.0), tl.where(seen, mz, 0.0)
    x, y = in_camera(mx, my, mz, world, 0), in_camera(mx, my, mz, world, 1)
    z = in_camera(mx, my, mz, world, 2)
    qw, qx, qy, qz = (
        tl.where(seen, qw, 0.0),
        tl.where(seen, qx, 0.0),
        tl.where(seen, qy, 0.0),
        tl.where(seen, qz, 0.0),
    )
    qw, qx, qy, qz, length = unit(qw, qx, qy, qz)
    seen = seen & (z >= near) & (opacity > least_alpha) & (opacity < INF) & (length > 0)
    x, y, z = tl.where(seen, x, 0.0), tl.where(seen, y, 0.0), tl.where(seen, z, 1.0)
    opacity = tl.where(seen, opacity, 1.0)
    s0, s1, s2 = tl.where(seen, s0, 0.0), tl.where(seen, s1, 0.0), tl.where(seen, s2, 0.0)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation(qw, qx, qy, qz)
    j0, j02, j1, j12 = jacobian(x, y, z, lens, limits, ORTHOGRAPHIC)
    a0, a1, a2 = row_of_m(j0, j02, world, 0)
    b0, b1, b2 = row_of_m(j1, j12, world, 1)
    u0, u1, u2 = (
        a0 * r00 + a1 * r10 + a2 * r20,
        a0 * r01 + a1 * r11 + a2 * r21,
        a0 * r02 + a1 * r12 + a2 * r22,
    )
    v0, v1, v2 = (
        b0 * r00 + b1 * r10 + b2 * r20,
        b0 * r01 + b1 * r11 + b2 * r21,
        b0 * r02 + b1 * r12 + b2 * r22,
    )
    a, b, d, sharp = spread(u0, u1, u2, v0, v1, v2, s0, s1, s2)
    determinant = sharp + blur * (a + d) + blur * blur
    a, d = a + blur, d + blur
    u, v = x, y
    if not ORTHOGRAPHIC:
        u, v = x / z, y / z
    u, v = tl.load(lens) * u + tl.load(lens + 2), tl.load(lens + 1) * v + tl.load(lens + 3)
    widest = tl.sqrt(2 * tl.log(opacity / least_alpha))
    reach_x, reach_y = widest * tl.sqrt(a), widest * tl.sqrt(d)
    seen = seen & (determinant > 0) & (determinant < INF)
    seen = seen & (u + reach_x > 0) & (u - reach_x < width) & (v + reach_y > 0) & (v - reach_y < height)
    determinant = tl.where(seen, determinant, 1.0)
    tl.store(means2d + 2 * n, tl.where(seen, u, 0.0), mask=inside)
    tl.store(means2d + 2 * n + 1, tl.where(seen, v, 0.0), mask=inside)
    tl.store(conics + 3 * n, tl.where(seen, d / determinant, 0.0), mask=inside)
    tl.store(conics + 3 * n + 1, tl.where(seen, -b / determinant, 0.0), mask=inside)
    tl.store(conics + 3 * n + 2, tl.where(seen, a / determinant, 0.0), mask=inside)
    tl.store(depths + n, tl.where(seen, z, 0.0), mask=inside)
    tl.store(reach + 2 * n, tl.where(seen, reach_x, 0.0), mask=inside)
    tl.store(reach + 2 * n + 1, tl.where(seen, reach_y, 0.0), mask=inside)
    tl.store(compensation + n, tl.where(seen, tl.sqrt(sharp / determinant), 0.0), mask=inside)


def project(inputs: Sequence[Tensor], out: Sequence[Tensor], orthographic: bool) -> None:
    """Both in the order of the kernel."""
    means, *rest = inputs
    launch(project_kernel, len(means), BLOCK, means, *rest, *out, ORTHOGRAPHIC=orthographic)


@triton.jit
def conic_gradient(a0, b, d0, sharp, blur, g00, g01, g11, of_compensation):
    """The gradient in the covariance: - conic G conic, and of the compensation."""
    determinant = sharp + blur * (a0 + d0) + blur * blur
    k00, k01, k11 = (d0 + blur) / determinant, -b / determinant, (a0 + blur) / determinant
    t00, t01 = k00 * g00 + k01 * g01, k00 * g01 + k01 * g11
    t10, t11 = k01 * g00 + k11 * g01, k01 * g01 + k11 * g11
    over = tl.where(sharp > 0, sharp, 1.0)
    half = tl.where(sharp > 0, of_compensation * tl.sqrt(sharp / determinant) / 2, 0.0)
    return (
        half * (d0 / over - k00) - (t00 * k00 + t01 * k01),
        -half * (b / over + k01) - (t00 * k01 + t01 * k11),
        half * (a0 / over - k11) - (t10 * k01 + t11 * k11),
    )


@triton.jit
def axis_gradient(s, u, v, s00, s01, s11, r0, r1, r2, a0, a1, a2, b0, b1, b2):
    """Of one of the Gaussian's axes: the gradient in its scale, in the three entries of the rotation's
    column, and its share of that in both rows of M."""
    of_u, of_v = 2 * (s00 * u + s01 * v) * s, 2 * (s01 * u + s11 * v) * s
    su, sv = s * of_u, s * of_v
    return (
        of_u * u + of_v * v,
        a0 * su + b0 * sv,
        a1 * su + b1 * sv,
        a2 * su + b2 * sv,
        su * r0,
        su * r1,
        su * r2,
        sv * r0,
        sv * r1,
        sv * r2,
    )


@triton.jit
def add_camera(slices, place: tl.constexpr, seen, value):
    """The sum over the lanes of a block of a part of the camera's gradient."""
    total = tl.sum(tl.where(seen, value, 0.0).to(tl.float64), 0)
    tl.store(slices + 16 * tl.program_id(0).to(tl.int64) + place, total)


@triton.jit(do_not_specialize=["items"])
def project_backward_kernel(
    means,
    quats,
    scales,
    world,
    lens,
    limits,
    reach,
    of_means2d,
    of_conics,
    of_depths,
    of_compensation,
    of_means,
    of_quats,
    of_scales,
    slices,
    items,
    ORTHOGRAPHIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """slices (blocks, 16): the camera's gradient, 12 numbers of world (row after row) and four of the
    lens."""
    n = lanes(BLOCK)
    inside = n < items
    seen = inside & (tl.load(reach + 2 * n, mask=inside, other=0) > 0)
    mx, my, mz = row3(means, n, seen)
    s0, s1, s2 = row3(scales, n, seen)
    x, y = in_camera(mx, my, mz, world, 0), in_camera(mx, my, mz, world, 1)
    z = tl.where(seen, in_camera(mx, my, mz, world, 2), 1.0)
    qw, qx = tl.load(quats + 4 * n, mask=seen, other=1), tl.load(quats + 4 * n + 1, mask=seen, other=0)
    qy, qz = tl.load(quats + 4 * n + 2, mask=seen, other=0), tl.load(quats + 4 * n + 3, mask=seen, other=0)
    qw, qx, qy, qz, length = unit(qw, qx, qy, qz)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation(qw, qx, qy, qz)
    j0, j02, j1, j12 = jacobian(x, y, z, lens, limits, ORTHOGRAPHIC)
    a0, a1, a2 = row_of_m(j0, j02, world, 0)
    b0, b1, b2 = row_of_m(j1, j12, world, 1)
    u0, u1, u2 = (
        a0 * r00 + a1 * r10 + a2 * r20,
        a0 * r01 + a1 * r11 + a2 * r21,
        a0 * r02 + a1 * r12 + a2 * r22,
    )
    v0, v1, v2 = (
        b0 * r00 + b1 * r10 + b2 * r20,
        b0 * r01 + b1 * r11 + b2 * r21,
        b0 * r02 + b1 * r12 + b2 * r22,
    )
    a, b, d, sharp = spread(u0, u1, u2, v0, v1, v2, s0, s1, s2)
    blur = tl.load(limits + 3)
    # What is not seen has a determinant of 1 here: blur may be 0.
    a, d, sharp = tl.where(seen, a, 1.0), tl.where(seen, d, 1.0), tl.where(seen, sharp, 1.0)
    g00, g01, g11 = row3(of_conics, n, seen)
    share = tl.load(of_compensation + n, mask=seen, other=0)
    s00, s01, s11 = conic_gradient(a, b, d, sharp, blur, g00, g01 / 2, g11, share)
    of_s0, g0, g3, g6, p0, p1, p2, q0, q1, q2 = axis_gradient(
        s0, u0, v0, s00, s01, s11, r00, r10, r20, a0, a1, a2, b0, b1, b2
    )
    of_s1, g1, g4, g7, p3, p4, p5, q3, q4, q5 = axis_gradient(
        s1, u1, v1, s00, s01, s11, r01, r11, r21, a0, a1, a2, b0, b1, b2
    )
    of_s2, g2, g5, g8, p6, p7, p8, q6, q7, q8 = axis_gradient(
        s2, u2, v2, s00, s01, s11, r02, r12, r22, a0, a1, a2, b0, b1, b2
    )
    tl.store(of_scales + 3 * n, tl.where(seen, of_s0, 0.0), mask=inside)
    tl.store(of_scales + 3 * n + 1, tl.where(seen, of_s1, 0.0), mask=inside)
    tl.store(of_scales + 3 * n + 2, tl.where(seen, of_s2, 0.0), mask=inside)
    # The quaternion, from the gradient g (3, 3) in its rotation.
    xy, xz, yz = g1 + g3, g2 + g6, g5 + g7
    of_w = 2 * (qx * (g7 - g5) + qy * (g2 - g6) + qz * (g3 - g1))
    of_x = 2 * (qy * xy + qz * xz + qw * (g7 - g5) - 2 * qx * (g4 + g8))
    of_y = 2 * (qx * xy + qz * yz + qw * (g2 - g6) - 2 * qy * (g0 + g8))
    of_z = 2 * (qx * xz + qy * yz + qw * (g3 - g1) - 2 * qz * (g0 + g4))
    along = of_w * qw + of_x * qx + of_y * qy + of_z * qz
    tl.store(of_quats + 4 * n, tl.where(seen, (of_w - along * qw) / length, 0.0), mask=inside)
    tl.store(of_quats + 4 * n + 1, tl.where(seen, (of_x - along * qx) / length, 0.0), mask=inside)
    tl.store(of_quats + 4 * n + 2, tl.where(seen, (of_y - along * qy) / length, 0.0), mask=inside)
    tl.store(of_quats + 4 * n + 3, tl.where(seen, (of_z - along * qz) / length, 0.0), mask=inside)
    # M = J W.
    m00, m01, m02 = p0 + p3 + p6, p1 + p4 + p7, p2 + p5 + p8
    m10, m11, m12 = q0 + q3 + q6, q1 + q4 + q7, q2 + q5 + q8
    w00, w01, w02 = tl.load(world), tl.load(world + 1), tl.load(world + 2)
    w10, w11, w12 = tl.load(world + 4), tl.load(world + 5), tl.load(world + 6)
    w20, w21, w22 = tl.load(world + 8), tl.load(world + 9), tl.load(world + 10)
    of_j0, of_j02 = m00 * w00 + m01 * w01 + m02 * w02, m00 * w20 + m01 * w21 + m02 * w22
    of_j1, of_j12 = m10 * w10 + m11 * w11 + m12 * w12, m10 * w20 + m11 * w21 + m12 * w22
    fx, fy = tl.load(lens), tl.load(lens + 1)
    of_u = tl.load(of_means2d + 2 * n, mask=seen, other=0)
    of_v = tl.load(of_means2d + 2 * n + 1, mask=seen, other=0)
    of_depth = tl.load(of_depths + n, mask=seen, other=0)
    if ORTHOGRAPHIC:
        of_px, of_py, of_pz = of_u * fx, of_v * fy, of_depth
        of_fx, of_fy = of_u * x + of_j0, of_v * y + of_j1
    else:
        slope_x, slope_y = x / z, y / z
        hx, free_x = held(slope_x, fx, tl.load(lens + 2), tl.load(limits))
        hy, free_y = held(slope_y, fy, tl.load(lens + 3), tl.load(limits + 1))
        of_slope_x = of_u * fx - tl.where(free_x, of_j02 * fx / z, 0.0)
        of_slope_y = of_v * fy - tl.where(free_y, of_j12 * fy / z, 0.0)
        of_px, of_py = of_slope_x / z, of_slope_y / z
        of_pz = of_depth - (of_slope_x * slope_x + of_slope_y * slope_y) / z
        of_pz -= (of_j0 * fx + of_j1 * fy - of_j02 * fx * hx - of_j12 * fy * hy) / (z * z)
        of_fx, of_fy = of_u * slope_x + (of_j0 - of_j02 * hx) / z, of_v * slope_y + (of_j1 - of_j12 * hy) / z
    of_mx = w00 * of_px + w10 * of_py + w20 * of_pz
    of_my = w01 * of_px + w11 * of_py + w21 * of_pz
    of_mz = w02 * of_px + w12 * of_py + w22 * of_pz
    tl.store(of_means + 3 * n, tl.where(seen, of_mx, 0.0), mask=inside)
    tl.store(of_means + 3 * n + 1, tl.where(seen, of_my, 0.0), mask=inside)
    tl.store(of_means + 3 * n + 2, tl.where(seen, of_mz, 0.0), mask=inside)
    add_camera(slices, 0, seen, of_px * mx + j0 * m00)
    add_camera(slices, 1, seen, of_px * my + j0 * m01)
    add_camera(slices, 2, seen, of_px * mz + j0 * m02)
    add_camera(slices, 3, seen, of_px)
    add_camera(slices, 4, seen, of_py * mx + j1 * m10)
    add_camera(slices, 5, seen, of_py * my + j1 * m11)
    add_camera(slices, 6, seen, of_py * mz + j1 * m12)
    add_camera(slices, 7, seen, of_py)
    add_camera(slices, 8, seen, of_pz * mx + j02 * m00 + j12 * m10)
    add_camera(slices, 9, seen, of_pz * my + j02 * m01 + j12 * m11)
    add_camera(slices, 10, seen, of_pz * mz + j02 * m02 + j12 * m12)
    add_camera(slices, 11, seen, of_pz)
    add_camera(slices, 12, seen, of_fx)
    add_camera(slices, 13, seen, of_fy)
    add_camera(slices, 14, seen, of_u)
    add_camera(slices, 15, seen, of_v)


def project_backward(inputs: Sequence[Tensor], out: Sequence[Tensor], orthographic: bool) -> Tensor:
    """Both in the order of the kernel. Returns the camera's gradient (16,), float64: the sum over blocks."""
    means, *rest = inputs
    blocks = triton.cdiv(len(means), BLOCK)
    slices = torch.empty(blocks, 16, dtype=torch.float64, device=means.device)
    arguments = means, *rest, *out, slices
    launch(project_backward_kernel, len(means), BLOCK, *arguments, ORTHOGRAPHIC=orthographic)
    return slices.sum(0)
