"""Triton bodies of blending Gaussians; `cpu/splat_blend.py` says what is summed.

A program works on one tile, a lane on each of its 256 pixels, splat after splat from the front. On the way
back the same is walked again from the front: no state of the pixels is kept. A splat's numbers are read by
all lanes at one address, which a GPU does in one go. Both ways compute alpha by `alpha_of`, with the same
roundings, so both see the same splats.

None of this was measured on a GPU. The choices by thought: on the way there a tile has 4 warps, which have
little to tell each other: whether a splat is seen at all, and whether light is left. On the way back it has
one warp, 8 pixels to a thread: the 8 sums and the channels' of every splat are then shuffles, where more
warps would have to meet at each of them.
"""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.composite import ray_of
from sparse3d_ops.gpu.launch import lanes, launch, launch_grid
from sparse3d_ops.splat_blend import GRADIENTS as COLUMNS
from sparse3d_ops.splat_tiles import TILE as SIDE

BLOCK = 256
TILE = tl.constexpr(SIDE)
PIXELS = tl.constexpr(SIDE * SIDE)
GRADIENTS = tl.constexpr(COLUMNS)
LOG2_E = tl.constexpr(1.4426950408889634)
INF = tl.constexpr(float("inf"))
# Columns of a packed splat, 32 bytes in float32: mean, the form's three coefficients, opacity; two are free.
PACKED = tl.constexpr(8)
# Splats between two looks at whether light is left.
LOOK = 8
# Channels that a program sums in registers going there: two pixels of 32 channels are 64 of them. With more
# channels the tile is walked anew for each so many. Going back, so many are read at once.
MOST_SUMMED, MOST_READ = 32, 8


@triton.jit(do_not_specialize=["items"])
def pack_kernel(means2d, conics, opacities, limits, packed, items, BLOCK: tl.constexpr):
    """packed (N, PACKED): a splat's form in powers of two; of one that cannot be seen zeros."""
    n = lanes(BLOCK)
    inside = n < items
    kind = packed.dtype.element_ty
    x, y = tl.load(means2d + 2 * n, mask=inside, other=0), tl.load(means2d + 2 * n + 1, mask=inside, other=0)
    # In double the determinant of a float32 conic is exact: that of a needle cancels.
    a = tl.load(conics + 3 * n, mask=inside, other=0).to(tl.float64)
    b = tl.load(conics + 3 * n + 1, mask=inside, other=0).to(tl.float64)
    c = tl.load(conics + 3 * n + 2, mask=inside, other=0).to(tl.float64)
    opacity = tl.load(opacities + n, mask=inside, other=0)
    determinant = a * c - b * b
    shown = (a > 0) & (determinant > 0) & (determinant < INF) & (opacity > tl.load(limits))
    shown = shown & (tl.abs(x) < INF) & (tl.abs(y) < INF)
    row = packed + PACKED * n
    tl.store(row, tl.where(shown, x, 0.0), mask=inside)
    tl.store(row + 1, tl.where(shown, y, 0.0), mask=inside)
    tl.store(row + 2, tl.where(shown, -0.5 * LOG2_E * a, 0.0).to(kind), mask=inside)
    tl.store(row + 3, tl.where(shown, -LOG2_E * b, 0.0).to(kind), mask=inside)
    tl.store(row + 4, tl.where(shown, -0.5 * LOG2_E * c, 0.0).to(kind), mask=inside)
    tl.store(row + 5, tl.where(shown, opacity, 0.0), mask=inside)


def pack(means2d: Tensor, conics: Tensor, opacities: Tensor, limits: Tensor) -> Tensor:
    packed = means2d.new_empty(len(means2d), PACKED.value)
    launch(pack_kernel, len(packed), BLOCK, means2d, conics, opacities, limits, packed)
    return packed


