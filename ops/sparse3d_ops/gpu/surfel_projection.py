"""Triton bodies of the projection of surfels; `cpu/surfel_projection.py` has the notation.

A lane projects one surfel. Numbers of what is not seen are replaced by harmless ones before they are computed
with.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch
from sparse3d_ops.gpu.splat_projection import add_camera, finite3, in_camera, rotation, row3, unit
from sparse3d_ops.surfel_projection import EDGE as EDGE_ON
from sparse3d_ops.surfel_projection import NOWHERE as FAR

# Never measured, as of Gaussians.
BLOCK = 128
INF = tl.constexpr(float("inf"))
EDGE, NOWHERE = tl.constexpr(EDGE_ON), tl.constexpr(FAR)


@triton.jit
def cross(a0, a1, a2, b0, b1, b2):
    return a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0


@triton.jit
def turned(world, x, y, z):
    """A direction of the world in the camera's frame."""
    return (
        tl.load(world) * x + tl.load(world + 1) * y + tl.load(world + 2) * z,
        tl.load(world + 4) * x + tl.load(world + 5) * y + tl.load(world + 6) * z,
        tl.load(world + 8) * x + tl.load(world + 9) * y + tl.load(world + 10) * z,
    )


@triton.jit
def turned_back(world, x, y, z):
    """A gradient in a direction of the camera's frame, in that of the world."""
    return (
        tl.load(world) * x + tl.load(world + 4) * y + tl.load(world + 8) * z,
        tl.load(world + 1) * x + tl.load(world + 5) * y + tl.load(world + 9) * z,
        tl.load(world + 2) * x + tl.load(world + 6) * y + tl.load(world + 10) * z,
    )


@triton.jit
def ray(p0, p1, p2, ORTHOGRAPHIC: tl.constexpr):
    """Along the ray through the centre p."""
    if ORTHOGRAPHIC:
        none = p2 * 0
        return none, none, none + 1
    else:
        return p0, p1, p2


@triton.jit
def edge_on(g, n0, n1, n2, e0, e1, e2):
    square = (n0 * n0 + n1 * n1 + n2 * n2) * (e0 * e0 + e1 * e1 + e2 * e2)
    return (g * g > square * (EDGE * EDGE)) == 0


@triton.jit
def reach_of(a0, a1, b0, b1, c0, c1, square):
    """In double, and infinite where the outline is no ellipse."""
    a0, a1, b0, b1 = a0.to(tl.float64), a1.to(tl.float64), b0.to(tl.float64), b1.to(tl.float64)
    c0, c1 = c0.to(tl.float64), c1.to(tl.float64)
    xx = a0 * a0 + b0 * b0 - square * c0 * c0
    xy = a0 * a1 + b0 * b1 - square * c0 * c1
    yy = a1 * a1 + b1 * b1 - square * c1 * c1
    determinant = xx * yy - xy * xy
    ellipse = (xx > 0) & (determinant > 0)
    determinant = tl.where(ellipse, determinant, 1.0)
    x, y = square * (yy * c0 - xy * c1) / determinant, square * (xx * c1 - xy * c0) / determinant
    widest = tl.where(ellipse, square + square * (c0 * x + c1 * y), 0.0)
    xx, yy = tl.where(ellipse, xx, 0.0), tl.where(ellipse, yy, 0.0)
    wide = tl.abs(x) + tl.sqrt(widest * yy / determinant)
    high = tl.abs(y) + tl.sqrt(widest * xx / determinant)
    return tl.where(ellipse, wide, INF), tl.where(ellipse, high, INF)


