"""Voxels that stand for surfaces, from and to files (.safetensors): signed bands and dual grids."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.array_files import read_arrays, write_arrays
from sparse3d.mesh.dual_grid import DualGrid
from sparse3d.mesh.signed_band import SignedBand

Voxels = SignedBand | DualGrid
_KINDS: dict[str, type[SignedBand] | type[DualGrid]] = {"signed band": SignedBand, "dual grid": DualGrid}
_NUMBERS = {"voxel_size": 1, "origin": 3}


def write_voxels(path: str | Path, voxels: Voxels) -> None:
    """Write atomically; nothing is rounded."""
    kind = next(name for name, made in _KINDS.items() if isinstance(voxels, made))
    named = {field.name: getattr(voxels, field.name) for field in fields(voxels)}
    numbers = {name: np.atleast_1d(named.pop(name)).tolist() for name in _NUMBERS}
    write_arrays(path, kind, {name: array for name, array in named.items() if array is not None}, numbers)


def read_voxels(path: str | Path) -> Voxels:
    """DataError for a file that is damaged, holds something else, or whose arrays do not fit together."""
    kind, arrays, numbers = read_arrays(path)
    if kind not in _KINDS:
        raise DataError(path, f"holds a {kind!r}, expected one of: {', '.join(_KINDS)}")
    made: Callable[..., Voxels] = _KINDS[kind]
    known = {field.name for field in fields(_KINDS[kind])} - _NUMBERS.keys()
    if not known - {"colors"} <= arrays.keys() <= known:
        raise DataError(
            path, f"a {kind} has {', '.join(sorted(known))}; here are {', '.join(sorted(arrays))}"
        )
    for name, count in _NUMBERS.items():
        if len(numbers.get(name, [])) != count:
            raise DataError(path, f"{name} is {numbers.get(name)}, expected {count} numbers")
    try:
        return made(voxel_size=numbers["voxel_size"][0], origin=np.array(numbers["origin"]), **arrays)
    except ValueError as error:
        raise DataError(path, f"is no {kind}: {error}") from error
