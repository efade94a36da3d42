"""Triton bodies of blending surfels; `cpu/surfel_blend.py` says what is summed, `gpu/splat_blend.py` how a
tile is walked.

None of this was measured on a GPU.
"""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch, launch_grid
from sparse3d_ops.gpu.splat_blend import LOOK, MOST_READ, MOST_SUMMED, grid_of, pixels, sum_kernel
from sparse3d_ops.splat_tiles import TILE as SIDE
from sparse3d_ops.surfel_blend import GRADIENTS as COLUMNS

BLOCK = 256
PIXELS = tl.constexpr(SIDE * SIDE)
GRADIENTS = tl.constexpr(COLUMNS)
# u and v are scaled so that u^2 + v^2 is the exponent in powers of two.
SCALE = tl.constexpr(0.8493218002880191)
SQUARE = tl.constexpr(0.7213475204444817)
INF = tl.constexpr(float("inf"))
# Columns of a packed surfel: centre, slopes, depth and its inverse, opacity; five are free.
PACKED = tl.constexpr(16)


@triton.jit(do_not_specialize=["items"])
def pack_surfels_kernel(means2d, slopes, depths, opacities, limits, packed, items, BLOCK: tl.constexpr):
    """packed (N, PACKED); of what cannot be seen zeros."""
    n = lanes(BLOCK)
    inside = n < items
    kind = packed.dtype.element_ty
    x, y = tl.load(means2d + 2 * n, mask=inside, other=0), tl.load(means2d + 2 * n + 1, mask=inside, other=0)
    s = slopes + 6 * n
    a0, a1 = tl.load(s, mask=inside, other=0), tl.load(s + 1, mask=inside, other=0)
    b0, b1 = tl.load(s + 2, mask=inside, other=0), tl.load(s + 3, mask=inside, other=0)
    c0, c1 = tl.load(s + 4, mask=inside, other=0), tl.load(s + 5, mask=inside, other=0)
    depth, opacity = tl.load(depths + n, mask=inside, other=0), tl.load(opacities + n, mask=inside, other=0)
    area = a0.to(tl.float64) * b1.to(tl.float64) - a1.to(tl.float64) * b0.to(tl.float64)
    shown = (tl.abs(x) < INF) & (tl.abs(y) < INF) & (tl.abs(area) > 0) & (tl.abs(area) < INF)
    shown = shown & (tl.abs(c0) < INF) & (tl.abs(c1) < INF) & (depth > 0) & (depth < INF)
    shown = shown & (opacity > tl.load(limits)) & (opacity < INF)
    row = packed + PACKED * n
    tl.store(row, tl.where(shown, x, 0.0), mask=inside)
    tl.store(row + 1, tl.where(shown, y, 0.0), mask=inside)
    tl.store(row + 2, tl.where(shown, a0 * SCALE, 0.0).to(kind), mask=inside)
    tl.store(row + 3, tl.where(shown, a1 * SCALE, 0.0).to(kind), mask=inside)
    tl.store(row + 4, tl.where(shown, b0 * SCALE, 0.0).to(kind), mask=inside)
    tl.store(row + 5, tl.where(shown, b1 * SCALE, 0.0).to(kind), mask=inside)
    tl.store(row + 6, tl.where(shown, c0, 0.0), mask=inside)
    tl.store(row + 7, tl.where(shown, c1, 0.0), mask=inside)
    tl.store(row + 8, tl.where(shown, depth, 0.0), mask=inside)
    tl.store(row + 9, tl.where(shown, 1 / tl.where(shown, depth, 1.0), 0.0), mask=inside)
    tl.store(row + 10, tl.where(shown, opacity, 0.0), mask=inside)


def pack(means2d: Tensor, slopes: Tensor, depths: Tensor, opacities: Tensor, limits: Tensor) -> Tensor:
    packed = means2d.new_empty(len(means2d), PACKED.value)
    launch(pack_surfels_kernel, len(packed), BLOCK, means2d, slopes, depths, opacities, limits, packed)
    return packed