@triton.jit(do_not_specialize=["items"])
def project_surfels_kernel(
    means,
    quats,
    scales,
    opacities,
    world,
    lens,
    limits,
    means2d,
    slopes,
    depths,
    normals,
    reach,
    items,
    ORTHOGRAPHIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Limits: width, height, near, least alpha, low-pass. Outputs of what is not seen are 0."""
    n = lanes(BLOCK)
    inside = n < items
    kind = means.dtype.element_ty
    width, height, near = tl.load(limits), tl.load(limits + 1), tl.load(limits + 2)
    least_alpha, low_pass = tl.load(limits + 3), tl.load(limits + 4)
    mx, my, mz = row3(means, n, inside)
    su, sv = tl.load(scales + 2 * n, mask=inside, other=0), tl.load(scales + 2 * n + 1, mask=inside, other=0)
    qw, qx = tl.load(quats + 4 * n, mask=inside, other=0), tl.load(quats + 4 * n + 1, mask=inside, other=0)
    qy = tl.load(quats + 4 * n + 2, mask=inside, other=0)
    qz = tl.load(quats + 4 * n + 3, mask=inside, other=0)
    opacity = tl.load(opacities + n, mask=inside, other=0)
    seen = inside & finite3(mx, my, mz) & finite3(qw, qx, qy) & finite3(su, sv, qz)
    mx, my, mz = tl.where(seen, mx, 0.0), tl.where(seen, my, 0.0), tl.where(seen, mz, 0.0)
    qw, qx = tl.where(seen, qw, 0.0), tl.where(seen, qx, 0.0)
    qy, qz = tl.where(seen, qy, 0.0), tl.where(seen, qz, 0.0)
    qw, qx, qy, qz, length = unit(qw, qx, qy, qz)
    p0, p1 = in_camera(mx, my, mz, world, 0), in_camera(mx, my, mz, world, 1)
    p2 = in_camera(mx, my, mz, world, 2)
    seen = (
        seen & (p2 >= near) & (opacity > least_alpha) & (opacity < INF) & (length > 0) & (su > 0) & (sv > 0)
    )
    p0, p1, p2 = tl.where(seen, p0, 0.0), tl.where(seen, p1, 0.0), tl.where(seen, p2, 1.0)
    opacity, su, sv = tl.where(seen, opacity, 1.0), tl.where(seen, su, 1.0), tl.where(seen, sv, 1.0)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation(qw, qx, qy, qz)
    a0, a1, a2 = turned(world, r00, r10, r20)
    b0, b1, b2 = turned(world, r01, r11, r21)
    n0, n1, n2 = cross(a0, a1, a2, b0, b1, b2)
    e0, e1, e2 = ray(p0, p1, p2, ORTHOGRAPHIC)
    g = n0 * e0 + n1 * e1 + n2 * e2
    edge = edge_on(g, n0, n1, n2, e0, e1, e2)
    k = e2 / tl.where(edge, 1.0, g)
    u0, u1, _ = cross(b0, b1, b2, e0, e1, e2)
    v0, v1, _ = cross(e0, e1, e2, a0, a1, a2)
    fx, fy = tl.load(lens), tl.load(lens + 1)
    s00 = tl.where(edge, NOWHERE, k * u0 / (fx * su)).to(kind)
    s01 = tl.where(edge, 0.0, k * u1 / (fy * su)).to(kind)
    s10 = tl.where(edge, 0.0, k * v0 / (fx * sv)).to(kind)
    s11 = tl.where(edge, NOWHERE, k * v1 / (fy * sv)).to(kind)
    rise = k
    if ORTHOGRAPHIC:
        rise = -k / p2
    s20 = tl.where(edge, 0.0, rise * n0 / fx).to(kind)
    s21 = tl.where(edge, 0.0, rise * n1 / fy).to(kind)
    square = 2 * tl.log((opacity / least_alpha).to(tl.float64))
    bend = 0.0 if ORTHOGRAPHIC else 1.0
    wide, high = reach_of(s00, s01, s10, s11, bend * s20, bend * s21, square)
    dot = tl.sqrt(square / low_pass)
    x, y = fx * p0 / e2 + tl.load(lens + 2), fy * p1 / e2 + tl.load(lens + 3)
    wide = tl.minimum(tl.maximum(wide, dot), tl.abs(x) + width + 1).to(kind)
    high = tl.minimum(tl.maximum(high, dot), tl.abs(y) + height + 1).to(kind)
    seen = seen & (x + wide > 0) & (x - wide < width) & (y + high > 0) & (y - high < height)
    seen = seen & (tl.abs(g) < INF)
    side = tl.where(g > 0, -1.0, 1.0)
    tl.store(means2d + 2 * n, tl.where(seen, x, 0.0), mask=inside)
    tl.store(means2d + 2 * n + 1, tl.where(seen, y, 0.0), mask=inside)
    row = slopes + 6 * n
    tl.store(row, tl.where(seen, s00, 0.0), mask=inside)
    tl.store(row + 1, tl.where(seen, s01, 0.0), mask=inside)
    tl.store(row + 2, tl.where(seen, s10, 0.0), mask=inside)
    tl.store(row + 3, tl.where(seen, s11, 0.0), mask=inside)
    tl.store(row + 4, tl.where(seen, s20, 0.0), mask=inside)
    tl.store(row + 5, tl.where(seen, s21, 0.0), mask=inside)
    tl.store(depths + n, tl.where(seen, p2, 0.0), mask=inside)
    tl.store(normals + 3 * n, tl.where(seen, side * r02, 0.0).to(kind), mask=inside)
    tl.store(normals + 3 * n + 1, tl.where(seen, side * r12, 0.0).to(kind), mask=inside)
    tl.store(normals + 3 * n + 2, tl.where(seen, side * r22, 0.0).to(kind), mask=inside)
    tl.store(reach + 2 * n, tl.where(seen, wide, 0.0), mask=inside)
    tl.store(reach + 2 * n + 1, tl.where(seen, high, 0.0), mask=inside)


def project(inputs: Sequence[Tensor], out: Sequence[Tensor], orthographic: bool) -> None:
    """Both in the order of the kernel."""
    launch(project_surfels_kernel, len(inputs[0]), BLOCK, *inputs, *out, ORTHOGRAPHIC=orthographic)


@triton.jit(do_not_specialize=["items"])
def project_surfels_backward_kernel(
    means,
    quats,
    scales,
    world,
    lens,
    reach,
    of_means2d,
    of_slopes,
    of_depths,
    of_normals,
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
    su, sv = tl.load(scales + 2 * n, mask=seen, other=1), tl.load(scales + 2 * n + 1, mask=seen, other=1)
    qw, qx = tl.load(quats + 4 * n, mask=seen, other=1), tl.load(quats + 4 * n + 1, mask=seen, other=0)
    qy, qz = tl.load(quats + 4 * n + 2, mask=seen, other=0), tl.load(quats + 4 * n + 3, mask=seen, other=0)
    p0, p1 = in_camera(mx, my, mz, world, 0), in_camera(mx, my, mz, world, 1)
    p2 = tl.where(seen, in_camera(mx, my, mz, world, 2), 1.0)
    qw, qx, qy, qz, length = unit(qw, qx, qy, qz)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation(qw, qx, qy, qz)
    a0, a1, a2 = turned(world, r00, r10, r20)
    b0, b1, b2 = turned(world, r01, r11, r21)
    n0, n1, n2 = cross(a0, a1, a2, b0, b1, b2)
    e0, e1, e2 = ray(p0, p1, p2, ORTHOGRAPHIC)
    g = n0 * e0 + n1 * e1 + n2 * e2
    # Of what is edge-on the slopes depend on nothing.
    free = seen & (edge_on(g, n0, n1, n2, e0, e1, e2) == 0)
    facing = tl.where(free, g, 1.0)
    k = e2 / facing
    u0, u1, _ = cross(b0, b1, b2, e0, e1, e2)
    v0, v1, _ = cross(e0, e1, e2, a0, a1, a2)
    fx, fy = tl.load(lens), tl.load(lens + 1)
    row = of_slopes + 6 * n
    # Gradients in b x ray, ray x a and n without k, whose third components are 0.
    gu0, gu1 = tl.load(row, mask=free, other=0) / (fx * su), tl.load(row + 1, mask=free, other=0) / (fy * su)
    gv0 = tl.load(row + 2, mask=free, other=0) / (fx * sv)
    gv1 = tl.load(row + 3, mask=free, other=0) / (fy * sv)
    gn0, gn1 = tl.load(row + 4, mask=free, other=0) / fx, tl.load(row + 5, mask=free, other=0) / fy
    if ORTHOGRAPHIC:
        gn0, gn1 = -gn0 / p2, -gn1 / p2
    none = gu0 * 0
    by_u, by_v = u0 * gu0 + u1 * gu1, v0 * gv0 + v1 * gv1
    by_n = n0 * gn0 + n1 * gn1
    of_k = by_u + by_v + by_n
    of_g = -of_k * k / facing
    tl.store(of_scales + 2 * n, tl.where(seen, -k * by_u / su, 0.0), mask=inside)
    tl.store(of_scales + 2 * n + 1, tl.where(seen, -k * by_v / sv, 0.0), mask=inside)
    of_x = tl.load(of_means2d + 2 * n, mask=seen, other=0)
    of_y = tl.load(of_means2d + 2 * n + 1, mask=seen, other=0)
    of_fx = of_x * p0 / e2 - k * (u0 * gu0 + v0 * gv0 + n0 * gn0) / fx
    of_fy = of_y * p1 / e2 - k * (u1 * gu1 + v1 * gv1 + n1 * gn1) / fy
    on0, on1, on2 = k * gn0 + of_g * e0, k * gn1 + of_g * e1, of_g * e2
    one0, one1, one2 = cross(gu0, gu1, none, b0, b1, b2)
    two0, two1, two2 = cross(a0, a1, a2, gv0, gv1, none)
    op0, op1, op2 = of_x * fx / e2, of_y * fy / e2, tl.load(of_depths + n, mask=seen, other=0)
    if ORTHOGRAPHIC:
        op2 -= k * by_n / p2
    else:  # the ray is p
        op2 += of_k / facing - (op0 * p0 + op1 * p1) / p2 + of_g * n2 + k * (one2 + two2)
        op0 += of_g * n0 + k * (one0 + two0)
        op1 += of_g * n1 + k * (one1 + two1)
    one0, one1, one2 = cross(b0, b1, b2, on0, on1, on2)
    two0, two1, two2 = cross(gv0, gv1, none, e0, e1, e2)
    oa0, oa1, oa2 = one0 + k * two0, one1 + k * two1, one2 + k * two2
    one0, one1, one2 = cross(on0, on1, on2, a0, a1, a2)
    two0, two1, two2 = cross(e0, e1, e2, gu0, gu1, none)
    ob0, ob1, ob2 = one0 + k * two0, one1 + k * two1, one2 + k * two2
    # The quaternion, from the gradient g (3, 3) in its rotation.
    g0, g3, g6 = turned_back(world, oa0, oa1, oa2)
    g1, g4, g7 = turned_back(world, ob0, ob1, ob2)
    g2, g5, g8 = row3(of_normals, n, seen)
    side = tl.where(g > 0, -1.0, 1.0).to(g2.dtype)
    g2, g5, g8 = side * g2, side * g5, side * g8
    xy, xz, yz = g1 + g3, g2 + g6, g5 + g7
    of_qw = 2 * (qx * (g7 - g5) + qy * (g2 - g6) + qz * (g3 - g1))
    of_qx = 2 * (qy * xy + qz * xz + qw * (g7 - g5) - 2 * qx * (g4 + g8))
    of_qy = 2 * (qx * xy + qz * yz + qw * (g2 - g6) - 2 * qy * (g0 + g8))
    of_qz = 2 * (qx * xz + qy * yz + qw * (g3 - g1) - 2 * qz * (g0 + g4))
    along = of_qw * qw + of_qx * qx + of_qy * qy + of_qz * qz
    tl.store(of_quats + 4 * n, tl.where(seen, (of_qw - along * qw) / length, 0.0), mask=inside)
    tl.store(of_quats + 4 * n + 1, tl.where(seen, (of_qx - along * qx) / length, 0.0), mask=inside)
    tl.store(of_quats + 4 * n + 2, tl.where(seen, (of_qy - along * qy) / length, 0.0), mask=inside)
    tl.store(of_quats + 4 * n + 3, tl.where(seen, (of_qz - along * qz) / length, 0.0), mask=inside)
    of_mx, of_my, of_mz = turned_back(world, op0, op1, op2)
    tl.store(of_means + 3 * n, tl.where(seen, of_mx, 0.0), mask=inside)
    tl.store(of_means + 3 * n + 1, tl.where(seen, of_my, 0.0), mask=inside)
    tl.store(of_means + 3 * n + 2, tl.where(seen, of_mz, 0.0), mask=inside)
    add_camera(slices, 0, seen, op0 * mx + oa0 * r00 + ob0 * r01)
    add_camera(slices, 1, seen, op0 * my + oa0 * r10 + ob0 * r11)
    add_camera(slices, 2, seen, op0 * mz + oa0 * r20 + ob0 * r21)
    add_camera(slices, 3, seen, op0)
    add_camera(slices, 4, seen, op1 * mx + oa1 * r00 + ob1 * r01)
    add_camera(slices, 5, seen, op1 * my + oa1 * r10 + ob1 * r11)
    add_camera(slices, 6, seen, op1 * mz + oa1 * r20 + ob1 * r21)
    add_camera(slices, 7, seen, op1)
    add_camera(slices, 8, seen, op2 * mx + oa2 * r00 + ob2 * r01)
    add_camera(slices, 9, seen, op2 * my + oa2 * r10 + ob2 * r11)
    add_camera(slices, 10, seen, op2 * mz + oa2 * r20 + ob2 * r21)
    add_camera(slices, 11, seen, op2)
    add_camera(slices, 12, seen, of_fx)
    add_camera(slices, 13, seen, of_fy)
    add_camera(slices, 14, seen, of_x)
    add_camera(slices, 15, seen, of_y)


def project_backward(inputs: Sequence[Tensor], out: Sequence[Tensor], orthographic: bool) -> Tensor:
    """Both in the order of the kernel. Returns the camera's gradient (16,), float64: blocks are summed in
    order."""
    means = inputs[0]
    slices = torch.empty(triton.cdiv(len(means), BLOCK), 16, dtype=torch.float64, device=means.device)
    parts = *inputs, *out, slices
    launch(project_surfels_backward_kernel, len(means), BLOCK, *parts, ORTHOGRAPHIC=orthographic)
    return slices.sum(0)
