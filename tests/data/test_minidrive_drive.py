"""Drives of minidrive: a scene that moves; the laws of motion, and its files."""

import math

import numpy as np
import pytest

from sparse3d.data.minidrive import (
    DriveConfig,
    LidarConfig,
    MinidriveConfig,
    simulate,
    simulate_drive,
    write_drives,
)
from sparse3d.data.minidrive.world import overlaps
from sparse3d.errors import ConfigError
from sparse3d.geometry.rigid import inverse, transform_boxes, transform_points
from sparse3d.io.points import read_points
from sparse3d.io.scan_folder import find_scans, read_sequence_calibration
from sparse3d.io.tracks import read_tracks

SMALL = MinidriveConfig(lidar=LidarConfig(beams=16, columns=256))
EXACT = MinidriveConfig(lidar=LidarConfig(beams=32, columns=512, range_noise=0.0, dropout=0.0))


@pytest.fixture(scope="module")
def drive():
    return list(simulate_drive(3, 5, DriveConfig(scans=12), SMALL))


def in_world(scan):
    """Boxes (M, 7) float64 of a scan in the world's frame."""
    return transform_boxes(scan.boxes.astype(np.float64), scan.world_from_lidar)


def test_begins_as_the_scene_of_the_same_numbers_stands(drive):
    scene = simulate(3, 5, SMALL)
    np.testing.assert_array_equal(drive[0].names, scene.names)
    np.testing.assert_allclose(drive[0].boxes, scene.boxes, atol=1e-5)
    np.testing.assert_allclose(drive[0].world_from_lidar, np.eye(4), atol=1e-9)


def test_is_the_same_every_time(drive):
    for a, b in zip(drive, simulate_drive(3, 5, DriveConfig(scans=12), SMALL), strict=True):
        np.testing.assert_array_equal(a.scan.points, b.scan.points)
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_velocities_are_what_the_boxes_do(drive):
    """Along the heading, and the way of the next tenth of a second divided by it."""
    assert [round(s.time, 6) for s in drive] == [round(0.1 * k, 6) for k in range(12)]
    for now, then in zip(drive, drive[1:], strict=False):
        step = (in_world(then) - in_world(now))[:, :2] / 0.1
        world = now.velocities @ now.world_from_lidar[:2, :2].T
        np.testing.assert_allclose(world, step, atol=1e-3)
        yaw = in_world(now)[:, 6]
        across = -np.sin(yaw) * world[:, 0] + np.cos(yaw) * world[:, 1]
        np.testing.assert_allclose(across, 0, atol=1e-3)
        np.testing.assert_allclose(in_world(then)[:, 3:], in_world(now)[:, 3:], atol=1e-5)
    speeds = np.linalg.norm(drive[0].velocities, axis=1)
    assert (speeds > 0.5).sum() >= 4 and (speeds == 0).sum() >= 4


def test_nothing_runs_into_anything(drive):
    for scan in (drive[4], drive[-1]):
        boxes = in_world(scan)
        rectangles = np.column_stack([boxes[:, :2], boxes[:, 3:5] / 2, boxes[:, 6]])
        for k, own in enumerate(rectangles):
            others = np.delete(rectangles, k, axis=0)
            assert not overlaps(others, len(others), *own.tolist())


def test_sensor_moves_on_and_points_stay_where_things_are():
    """Without noise: the points on each object lie in its box, and the ground of two scans is one surface."""
    scans = list(simulate_drive(1, 2, DriveConfig(scans=8), EXACT))
    way = [s.world_from_lidar[:3, 3] for s in scans]
    assert 1.0 < np.linalg.norm(way[-1] - way[0]) < 0.8 * 8.0
    for seen in (scans[0], scans[-1]):
        points, instance = seen.scan.points[:, :3].astype(np.float64), seen.scan.instance
        checked = 0
        for m in np.flatnonzero(seen.scan.hits >= 5):
            x, y, z, l, w, h, yaw = seen.boxes[m].astype(np.float64)
            local = points[instance == m + 1] - (x, y, z)
            c, s = math.cos(yaw), math.sin(yaw)
            local[:, :2] = local[:, :2] @ np.array([[c, -s], [s, c]])
            assert (np.abs(local) <= np.array([l, w, h]) / 2 + 0.02).all()
            checked += 1
        assert checked > 3
    # Heights of the road near the middle of the way, from both ends of it.
    heights = []
    for seen in (scans[0], scans[-1]):
        world = transform_points(seen.scan.points.astype(np.float64), seen.world_from_lidar)
        near = (seen.scan.semantic == 40) & (np.hypot(*(world[:, :2] - way[4][:2]).T) < 6)
        heights.append(np.median(world[near, 2]))
    assert abs(heights[0] - heights[1]) < 0.05


def test_speeds_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="needs scans"):
        DriveConfig(scans=0)
    with pytest.raises(ValueError, match="negative"):
        next(simulate_drive(-1, 0))


def test_files_hold_what_was_simulated(tmp_path, drive):
    done = []
    write_drives(tmp_path, 2, 3, DriveConfig(scans=3), SMALL, progress=lambda a, b: done.append((a, b)))
    assert done == [(1, 2), (2, 2)]
    want = list(simulate_drive(3, 1, DriveConfig(scans=3), SMALL))
    scans, truth = find_scans(tmp_path / "0001"), read_tracks(tmp_path / "0001" / "tracks.json")
    assert truth.classes == ("Car", "Van", "Pedestrian", "Cyclist") and len(scans) == len(truth.frames) == 3
    first = inverse(want[0].world_from_lidar)
    for file, frame, seen in zip(scans, truth.frames, want, strict=True):
        np.testing.assert_array_equal(read_points(file.path), seen.scan.points)
        assert file.time == pytest.approx(seen.time, abs=1e-6) and frame.time == pytest.approx(seen.time)
        np.testing.assert_allclose(file.world_from_lidar, first @ seen.world_from_lidar, atol=1e-6)
        assert (seen.scan.hits[frame.ids - 1] >= 5).all() and len(frame.ids) > 3
        np.testing.assert_allclose(frame.boxes, seen.boxes[frame.ids - 1], atol=1e-3)
        np.testing.assert_allclose(frame.velocities, seen.velocities[frame.ids - 1], atol=1e-3)
        assert [truth.classes[k] for k in frame.labels] == seen.names[frame.ids - 1].tolist()
    assert read_sequence_calibration(tmp_path / "0001") is not None
    # A drive that is there stays; one without tracks.json is written again.
    stamp = (tmp_path / "0000" / "tracks.json").stat().st_mtime_ns
    (tmp_path / "0001" / "tracks.json").unlink()
    write_drives(tmp_path, 2, 3, DriveConfig(scans=3), SMALL)
    assert (tmp_path / "0000" / "tracks.json").stat().st_mtime_ns == stamp
    assert read_tracks(tmp_path / "0001" / "tracks.json").frames[2].name == "000002"
