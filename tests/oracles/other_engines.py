"""The convolutions of other sparse engines by their documented tap order: loops over voxels and taps.

A tap is (offset, matrix (Cin, Cout)): out[o] = sum over taps of x[stride * o + offset] @ matrix, over the
taps whose voxel is there. What differs between the engines is only which matrix of the stored weight belongs
to which offset.
"""

import itertools

import torch
from torch import Tensor

Offset = tuple[int, ...]
Taps = list[tuple[Offset, Tensor]]


def spconv1_taps(weight: Tensor, padding: Offset) -> Taps:
    """weight (*K, Cin, Cout); tap t lies at t - padding."""
    ranges = [range(k) for k in weight.shape[:-2]]
    return [(_minus(t, padding), weight[t]) for t in itertools.product(*ranges)]


def spconv2_taps(weight: Tensor, padding: Offset) -> Taps:
    """weight (Cout, *K, Cin); tap t lies at t - padding."""
    ranges = [range(k) for k in weight.shape[1:-1]]
    return [(_minus(t, padding), weight[(slice(None), *t)].T) for t in itertools.product(*ranges)]


def minkowski_taps(kernel: Tensor, size: Offset) -> Taps:
    """kernel (V, Cin, Cout). Row v counts along the first axis, then the second, then the third; odd axes are
    centred, even ones begin at 0."""
    taps = []
    for v in range(len(kernel)):
        rest, offset = v, []
        for k in size:
            index = rest % k
            offset.append(index if k % 2 == 0 else index - k // 2)
            rest //= k
        taps.append((tuple(offset), kernel[v]))
    return taps


def torchsparse_taps(kernel: Tensor, size: Offset) -> Taps:
    """kernel (V, Cin, Cout). An axis of k taps has the offsets -((k - 1) // 2) and up; the first axis runs
    fastest where V is odd, the last one where V is even."""
    ranges = [range(-((k - 1) // 2), k - (k - 1) // 2) for k in size]
    if len(kernel) % 2:
        offsets = [tuple(reversed(o)) for o in itertools.product(*reversed(ranges))]
    else:
        offsets = list(itertools.product(*ranges))
    return [(offset, kernel[v]) for v, offset in enumerate(offsets)]


def convolve(
    features: Tensor, coordinates: Tensor, taps: Taps, out_coordinates: Tensor, stride: int = 1
) -> Tensor:
    """Coordinates are (N, 1 + D) with the batch first."""
    row_of = {tuple(c): n for n, c in enumerate(coordinates.tolist())}
    out = features.new_zeros(len(out_coordinates), taps[0][1].shape[1])
    for o, (batch, *place) in enumerate(out_coordinates.tolist()):
        for offset, matrix in taps:
            row = row_of.get((batch, *(stride * p + d for p, d in zip(place, offset, strict=True))))
            if row is not None:
                out[o] += features[row] @ matrix
    return out


def halved(coordinates: Tensor) -> Tensor:
    """Sites of a convolution with kernel 2 and stride 2: floor(x / 2), sorted, each once."""
    coarse = coordinates.clone()
    coarse[:, 1:] = torch.div(coarse[:, 1:], 2, rounding_mode="floor")
    return coarse.unique(dim=0)


def _minus(a: Offset, b: Offset) -> Offset:
    return tuple(i - j for i, j in zip(a, b, strict=True))
