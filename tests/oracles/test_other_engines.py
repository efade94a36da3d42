"""The oracles of other engines against torch's convolution and against tap orders written out by hand."""

import pytest
import torch

from tests.oracles.other_engines import (
    convolve,
    halved,
    minkowski_taps,
    spconv1_taps,
    spconv2_taps,
    torchsparse_taps,
)


def offsets(taps):
    return [offset for offset, _ in taps]


def test_minkowski_counts_along_the_first_axis_and_does_not_centre_even_ones():
    rows = torch.zeros(6, 1, 1)
    assert offsets(minkowski_taps(rows, (3, 2))) == [(-1, 0), (0, 0), (1, 0), (-1, 1), (0, 1), (1, 1)]


def test_torchsparse_counts_along_the_first_axis_for_odd_and_the_last_for_even_volumes():
    assert offsets(torchsparse_taps(torch.zeros(3, 1, 1), (3, 1))) == [(-1, 0), (0, 0), (1, 0)]
    assert offsets(torchsparse_taps(torch.zeros(9, 1, 1), (3, 3)))[:4] == [
        (-1, -1),
        (0, -1),
        (1, -1),
        (-1, 0),
    ]
    assert offsets(torchsparse_taps(torch.zeros(4, 1, 1), (2, 2))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert offsets(torchsparse_taps(torch.zeros(4, 1, 1), (4, 1))) == [(-1, 0), (0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize("size", [(3, 3, 3), (1, 3, 5)])
def test_each_is_torch_conv3d_on_a_full_grid(size):
    generator = torch.Generator().manual_seed(0)
    shape, cin, cout = (4, 5, 6), 2, 3
    volume = torch.randn(1, cin, *shape, generator=generator, dtype=torch.float64)
    sites = torch.cartesian_prod(torch.arange(1), *(torch.arange(n) for n in shape))
    features = volume[0].permute(1, 2, 3, 0).reshape(-1, cin)
    half = tuple(k // 2 for k in size)
    taps = size[0] * size[1] * size[2]
    makers = {
        "spconv1": lambda: spconv1_taps(torch.randn(*size, cin, cout, generator=generator).double(), half),
        "spconv2": lambda: spconv2_taps(torch.randn(cout, *size, cin, generator=generator).double(), half),
        "minkowski": lambda: minkowski_taps(torch.randn(taps, cin, cout, generator=generator).double(), size),
        "torchsparse": lambda: torchsparse_taps(
            torch.randn(taps, cin, cout, generator=generator).double(), size
        ),
    }
    for make in makers.values():
        found = make()
        weight = torch.zeros(cout, cin, *size, dtype=torch.float64)
        for offset, matrix in found:
            i, j, k = (o + h for o, h in zip(offset, half, strict=True))
            weight[:, :, i, j, k] = matrix.T
        want = torch.nn.functional.conv3d(volume, weight, padding=half)[0].permute(1, 2, 3, 0)
        got = convolve(features, sites, found, sites)
        torch.testing.assert_close(got, want.reshape(-1, cout))


def test_stride_two_reads_the_two_voxels_below_a_coarse_one():
    sites = torch.tensor([[0, -1, 0, 0], [0, 2, 0, 0], [0, 3, 1, 0]])
    assert halved(sites).tolist() == [[0, -1, 0, 0], [0, 1, 0, 0]]
    ones = torch.ones(8, 1, 1)
    out = convolve(
        torch.tensor([[1.0], [2.0], [4.0]]), sites, minkowski_taps(ones, (2, 2, 2)), halved(sites), 2
    )
    assert out.tolist() == [[1.0], [6.0]]
