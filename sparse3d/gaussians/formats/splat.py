"""The .splat of antimatter15's viewer: 32 bytes a Gaussian and nothing else.

float32 x y z; float32 standard deviations along x, y and z (not their logarithms); uint8 red, green, blue,
opacity; uint8 quaternion w x y z as 128 q + 128. No harmonics beyond the first, no header.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.frames import WORLD
from sparse3d.gaussians.formats.opening import check_count, take, write_all
from sparse3d.gaussians.formats.quantizing import colors_of, logits, opacity_bytes, sh0_of, to_bytes
from sparse3d.gaussians.formats.source import Splats
from sparse3d.gaussians.repair import normalized
from sparse3d.io.files import atomic_path
from sparse3d.io.reading import opened

_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quat", "u1", 4)])


def open_splat(path: str | Path) -> Splats:
    """The Gaussians of a file. Raises DataError for one that is no whole number of them."""
    with opened(path) as (_, size):
        if size % _ROW.itemsize:
            raise DataError(
                path, f"{size} bytes are no multiple of 32, the size of a Gaussian: cut off, or no .splat"
            )
    total = size // _ROW.itemsize
    check_count(path, total)

    def blocks(rows: int) -> Iterator[GaussianCloud]:
        with opened(path) as (file, _):
            for begin in range(0, total, rows):
                yield _decoded(take(file, path, _ROW, min(rows, total - begin)))

    return Splats(total, 0, False, WORLD, blocks)


def write_splat(path: str | Path, splats: Splats) -> None:
    """Write block by block, atomically, in the order that they come."""
    with atomic_path(path) as temporary, open(temporary, "wb", buffering=0) as file:
        for block in splats.blocks():
            rows = np.empty(len(block), _ROW)
            rows["mean"] = block.means.numpy()
            rows["scale"] = block.scales.exp().numpy()
            rows["color"][:, :3] = to_bytes(255 * colors_of(block.sh0))
            rows["color"][:, 3] = opacity_bytes(block.opacities)
            rows["quat"] = to_bytes(128 * normalized(block.quats)[0].numpy() + 128)
            write_all(file, rows)


def _decoded(rows: np.ndarray) -> GaussianCloud:
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.log(rows["scale"])
    quats = (rows["quat"].astype(np.float32) - 128) / 128
    count = len(rows)
    return GaussianCloud(
        means=torch.from_numpy(rows["mean"].astype(np.float32)),
        scales=torch.from_numpy(scales.astype(np.float32)),
        quats=normalized(torch.from_numpy(quats))[0],
        opacities=torch.from_numpy(logits(rows["color"][:, 3] / 255)),
        sh0=torch.from_numpy(sh0_of(rows["color"][:, :3] / 255)),
        shN=torch.zeros(count, 0, 3),
    )