@triton.jit
def meet(splat, x, y, near, low_pass, ORTHOGRAPHIC: tl.constexpr):
    """Where rays meet a surfel, as in the numba body, and its alpha before it is held down in place of the
    exponent; x and y are seen from the centre."""
    w = 1 + x * tl.load(splat + 6) + y * tl.load(splat + 7)
    there = w != 0
    inverse = 1 / tl.where(there, w, 1.0)
    share, deep, close = inverse, inverse, w
    if ORTHOGRAPHIC:
        share, deep, close = inverse * 0 + 1, w, inverse
    u = (x * tl.load(splat + 2) + y * tl.load(splat + 3)) * share
    v = (x * tl.load(splat + 4) + y * tl.load(splat + 5)) * share
    square = u * u + v * v
    blurred = (x * x + y * y) * (low_pass * SQUARE)
    met = there & (deep * tl.load(splat + 8) >= near) & (square <= blurred)
    bare = tl.exp2(-tl.where(met, square, blurred)) * tl.load(splat + 10)
    share, deep, close = tl.where(met, share, 1.0), tl.where(met, deep, 1.0), tl.where(met, close, 1.0)
    return bare, met, tl.where(met, u, 0.0), tl.where(met, v, 0.0), share, deep, close


@triton.jit(do_not_specialize=["width", "height", "channels", "first_channel"])
def blend_surfels_kernel(
    packed,
    features,
    starts,
    splats,
    limits,
    image,
    through,
    depth,
    nearness,
    median,
    distortion,
    which,
    width,
    height,
    channels,
    first_channel,
    ORTHOGRAPHIC: tl.constexpr,
    CHANNELS: tl.constexpr,
    LOOK: tl.constexpr,
):
    """The seven outputs of the op, of the image the channels from `first_channel` on. limits: least alpha,
    largest alpha, the transmittance to stop at, near, low-pass."""
    kind = packed.dtype.element_ty
    least_alpha, most_alpha, stop = tl.load(limits), tl.load(limits + 1), tl.load(limits + 2)
    near, low_pass = tl.load(limits + 3), tl.load(limits + 4)
    py, px, there = pixels(width, height)
    centre_x, centre_y = px.to(kind) + 0.5, py.to(kind) + 0.5
    channel = first_channel + tl.arange(0, CHANNELS)
    light = there.to(kind)
    sums = tl.zeros((CHANNELS, PIXELS), kind)
    deep, close = tl.zeros((PIXELS,), kind), tl.zeros((PIXELS,), kind)
    origin, middle = tl.zeros((PIXELS,), kind) - 1, tl.zeros((PIXELS,), kind)
    once, twice = tl.zeros((PIXELS,), kind), tl.zeros((PIXELS,), kind)
    passed = tl.full((PIXELS,), -1, tl.int32)
    k, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    while (k < end) & (tl.max(light, 0) >= stop):
        for _ in range(0, LOOK):
            n = tl.load(splats + k, mask=k < end, other=0).to(tl.int64)
            splat = packed + PACKED * n
            x, y = centre_x - tl.load(splat), centre_y - tl.load(splat + 1)
            bare, _, _, _, _, deeper, closer = meet(splat, x, y, near, low_pass, ORTHOGRAPHIC)
            alpha = tl.where(bare > most_alpha, most_alpha, bare)
            counts = (alpha >= least_alpha) & (light >= stop) & (k < end)
            if tl.max(counts.to(tl.int32), 0) > 0:
                weight = tl.where(counts, alpha * light, 0.0)
                left_over = light - weight
                feature = tl.load(features + n * channels + channel, mask=channel < channels, other=0)
                sums += weight[None, :] * feature[:, None]
                z, t = deeper * tl.load(splat + 8), closer * tl.load(splat + 9)
                deep += weight * z
                close += weight * t
                # The t that the pixel met first.
                origin = tl.where(weight > 0, tl.where(origin < 0, t, origin), origin)
                apart = t - origin
                once += weight * apart
                twice += weight * apart * apart
                passes = (light > 0.5) & (left_over <= 0.5)
                middle = tl.where(passes, z, middle)
                passed = tl.where(passes, n.to(tl.int32), passed)
                light = left_over
            k += 1
    pixel = py * width + px
    tl.store(through + pixel, light, mask=there)
    tl.store(depth + pixel, deep, mask=there)
    tl.store(nearness + pixel, close, mask=there)
    tl.store(median + pixel, middle, mask=there)
    spread = (1 - light) * twice - once * once
    tl.store(distortion + pixel, tl.where(spread > 0, spread, 0.0), mask=there)
    tl.store(which + pixel, passed, mask=there)
    place = image + pixel[None, :] * channels + channel[:, None]
    tl.store(place, sums, mask=there[None, :] & (channel < channels)[:, None])


