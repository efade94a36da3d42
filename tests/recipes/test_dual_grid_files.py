"""Dual grids come back from files as they were, and files that are none are told apart."""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy

from sparse3d.errors import DataError
from sparse3d.io.array_files import read_arrays, write_arrays
from sparse3d.mesh.dual_grid import mesh_to_dual_grid
from sparse3d.recipes.dual_grid_files import read_dual_grid, write_dual_grid
from tests.mesh.shapes import icosphere

PLAIN = icosphere(rounds=2)
SHADED = PLAIN.with_colors(np.arange(162 * 3).reshape(162, 3).astype(np.uint8))


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
@pytest.mark.parametrize("mesh", [SHADED, PLAIN], ids=["colours", "plain"])
def test_there_and_back_to_the_last_bit(mesh, ending, tmp_path):
    grid = mesh_to_dual_grid(mesh, 0.1 / 3)
    write_dual_grid(tmp_path / f"a{ending}", grid)
    back = read_dual_grid(tmp_path / f"a{ending}")
    for field in dataclasses.fields(grid):
        one, other = getattr(grid, field.name), getattr(back, field.name)
        if one is None:
            assert other is None
        else:
            np.testing.assert_array_equal(one, other)
            assert np.asarray(one).dtype == np.asarray(other).dtype


def test_what_is_no_dual_grid_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    write_dual_grid(path, mesh_to_dual_grid(PLAIN, 0.1))
    whole = path.read_bytes()
    arrays, words = read_arrays(path)
    for damaged in (whole[: len(whole) // 2], b"", whole[:4], b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            read_dual_grid(path)
    path.write_bytes(safetensors.numpy.save(arrays))
    with pytest.raises(DataError, match="holds {} with crossed"):
        read_dual_grid(path)
    bad = {
        "expected": {name: array for name, array in arrays.items() if name != "crossed"},
        "crossed are": arrays | {"crossed": arrays["crossed"][1:]},
        "voxel_size is -1": arrays | {"voxel_size": np.array(-1.0)},
        "no dual grid": arrays | {"voxel_size": np.zeros(2)},
        "origin is": arrays | {"origin": np.full(3, np.nan)},
        "stands there twice": arrays | {"voxels": np.zeros_like(arrays["voxels"])},
        "beyond 131072": arrays | {"voxels": arrays["voxels"] + np.int32(1 << 20)},
    }
    for message, damaged in bad.items():
        write_arrays(path, damaged, words)
        with pytest.raises(DataError, match=message):
            read_dual_grid(path)
