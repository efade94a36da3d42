"""Shows that spconv's CPU convolution is wrong with more than one thread, and sparse3d's is not.

    make .venv-peers/.installed && .venv-peers/bin/python tools/spconv_threads.py

A submanifold convolution of 4000 voxels is compared with torch's convolution of the dense volume, at one
thread and at two, five times each, as the error depends on how the threads race. $OMP_NUM_THREADS must be 2
or more, or not be set.
"""

import torch

import sparse3d.compat.spconv.pytorch as stand_in


def largest_error(lib, threads: int) -> tuple[float, float]:
    """Largest difference from dense torch over five runs, and the largest value."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dense = (torch.rand(1, 24, 24, 24, 1) < 0.3) * torch.randn(1, 24, 24, 24, 16)
    x = lib.SparseConvTensor.from_dense(dense)
    layer = lib.SubMConv3d(16, 16, 3, bias=False)
    with torch.no_grad():
        volume = torch.nn.functional.conv3d(x.dense(), layer.weight.permute(0, 4, 1, 2, 3), padding=1)
        b, i, j, k = x.indices.long().unbind(1)
        want = volume[b, :, i, j, k]
        errors = [float((layer(x).features - want).abs().max()) for _ in range(5)]
    return max(errors), float(want.abs().max())


def main() -> None:
    libraries = {"sparse3d": stand_in}
    try:
        import spconv.pytorch

        libraries["spconv"] = spconv.pytorch
    except ImportError:
        print("spconv is not installed here; get it with: pip install spconv")
    for name, lib in libraries.items():
        for threads in (1, 2):
            error, scale = largest_error(lib, threads)
            print(f"{name:10s} {threads} threads: largest error {error:.1e} of values up to {scale:.2f}")


if __name__ == "__main__":
    main()
