"""Voxels come back from files as they were, and files that are not theirs are told apart."""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy

from sparse3d.errors import DataError
from sparse3d.io.array_files import write_arrays
from sparse3d.mesh.dual_grid import mesh_to_dual_grid
from sparse3d.mesh.signed_band import band_from_mesh
from sparse3d.recipes.voxel_files import read_voxels, write_voxels
from tests.mesh.shapes import icosphere

SHADED = icosphere(rounds=2).with_colors(np.arange(162 * 3).reshape(162, 3).astype(np.uint8))


@pytest.mark.parametrize("mesh", [SHADED, icosphere(rounds=2)], ids=["colours", "plain"])
@pytest.mark.parametrize("make", [band_from_mesh, mesh_to_dual_grid])
def test_there_and_back_to_the_last_bit(make, mesh, tmp_path):
    voxels = make(mesh, 0.1 / 3)
    write_voxels(tmp_path / "a.safetensors", voxels)
    back = read_voxels(tmp_path / "a.safetensors")
    assert type(back) is type(voxels)
    for field in dataclasses.fields(voxels):
        one, other = getattr(voxels, field.name), getattr(back, field.name)
        if one is None:
            assert other is None
        else:
            np.testing.assert_array_equal(one, other)
            assert np.asarray(one).dtype == np.asarray(other).dtype


def test_what_is_no_file_of_voxels_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    band = band_from_mesh(icosphere(rounds=1), 0.2)
    with pytest.raises(DataError, match="no safetensors"):
        read_voxels(path)
    write_voxels(path, band)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:4], b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="no safetensors"):
            read_voxels(path)
    path.write_bytes(safetensors.numpy.save({"points": band.points}))
    with pytest.raises(DataError, match="expected one of sparse3d"):
        read_voxels(path)
    numbers = {"voxel_size": [0.2], "origin": [0.0, 0.0, 0.0]}
    write_arrays(path, "teapot", {}, numbers)
    with pytest.raises(DataError, match="'teapot', expected one of"):
        read_voxels(path)
    write_arrays(path, "signed band", {"points": band.points}, numbers)
    with pytest.raises(DataError, match="has colors, distances, points; here are points"):
        read_voxels(path)
    arrays = {"points": band.points, "distances": band.distances[1:]}
    write_arrays(path, "signed band", arrays, numbers)
    with pytest.raises(DataError, match="is no signed band: distances are"):
        read_voxels(path)
    arrays["distances"] = band.distances
    write_arrays(path, "signed band", arrays, {"voxel_size": [0.2]})
    with pytest.raises(DataError, match="origin is None, expected 3"):
        read_voxels(path)
    write_arrays(path, "signed band", arrays, {**numbers, "voxel_size": [-1.0]})
    with pytest.raises(DataError, match="voxel_size is -1"):
        read_voxels(path)
