"""What this machine offers, and whether the kernels compute the right thing on it: `sparse3d doctor`."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

# Optional packages: what they are for, and how they come.
EXTRAS = {"tensorboard": "training curves: pip install 'sparse3d[tensorboard]'"}


def examine() -> bool:
    """Print the report; True when every kernel test passed."""
    for name, value in facts():
        print(f"{name:<18} {value}")
    good = True
    for name, test in SELF_TESTS.items():
        try:
            error = test()
            passed, note = error <= 1e-4, f"largest error {error:.1e}"
        except Exception as fault:  # a report says what fails, it does not fail itself
            passed, note = False, f"{type(fault).__name__}: {' '.join(str(fault).split())}"
        print(f"{name:<18} {'ok' if passed else 'FAIL'} ({note})")
        good = good and passed
    print(
        "all kernels agree with their references" if good else "FAIL: please report this with the lines above"
    )
    return good


def facts() -> list[tuple[str, str]]:
    """Names and values of what a report of a fault should say."""
    from numba import get_num_threads

    found = [
        ("sparse3d", _version("sparse3d")),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("system", platform.platform()),
        *((name, _version(name)) for name in ("torch", "numba", "numpy", "safetensors", "triton")),
        ("cpu", f"{os.cpu_count()} cores, {_cpu_features()}"),
        ("threads", f"torch {torch.get_num_threads()}, numba {get_num_threads()}"),
        ("cuda", _cuda()),
        *((name, _extra(name, hint)) for name, hint in EXTRAS.items()),
        ("free disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB here ({Path.cwd()})"),
        ("data sets", os.environ.get("SPARSE3D_DATASETS") or "$SPARSE3D_DATASETS is not set"),
    ]
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _extra(package: str, hint: str) -> str:
    version = _version(package)
    return f"not installed ({hint})" if version == "not installed" else version


def _cpu_features() -> str:
    import llvmlite.binding as llvm

    known = ("sse4.2", "avx2", "fma", "avx512f", "neon", "sve")
    features = llvm.get_host_cpu_features()
    return (
        f"{llvm.get_host_cpu_name()} ({', '.join(f for f in known if features.get(f)) or 'no vector units'})"
    )


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "none (the CPU kernels are used)" + (
            "" if torch.version.cuda else "; this torch is built without"
        )
    device = torch.cuda.get_device_properties(0)
    count = torch.cuda.device_count()
    return f"{count} x {device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


# ---- kernels against a few lines of torch; each returns the largest error ---------------------------------


def _segment_sum() -> float:
    from sparse3d_ops.segment import segment_sum

    values, segment = _random(50, 3), torch.arange(50) * 7 % 11
    want = torch.zeros(11, 3).index_add_(0, segment, values)
    return _error(segment_sum(values, segment, 11), want)


def _voxelize() -> float:
    from sparse3d_ops.voxelize import voxelize

    points = _random(200, 4) * 5
    coordinates, point_voxel, counts = voxelize(
        points, torch.zeros(200, dtype=torch.int64), [1.0] * 3, [-4.0] * 3 + [4.0] * 3
    )
    inside = ((points[:, :3] >= -4) & (points[:, :3] < 4)).all(1)
    want = torch.cat([torch.zeros(200, 1), (points[:, :3] + 4).floor()], 1)[inside]
    return _error(coordinates[point_voxel[inside]].float(), want) + float(counts.sum() != inside.sum())


def _submanifold() -> float:
    import sparse3d.nn as snn
    from sparse3d.tensor import SparseTensor

    layer = snn.SubMConv3d(3, 4, 3)
    grid = _random(1, 3, 5, 6, 7) * (_random(1, 1, 5, 6, 7) > 0.5)
    sites = (grid.abs().sum(1) > 0).nonzero()
    features = grid.permute(0, 2, 3, 4, 1)[tuple(sites.t())]
    x = SparseTensor(features, sites.int(), shape=(5, 6, 7))
    # (Kx, Ky, Kz, Cin, Cout) -> torch's (Cout, Cin, Kx, Ky, Kz)
    dense = torch.nn.functional.conv3d(grid, layer.weight.permute(4, 3, 0, 1, 2), layer.bias, padding=1)
    return _error(layer(x).features, dense.permute(0, 2, 3, 4, 1)[tuple(sites.t())])


def _box_overlap() -> float:
    from sparse3d_ops.boxes import box_iou_bev

    # A 2 x 2 square and the same one turned by 45 degrees share a regular octagon of area 8 (sqrt 2 - 1).
    square = torch.tensor([[0.0, 0, 0, 2, 2, 1, 0]])
    turned = torch.tensor([[0.0, 0, 0, 2, 2, 1, torch.pi / 4]])
    octagon = 8 * (2**0.5 - 1)
    return _error(box_iou_bev(square, turned), torch.tensor([[octagon / (8 - octagon)]]))


SELF_TESTS: dict[str, Callable[[], float]] = {
    "segment sum": _segment_sum,
    "voxelize": _voxelize,
    "submanifold conv": _submanifold,
    "rotated box IoU": _box_overlap,
}


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _error(got: Tensor, want: Tensor) -> float:
    return float((got.detach() - want.detach()).abs().max())
