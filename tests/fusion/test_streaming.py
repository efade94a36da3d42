"""Blocks that wait in a folder are as if they had never left."""

import numpy as np
import pytest
import torch

from sparse3d.fusion.volume import TSDFVolume
from tests.fusion.exact import INTRINSICS, SIZE, around, ball_in_room

VOXEL = 0.04
BUDGET = 400


def _fuse(**options):
    volume = TSDFVolume(VOXEL, **options)
    for pose in [*around(6), *around(2, distance=1.0)]:
        depth, color = ball_in_room(pose)
        volume.integrate(depth, INTRINSICS, pose, color)
    return volume


def test_the_mesh_is_the_same_bit_for_bit_and_memory_is_bounded(tmp_path):
    whole, streamed = _fuse(), _fuse(max_blocks=BUDGET, folder=tmp_path / "blocks")
    assert streamed.blocks.count <= BUDGET < whole.blocks.count
    assert len(streamed.blocks.values) <= max(BUDGET, 1024)
    want, got = whole.mesh(), streamed.mesh()
    for name in ("vertices", "faces", "colors"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    np.testing.assert_array_equal(streamed.changed_mesh().vertices, want.vertices)
    assert streamed.blocks.count <= BUDGET
    assert sum(path.stat().st_size for path in (tmp_path / "blocks").iterdir()) > 0
    streamed.close()
    assert not list((tmp_path / "blocks").iterdir())


def test_what_a_camera_sees_is_the_same(tmp_path):
    whole, streamed = _fuse(), _fuse(max_blocks=BUDGET, folder=tmp_path / "blocks")
    seen = [volume.ray_cast(INTRINSICS, around(6)[3], SIZE, far=1.4) for volume in (whole, streamed)]
    np.testing.assert_array_equal(seen[0].depth, seen[1].depth)
    np.testing.assert_array_equal(seen[0].color, seen[1].color)
    assert np.isfinite(seen[0].depth).any()


def test_the_least_recently_touched_blocks_go(tmp_path):
    volume = TSDFVolume(VOXEL, colors=False, max_blocks=BUDGET, folder=tmp_path)
    poses = around(6)
    for pose in poses:
        volume.integrate(ball_in_room(pose)[0], INTRINSICS, pose)
    before = volume.blocks.keys.tolist()
    volume.integrate(ball_in_room(poses[-1])[0], INTRINSICS, poses[-1])
    # What the last frame needs was all there, so nothing moved.
    assert volume.blocks.keys.tolist() == before and volume.blocks.waiting > 0


def test_a_frame_that_needs_more_than_the_budget_is_refused(tmp_path):
    volume = TSDFVolume(VOXEL, max_blocks=16, folder=tmp_path)
    with pytest.raises(ValueError, match="max_blocks is 16"):
        volume.integrate(ball_in_room(around(1)[0])[0], INTRINSICS, around(1)[0])


def test_folders_that_hold_something_and_budgets_below_a_cell_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="not empty"):
        TSDFVolume(VOXEL, max_blocks=100, folder=tmp_path)
    with pytest.raises(ValueError, match="at least 8"):
        TSDFVolume(VOXEL, max_blocks=2, folder=tmp_path / "blocks")


def test_files_that_were_removed_or_cut_short_are_told(tmp_path):
    from sparse3d.errors import DataError

    volume = _fuse(max_blocks=BUDGET, folder=tmp_path / "blocks")
    key = next(iter(volume.blocks._records))
    (path,) = (tmp_path / "blocks").iterdir()
    path.write_bytes(b"")
    with pytest.raises(DataError, match="cut short"):
        volume.blocks._bring_back(torch.tensor([key]))
    path.unlink()
    with pytest.raises(DataError, match="was removed"):
        volume.mesh()