def blend(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    features: Tensor,
    starts: Tensor,
    splats: Tensor,
    limits: Tensor,
    orthographic: bool,
    image: Tensor,
    *maps: Tensor,
) -> None:
    packed = pack(means2d, slopes, depths, opacities, limits)
    height, width, channels = image.shape
    summed = min(triton.next_power_of_2(max(channels, 1)), MOST_SUMMED)
    inputs = packed, features, starts, splats, limits, image, *maps, width, height, channels
    constants = {"ORTHOGRAPHIC": orthographic, "CHANNELS": summed, "LOOK": LOOK}
    constants |= {"num_warps": 4, "fused": False}
    for first in range(0, max(channels, 1), summed):  # once for no channels
        launch_grid(blend_surfels_kernel, grid_of(image), *inputs, first, **constants)


@triton.jit(do_not_specialize=["width", "height", "channels"])
def blend_surfels_backward_kernel(
    packed,
    slopes,
    features,
    starts,
    splats,
    slots,
    limits,
    image,
    through,
    depth,
    nearness,
    distortion,
    of_image,
    of_through,
    of_depth,
    of_nearness,
    of_median,
    of_distortion,
    out,
    width,
    height,
    channels,
    ORTHOGRAPHIC: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    CHANNELS: tl.constexpr,
    LOOK: tl.constexpr,
):
    """out (M, GRADIENTS + channels) comes in 0: rows of what nothing is seen of stay so."""
    kind = packed.dtype.element_ty
    least_alpha, most_alpha, stop = tl.load(limits), tl.load(limits + 1), tl.load(limits + 2)
    near, low_pass = tl.load(limits + 3), tl.load(limits + 4)
    py, px, there = pixels(width, height)
    centre_x, centre_y = px.to(kind) + 0.5, py.to(kind) + 0.5
    pixel = py * width + px
    light = there.to(kind)
    left = tl.load(through + pixel, mask=there, other=1)
    opacity = 1 - left
    over = tl.where(opacity > 0, opacity, 1.0)
    apart_all = tl.load(distortion + pixel, mask=there, other=0)
    wants_apart = tl.load(of_distortion + pixel, mask=there, other=0)
    close_all = tl.load(nearness + pixel, mask=there, other=0)
    wants_deep = tl.load(of_depth + pixel, mask=there, other=0)
    wants_close = tl.load(of_nearness + pixel, mask=there, other=0)
    wants_middle = tl.load(of_median + pixel, mask=there, other=0)
    mean = close_all / over
    stretch = wants_apart * opacity
    constant = tl.where(opacity > 0, wants_apart * apart_all / over, 0.0)
    behind = tl.load(of_through + pixel, mask=there, other=0) * left + wants_close * close_all
    behind += wants_deep * tl.load(depth + pixel, mask=there, other=0) + 2 * wants_apart * apart_all
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
            bare, met, u, v, share, deeper, closer = meet(splat, x, y, near, low_pass, ORTHOGRAPHIC)
            alpha = tl.where(bare > most_alpha, most_alpha, bare)
            counts = (alpha >= least_alpha) & (light >= stop) & (k < end)
            if tl.max(counts.to(tl.int32), 0) > 0:
                row = out + tl.load(slots + k) * (GRADIENTS + channels)
                weight = tl.where(counts, alpha * light, 0.0)
                left_over = light - weight
                z, t = deeper * tl.load(splat + 8), closer * tl.load(splat + 9)
                pull = stretch * (t - mean)
                shown = constant + pull * (t - mean) + wants_deep * z + wants_close * t
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
                of_power = tl.where(bare <= most_alpha, of_alpha * alpha, 0.0)
                of_power = tl.where(weight > 0, of_power, 0.0)
                passes = (light > 0.5) & (left_over <= 0.5)
                light = left_over
                of_z = weight * wants_deep + tl.where(passes, wants_middle, 0.0)
                of_t = weight * (wants_close + 2 * pull)
                of_log = of_z * z - of_t * t
                of_u, of_v = of_power * u * share, of_power * v * share
                of_w = (of_u * u + of_v * v) / SQUARE - of_log * deeper
                if ORTHOGRAPHIC:
                    of_w = of_log * closer
                of_w = tl.where(met, of_w, 0.0)
                of_u, of_v = -of_u / SCALE, -of_v / SCALE
                of_low = tl.where(met, 0.0, of_power)
                s = slopes + 6 * n
                a0, a1, b0, b1 = tl.load(s), tl.load(s + 1), tl.load(s + 2), tl.load(s + 3)
                c0, c1 = tl.load(s + 4), tl.load(s + 5)
                of_x = low_pass * of_low * x - (a0 * of_u + b0 * of_v + c0 * of_w)
                of_y = low_pass * of_low * y - (a1 * of_u + b1 * of_v + c1 * of_w)
                tl.store(row, tl.sum(of_x, 0))
                tl.store(row + 1, tl.sum(of_y, 0))
                tl.store(row + 2, tl.sum(of_u * x, 0))
                tl.store(row + 3, tl.sum(of_u * y, 0))
                tl.store(row + 4, tl.sum(of_v * x, 0))
                tl.store(row + 5, tl.sum(of_v * y, 0))
                tl.store(row + 6, tl.sum(of_w * x, 0))
                tl.store(row + 7, tl.sum(of_w * y, 0))
                tl.store(row + 8, tl.sum(of_log, 0) * tl.load(splat + 9))
                tl.store(row + 9, tl.sum(of_power, 0) / tl.load(splat + 10))
                if ABSOLUTE:
                    tl.store(row + 10, tl.sum(tl.abs(of_x), 0))
                    tl.store(row + 11, tl.sum(tl.abs(of_y), 0))
            k += 1


def blend_backward(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    features: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    images: list[Tensor],
    limits: Tensor,
    orthographic: bool,
    wants_absolute: bool,
    of_slots: Tensor,
    out: Tensor,
) -> None:
    """images: the op's first output, transmittance, depth, nearness and distortion, then the gradients in the
    six."""
    packed = pack(means2d, slopes, depths, opacities, limits)
    height, width, channels = images[0].shape
    of_slots.zero_()
    inputs = packed, slopes, features, starts, splats, slots, limits, *images, of_slots
    read = min(triton.next_power_of_2(max(channels, 1)), MOST_READ)
    constants = {"ORTHOGRAPHIC": orthographic, "ABSOLUTE": wants_absolute, "CHANNELS": read}
    constants |= {"LOOK": LOOK, "num_warps": 1, "fused": False}
    launch_grid(
        blend_surfels_backward_kernel, grid_of(images[0]), *inputs, width, height, channels, **constants
    )
    launch(sum_kernel, out.numel(), BLOCK, of_slots, offsets, out, out.shape[1])
