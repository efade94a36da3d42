"""Dual grids from and to files (.safetensors, .npz): to the last bit, and checked."""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.array_files import read_arrays, write_arrays
from sparse3d.mesh.dual_grid import DualGrid
from sparse3d_ops.hashing import COORDINATE_LIMIT

_WORDS = {"sparse3d": "1", "kind": "dual grid"}
_NAMES = ("voxels", "vertices", "crossed", "voxel_size", "origin")


def write_dual_grid(path: str | Path, grid: DualGrid) -> None:
    """Write atomically. ValueError for another ending."""
    arrays = {name: np.asarray(getattr(grid, name)) for name in _NAMES}
    if grid.colors is not None:
        arrays["colors"] = grid.colors
    write_arrays(path, arrays, _WORDS)


def read_dual_grid(path: str | Path) -> DualGrid:
    """DataError for a file that is damaged, holds something else, or whose arrays do not fit together."""
    arrays, words = read_arrays(path)
    if words != _WORDS or not set(_NAMES) <= arrays.keys() <= {*_NAMES, "colors"}:
        held = ", ".join(sorted(arrays)) or "no arrays"
        raise DataError(path, f"holds {words} with {held}; expected {_WORDS} with {', '.join(_NAMES)}")
    try:
        size = float(arrays.pop("voxel_size"))
        grid = DualGrid(voxel_size=size, **arrays)
    except (TypeError, ValueError) as error:
        raise DataError(path, f"is no dual grid: {error}") from error
    cells = grid.voxels
    if len(cells) and (np.abs(cells.astype(np.int64)).max() >= COORDINATE_LIMIT or cells[:, 0].any()):
        raise DataError(path, f"voxels beyond {COORDINATE_LIMIT}, or of another batch than 0")
    if len(np.unique(cells, axis=0)) != len(cells):
        raise DataError(path, "a voxel stands there twice")
    return grid
