"""How other sparse engines lay out a convolution's weight, and the way to ours.

Ours is (Kx, Ky, Kz, Cin, Cout), tap (i, j, k) at voxel stride * out - padding + dilation * (i, j, k); two
axes less one for 2-D layers. K stands for the kernel's axes, V for their product; none of these has groups.

    spconv 1.x                 weight (*K, Cin, Cout)
    spconv 2.2 and newer       weight (Cout, *K, Cin)
    MinkowskiEngine 0.5        kernel (V, Cin, Cout), the first axis runs fastest; (Cin, Cout) for one tap of
                               stride 1; bias (1, Cout)
    torchsparse 1.x, 2.x       kernel (V, Cin, Cout), the first axis runs fastest where V is odd, the last
                               where V is even; (Cin, Cout) for one tap of stride 1

A transposed or inverse convolution of any of them is its forward twin's map read backwards, as here: the same
taps in the same order. Facts from the engines' sources (spconv `pytorch/conv.py`, MinkowskiEngine
`src/kernel_region.hpp`, torchsparse `nn/utils/kernel.py`), which the tests' oracles write down again.
"""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

Engine = Literal["spconv1", "spconv2", "minkowski", "torchsparse"]

LARGEST_KERNEL = 15  # a longer axis is taken for channels


def to_ours(weight: Tensor, engine: Engine, size: Sequence[int]) -> Tensor:
    """A weight of `engine` with a kernel of `size` as (*size, Cin, Cout), its axes in the order they had."""
    if engine == "spconv1":
        return weight
    if engine == "spconv2":
        return weight.movedim(0, -1)
    cin, cout = weight.shape[-2:]
    if first_axis_fastest(engine, size):
        axes = range(len(size))
        return weight.reshape(*reversed(size), cin, cout).permute(*reversed(axes), len(size), len(size) + 1)
    return weight.reshape(*size, cin, cout)


def first_axis_fastest(engine: Engine, size: Sequence[int]) -> bool:
    """Whether neighbouring rows of a flat kernel are neighbours along the first axis."""
    return engine == "minkowski" or math.prod(size) % 2 == 1


def reverse_axes(weight: Tensor) -> Tensor:
    """(Kz, Ky, Kx, Cin, Cout) to (Kx, Ky, Kz, Cin, Cout), for data with columns (z, y, x)."""
    dims = weight.dim() - 2
    return weight.permute(*reversed(range(dims)), dims, dims + 1)


def kernel_axes(shape: Sequence[int], engine: Engine | Literal["dense"]) -> tuple[int, ...]:
    """Which sizes of a weight are its kernel when it is one of `engine` (spconv) or of torch's nn.Conv."""
    if engine == "dense":
        return tuple(shape[2:])
    return tuple(shape[:-2] if engine == "spconv1" else shape[1:-1])


def channels(shape: Sequence[int], engine: Engine) -> tuple[int, int]:
    """(Cin, Cout) of a weight of `engine`."""
    return (shape[-1], shape[0]) if engine == "spconv2" else (shape[-2], shape[-1])


def looks_like_kernel(axes: Sequence[int]) -> bool:
    """Whether sizes can be those of a kernel: short, and equal where they are not 1 (3x3x3, 1x1x3, 2x2x2)."""
    return max(axes) <= LARGEST_KERNEL and len({k for k in axes if k != 1}) <= 1


def cube_of(taps: int, dims: int) -> tuple[int, ...] | None:
    """The kernel with equal axes that has so many taps, None where there is none."""
    side = round(taps ** (1 / dims))
    return (side,) * dims if side**dims == taps else None
