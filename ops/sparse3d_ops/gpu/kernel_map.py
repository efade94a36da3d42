"""Triton bodies of the kernel maps.

`geometry` holds nine numbers: stride (sx, sy, sz), padding (px, py, pz) and dilation (dx, dy, dz). Kernel
sizes are constants of the kernels.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.hashing import find, in_range, pack_key
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 256
BEYOND = tl.constexpr(1)  # neither a key nor 0: a site outside of the key
GEOMETRY = ["sx", "sy", "sz", "px", "py", "pz", "dx", "dy", "dz"]
SHAPE = ["nx", "ny", "nz"]


@triton.jit
def site_of(sites, row, inside):
    b = tl.load(sites + 4 * row, mask=inside, other=0).to(tl.int64)
    x = tl.load(sites + 4 * row + 1, mask=inside, other=0).to(tl.int64)
    y = tl.load(sites + 4 * row + 2, mask=inside, other=0).to(tl.int64)
    z = tl.load(sites + 4 * row + 3, mask=inside, other=0).to(tl.int64)
    return b, x, y, z


@triton.jit(do_not_specialize=["items", "slots", *GEOMETRY])
def neighbors_kernel(
    slot_keys,
    slot_rows,
    slots,
    out,
    table,
    reverse,
    sx,
    sy,
    sz,
    px,
    py,
    pz,
    dx,
    dy,
    dz,
    items,
    KX: tl.constexpr,
    KY: tl.constexpr,
    KZ: tl.constexpr,
    WITH_REVERSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Lane o * V + v looks up tap v of output o."""
    i = lanes(BLOCK)
    inside = i < items
    o, v = i // (KX * KY * KZ), i % (KX * KY * KZ)
    b, x, y, z = site_of(out, o, inside)
    x = sx * x - px + dx * (v // (KY * KZ))
    y = sy * y - py + dy * (v // KZ % KY)
    z = sz * z - pz + dz * (v % KZ)
    row = find(slot_keys, slot_rows, slots, pack_key(b, x, y, z), inside & in_range(x, y, z))
    tl.store(table + i, row, mask=inside)
    if WITH_REVERSE:
        there = row.to(tl.int64) * (KX * KY * KZ) + v
        tl.store(reverse + there, o.to(tl.int32), mask=inside & (row >= 0))


def neighbors(
    slot_keys: Tensor,
    slot_rows: Tensor,
    out: Tensor,
    kernel: Sequence[int],
    geometry: Sequence[int],
    table: Tensor,
    reverse: Tensor | None,
) -> None:
    """table[o, v] = input row at stride * out[o] - padding + dilation * tap(v); reverse, filled with -1, its
    inverse per tap. All taps are looked up, of symmetric maps too: rows are written once and side by side."""
    launch(
        neighbors_kernel,
        table.numel(),
        BLOCK,
        slot_keys,
        slot_rows,
        len(slot_keys),
        out,
        table,
        table if reverse is None else reverse,
        *geometry,
        KX=kernel[0],
        KY=kernel[1],
        KZ=kernel[2],
        WITH_REVERSE=reverse is not None,
    )


@triton.jit
def put_key(found, i, inside, exists, b, x, y, z, nx, ny, nz, BOUNDED: tl.constexpr):
    """The key of a site, 0 where there is none, BEYOND where it does not fit the key."""
    if BOUNDED:
        exists = exists & (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z >= 0) & (z < nz)
    key = tl.where(in_range(x, y, z), pack_key(b, x, y, z), BEYOND)
    tl.store(found + i, tl.where(exists, key, 0), mask=inside)


@triton.jit
def strided_axis(position, nth, stride, padding, dilation, K: tl.constexpr):
    """The nth output that a position reaches on one axis, and whether there is one: (position + padding -
    dilation * tap) / stride, where that is whole, tap by tap."""
    shifted = position + padding
    out = tl.zeros_like(position)
    seen = tl.zeros_like(position)
    for tap in tl.static_range(K):
        at = shifted - dilation * tap
        whole = at % stride == 0
        out = tl.where(whole & (seen == nth), at // stride, out)  # exact, so how it rounds does not matter
        seen += whole.to(tl.int64)
    return out, nth < seen


@triton.jit(do_not_specialize=["items", *GEOMETRY, *SHAPE])
def strided_kernel(
    sites,
    found,
    sx,
    sy,
    sz,
    px,
    py,
    pz,
    dx,
    dy,
    dz,
    nx,
    ny,
    nz,
    items,
    KX: tl.constexpr,
    KY: tl.constexpr,
    KZ: tl.constexpr,
    RX: tl.constexpr,
    RY: tl.constexpr,
    RZ: tl.constexpr,
    BOUNDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """An input reaches at most RX * RY * RZ outputs; a lane finds one of them."""
    i = lanes(BLOCK)
    inside = i < items
    n, candidate = i // (RX * RY * RZ), i % (RX * RY * RZ)
    b, x, y, z = site_of(sites, n, inside)
    x, on_x = strided_axis(x, candidate // (RY * RZ), sx, px, dx, KX)
    y, on_y = strided_axis(y, candidate // RZ % RY, sy, py, dy, KY)
    z, on_z = strided_axis(z, candidate % RZ, sz, pz, dz, KZ)
    put_key(found, i, inside, on_x & on_y & on_z, b, x, y, z, nx, ny, nz, BOUNDED)


@triton.jit(do_not_specialize=["items", *GEOMETRY, *SHAPE])
def transposed_kernel(
    sites,
    found,
    sx,
    sy,
    sz,
    px,
    py,
    pz,
    dx,
    dy,
    dz,
    nx,
    ny,
    nz,
    items,
    KX: tl.constexpr,
    KY: tl.constexpr,
    KZ: tl.constexpr,
    BOUNDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = lanes(BLOCK)
    inside = i < items
    n, v = i // (KX * KY * KZ), i % (KX * KY * KZ)
    b, x, y, z = site_of(sites, n, inside)
    x = sx * x - px + dx * (v // (KY * KZ))
    y = sy * y - py + dy * (v // KZ % KY)
    z = sz * z - pz + dz * (v % KZ)
    put_key(found, i, inside, inside, b, x, y, z, nx, ny, nz, BOUNDED)


def strided_sites(
    sites: Tensor,
    kernel: Sequence[int],
    reach: Sequence[int],
    geometry: Sequence[int],
    shape: Sequence[int],
    found: Tensor,
) -> None:
    """found (N * reach,) int64 is an output: keys of the sites that each input reaches, 0 for none, BEYOND
    for a site outside of the key."""
    constants = dict(zip(("KX", "KY", "KZ", "RX", "RY", "RZ"), (*kernel, *reach), strict=True))
    _list_candidates(strided_kernel, sites, geometry, shape, found, constants)


def transposed_sites(
    sites: Tensor,
    kernel: Sequence[int],
    reach: Sequence[int],
    geometry: Sequence[int],
    shape: Sequence[int],
    found: Tensor,
) -> None:
    """As `strided_sites`, for a transposed convolution; `reach` is the kernel."""
    constants = dict(zip(("KX", "KY", "KZ"), kernel, strict=True))
    _list_candidates(transposed_kernel, sites, geometry, shape, found, constants)


def _list_candidates(kernel, sites, geometry, shape, found, constants) -> None:
    size, bounded = shape or (0, 0, 0), len(shape) > 0
    launch(kernel, len(found), BLOCK, sites, found, *geometry, *size, BOUNDED=bounded, **constants)
