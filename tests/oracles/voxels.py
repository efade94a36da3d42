"""Keys, voxel sets and kernel maps by the definition: dictionaries and loops."""

import itertools

import torch
from torch import Tensor


def key(coordinate: tuple[int, ...]) -> int:
    """The bits of the key, written out with Python's integers."""
    b, x, y, z = coordinate
    unsigned = (1 << 63) | (b << 54) | ((x + 131072) << 36) | ((y + 131072) << 18) | (z + 131072)
    return unsigned - (1 << 64)


def pack(coordinates: Tensor) -> Tensor:
    return torch.tensor([key(tuple(c)) for c in coordinates.tolist()], dtype=torch.int64)


def unpack(keys: Tensor) -> Tensor:
    rows = []
    for k in keys.tolist():
        u = k + (1 << 64)
        fields = [(u >> shift) % (1 << 18) - 131072 for shift in (36, 18, 0)]
        rows.append([(u >> 54) % 512, *fields])
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)


def unique(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    values = sorted(set(keys.tolist()))
    inverse = [values.index(k) for k in keys.tolist()]
    counts = [keys.tolist().count(k) for k in values]
    return tuple(torch.tensor(x, dtype=torch.int64) for x in (values, inverse, counts))


def taps(kernel_size):
    return list(itertools.product(*(range(k) for k in kernel_size)))


def neighbor_table(inputs, outputs, kernel_size, stride, padding, dilation) -> tuple[Tensor, Tensor]:
    """table and reverse of in = stride * out - padding + dilation * tap, over lists of (b, x, y, z)."""
    row_of = {tuple(c): n for n, c in enumerate(inputs)}
    volume = len(taps(kernel_size))
    table = torch.full((len(outputs), volume), -1, dtype=torch.int32)
    reverse = torch.full((len(inputs), volume), -1, dtype=torch.int32)
    for o, (b, *site) in enumerate(outputs):
        for v, tap in enumerate(taps(kernel_size)):
            there = tuple(
                s * c - p + d * t for c, s, p, d, t in zip(site, stride, padding, dilation, tap, strict=True)
            )
            row = row_of.get((b, *there), -1)
            table[o, v] = row
            if row >= 0:
                reverse[row, v] = o
    return table, reverse


def submanifold_map(coordinates, kernel_size, dilation):
    sites = [tuple(c) for c in coordinates.tolist()]
    padding = [d * (k // 2) if k % 2 else 0 for k, d in zip(kernel_size, dilation, strict=True)]
    return neighbor_table(sites, sites, kernel_size, (1, 1, 1), padding, dilation)


def kernel_map(in_coordinates, out_coordinates, kernel_size, stride, padding, dilation):
    return neighbor_table(
        in_coordinates.tolist(), out_coordinates.tolist(), kernel_size, stride, padding, dilation
    )


def _kept(sites, shape) -> Tensor:
    inside = [s for s in sites if not shape or all(0 <= c < n for c, n in zip(s[1:], shape, strict=True))]
    return torch.tensor(sorted(inside), dtype=torch.int32).reshape(-1, 4)


def strided_sites(coordinates, kernel_size, stride, padding, dilation, shape):
    sites = set()
    for b, *site in coordinates.tolist():
        for tap in taps(kernel_size):
            above = [c + p - d * t for c, p, d, t in zip(site, padding, dilation, tap, strict=True)]
            if all(a % s == 0 for a, s in zip(above, stride, strict=True)):
                sites.add((b, *(a // s for a, s in zip(above, stride, strict=True))))
    return _kept(sites, shape)


def transposed_sites(coordinates, kernel_size, stride, padding, dilation, shape):
    sites = set()
    for b, *site in coordinates.tolist():
        for tap in taps(kernel_size):
            there = (
                s * c - p + d * t for c, s, p, d, t in zip(site, stride, padding, dilation, tap, strict=True)
            )
            sites.add((b, *there))
    return _kept(sites, shape)