@triton.jit
def pixels(width, height):
    """Row and column of this program's pixels, int64, and which of them are in the image. As floats they are
    exact."""
    across = (width + TILE - 1) // TILE
    tile, lane = tl.program_id(0), tl.arange(0, PIXELS)
    y = (tile // across).to(tl.int64) * TILE + lane // TILE
    x = (tile % across).to(tl.int64) * TILE + lane % TILE
    return y, x, (y < height) & (x < width)


@triton.jit
def alpha_of(splat, x, y, most_alpha):
    """Of a row of `packed` at the pixels: opacity times exponential, and what counts of it; x and y are seen
    from its mean."""
    power = x * (x * tl.load(splat + 2) + y * tl.load(splat + 3)) + y * y * tl.load(splat + 4)
    bare = tl.exp2(power) * tl.load(splat + 5)
    return bare, tl.where(bare > most_alpha, most_alpha, bare)


@triton.jit(do_not_specialize=["width", "height", "channels", "first_channel"])
def blend_kernel(
    packed,
    features,
    starts,
    splats,
    limits,
    image,
    through,
    width,
    height,
    channels,
    first_channel,
    CHANNELS: tl.constexpr,
    LOOK: tl.constexpr,
):
    """image (H, W, channels) from `first_channel` on, through (H, W); limits: least alpha, largest alpha, the
    transmittance to stop at."""
    kind = packed.dtype.element_ty
    least_alpha, most_alpha, stop = tl.load(limits), tl.load(limits + 1), tl.load(limits + 2)
    py, px, there = pixels(width, height)
    centre_x, centre_y = px.to(kind) + 0.5, py.to(kind) + 0.5
    channel = first_channel + tl.arange(0, CHANNELS)
    # No light gets through pixels outside of the image.
    light = there.to(kind)
    sums = tl.zeros((CHANNELS, PIXELS), kind)
    k, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    while (k < end) & (tl.max(light, 0) >= stop):
        for _ in range(0, LOOK):
            n = tl.load(splats + k, mask=k < end, other=0).to(tl.int64)
            splat = packed + PACKED * n
            x, y = centre_x - tl.load(splat), centre_y - tl.load(splat + 1)
            _, alpha = alpha_of(splat, x, y, most_alpha)
            counts = (alpha >= least_alpha) & (light >= stop) & (k < end)
            if tl.max(counts.to(tl.int32), 0) > 0:
                weight = tl.where(counts, alpha * light, 0.0)
                light -= weight
                feature = tl.load(features + n * channels + channel, mask=channel < channels, other=0)
                sums += weight[None, :] * feature[:, None]
            k += 1
    pixel = py * width + px
    tl.store(through + pixel, light, mask=there)
    place = image + pixel[None, :] * channels + channel[:, None]
    tl.store(place, sums, mask=there[None, :] & (channel < channels)[:, None])


def grid_of(image: Tensor) -> tuple[int]:
    """One program a tile."""
    return (triton.cdiv(image.shape[0], SIDE) * triton.cdiv(image.shape[1], SIDE),)


def blend(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    starts: Tensor,
    splats: Tensor,
    limits: Tensor,
    image: Tensor,
    through: Tensor,
) -> None:
    packed = pack(means2d, conics, opacities, limits)
    height, width, channels = image.shape
    summed = min(triton.next_power_of_2(max(channels, 1)), MOST_SUMMED)
    inputs = packed, features, starts, splats, limits, image, through, width, height, channels
    constants = {"CHANNELS": summed, "LOOK": LOOK, "num_warps": 4, "fused": False}
    for first in range(0, max(channels, 1), summed):  # once for no channels
        launch_grid(blend_kernel, grid_of(image), *inputs, first, **constants)


@triton.jit(do_not_specialize=["width", "height", "channels"])
def backward_kernel(
    packed,
    conics,
    features,
    starts,
    splats,
    slots,
    limits,
    image,
    through,
    of_image,
    of_through,
    out,
    width,
    height,
    channels,
    ABSOLUTE: tl.constexpr,
    CHANNELS: tl.constexpr,
    LOOK: tl.constexpr,
):
    """out (M, GRADIENTS + channels) comes in 0: rows of what nothing is seen of stay so."""
    kind = packed.dtype.element_ty
    least_alpha, most_alpha, stop = tl.load(limits), tl.load(limits + 1), tl.load(limits + 2)
    py, px, there = pixels(width, height)
    centre_x, centre_y = px.to(kind) + 0.5, py.to(kind) + 0.5
    pixel = py * width + px
    light = there.to(kind)
    behind = tl.load(of_through + pixel, mask=there, other=0) * tl.load(through + pixel, mask=there, other=0)
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        place = pixel[None, :] * channels + channel[:, None]
        wanted = there[None, :] & (channel < channels)[:, None]
        shown = tl.load(of_image + place, mask=wanted, other=0) * tl.load(image + place, mask=wanted, other=0)
        behind += tl.sum(shown, 0)
    k, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    while (k < end) & (tl.max(light, 0) >= stop):
        for _ in range(0, LOOK):
            n = tl.load(splats + k, mask=k < end, other=0).to(tl.int64)
            splat = packed + PACKED * n
            x, y = centre_x - tl.load(splat), centre_y - tl.load(splat + 1)
            bare, alpha = alpha_of(splat, x, y, most_alpha)
            counts = (alpha >= least_alpha) & (light >= stop) & (k < end)
            if tl.max(counts.to(tl.int32), 0) > 0:
                row = out + tl.load(slots + k) * (GRADIENTS + channels)
                weight = tl.where(counts, alpha * light, 0.0)
                shown = tl.zeros((PIXELS,), kind)
                for first in range(0, channels, CHANNELS):
                    channel = first + tl.arange(0, CHANNELS)
                    known = channel < channels
                    place = of_image + pixel[None, :] * channels + channel[:, None]
                    of_pixel = tl.load(place, mask=there[None, :] & known[:, None], other=0)
                    feature = tl.load(features + n * channels + channel, mask=known, other=0)
                    shown += tl.sum(of_pixel * feature[:, None], 0)
                    tl.store(row + GRADIENTS + channel, tl.sum(of_pixel * weight[None, :], 1), mask=known)
                behind -= weight * shown
                of_alpha = light * shown - behind / (1 - alpha)
                # Where alpha is held down it depends on nothing.
                of_power = tl.where(bare > most_alpha, 0.0, of_alpha * alpha)
                of_power = tl.where(counts, of_power, 0.0)
                light -= weight
                a, b, c = tl.load(conics + 3 * n), tl.load(conics + 3 * n + 1), tl.load(conics + 3 * n + 2)
                of_x, of_y = of_power * x, of_power * y
                moved_x, moved_y = tl.sum(of_x, 0), tl.sum(of_y, 0)
                tl.store(row, a * moved_x + b * moved_y)
                tl.store(row + 1, b * moved_x + c * moved_y)
                tl.store(row + 2, -0.5 * tl.sum(of_x * x, 0))
                tl.store(row + 3, -tl.sum(of_x * y, 0))
                tl.store(row + 4, -0.5 * tl.sum(of_y * y, 0))
                tl.store(row + 5, tl.sum(of_power, 0) / tl.load(splat + 5))
                if ABSOLUTE:
                    tl.store(row + 6, tl.sum(tl.abs(a * of_x + b * of_y), 0))
                    tl.store(row + 7, tl.sum(tl.abs(b * of_x + c * of_y), 0))
            k += 1


@triton.jit(do_not_specialize=["items", "columns"])
def sum_kernel(of_slots, offsets, out, columns, items, BLOCK: tl.constexpr):
    """out (N, columns) = sums of the rows offsets[n] to offsets[n + 1], in order."""
    lane = lanes(BLOCK)
    inside = lane < items
    n, column = lane // columns, lane % columns
    k, end = ray_of(offsets, n, inside)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    while tl.max((k < end).to(tl.int32), 0) > 0:
        total += tl.load(of_slots + k * columns + column, mask=k < end, other=0)
        k += 1
    tl.store(out + lane, total, mask=inside)


def blend_backward(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    image: Tensor,
    through: Tensor,
    of_image: Tensor,
    of_through: Tensor,
    limits: Tensor,
    wants_absolute: bool,
    of_slots: Tensor,
    out: Tensor,
) -> None:
    packed = pack(means2d, conics, opacities, limits)
    height, width, channels = image.shape
    of_slots.zero_()
    inputs = packed, conics, features, starts, splats, slots, limits, image, through, of_image, of_through
    read = min(triton.next_power_of_2(max(channels, 1)), MOST_READ)
    constants = {"ABSOLUTE": wants_absolute, "CHANNELS": read, "LOOK": LOOK, "num_warps": 1, "fused": False}
    sizes = width, height, channels
    launch_grid(backward_kernel, grid_of(image), *inputs, of_slots, *sizes, **constants)
    launch(sum_kernel, out.numel(), BLOCK, of_slots, offsets, out, out.shape[1])
