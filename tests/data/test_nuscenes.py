"""nuScenes: what a frame holds, on a release whose geometry is known; and what is said of broken ones."""

import json
import logging

import numpy as np
import pytest
import torch

from sparse3d.data.augment import AugmentConfig
from sparse3d.data.gt_sampling import ClassCount, GroundTruthSampling
from sparse3d.data.nuscenes import NuscenesConfig, NuscenesDataset
from sparse3d.data.nuscenes_splits import VAL, scenes_of
from sparse3d.data.object_database import open_object_database
from sparse3d.data.sequences import track_velocities
from sparse3d.errors import ConfigError, DataError
from sparse3d.geometry.rigid import inverse, transform_points
from sparse3d.io.nuscenes import read_nuscenes_scan
from sparse3d_ops.boxes import points_per_box
from tests.data.nuscenes_folder import (
    BIKE,
    CAR,
    LANDMARKS,
    LIDAR,
    SIZES,
    SPEED,
    WALKER,
    WORLD_FROM_START,
    ego_pose,
    objects_at,
    write_nuscenes,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_nuscenes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture
def root(tmp_path):
    return write_nuscenes(tmp_path / "nuscenes")


def dataset(root, split="mini_train", augment=None, tmp_path=None, **changes):
    return NuscenesDataset(NuscenesConfig(root=str(root), **changes), split, augment)


def counts(frame):
    return points_per_box(
        torch.from_numpy(frame.points[:, :3].copy()), torch.from_numpy(frame.boxes)
    ).tolist()


def seconds_of(frame):
    return frame.extra["timestamp"] - 1_532_402_927


@pytest.mark.parametrize("convention", ["sparse3d", "released"])
def test_boxes_lie_around_their_points_with_the_sizes_and_velocities_of_the_world(whole, convention):
    data = dataset(whole, sweeps=1, convention=convention)
    assert len(data) == 3 and data.frame_ids[1] == "scene-0061-s1"
    for index in range(3):
        frame = data[index]
        assert [data.class_names[i] for i in frame.labels] == ["car", "pedestrian", "bicycle"]
        # The bicycle stands in the rack: points of both are in its box.
        assert counts(frame)[:2] == [20, 20] and counts(frame)[2] >= 20
        np.testing.assert_allclose(frame.boxes[:, 3:6], SIZES[[CAR, WALKER, BIKE]], rtol=1e-6)
        pose = frame.extra["world_from_lidar"]
        ours = [CAR, WALKER, BIKE]
        np.testing.assert_allclose(
            transform_points(frame.boxes[:, :3].astype(np.float64), pose),
            objects_at(seconds_of(frame))[ours],
            atol=1e-4,
        )
        world = np.column_stack([frame.velocities, np.zeros(3)]) @ pose[:3, :3].T
        expected = SPEED[ours] @ WORLD_FROM_START[:3, :3].T
        np.testing.assert_allclose(world[:, :2], expected[:, :2], atol=0.01)  # cos of the tilt
        assert frame.box_info["points"].tolist() == [20, 21, 23]
        assert frame.box_info["occlusion"].tolist() == [0, 2, -1], "80-100 %, 40-60 %, nothing told"
        assert [data.attribute_names[i] if i >= 0 else "" for i in frame.box_info["attribute"]] == [
            "vehicle.moving",
            "pedestrian.standing",
            "",
        ]
        assert frame.extra["other_categories"].tolist() == ["static_object.bicycle_rack"]
        vehicle = transform_points(frame.extra["vehicle"][None].astype(np.float64), pose)[0]
        np.testing.assert_allclose(vehicle, ego_pose(seconds_of(frame))[:3, 3], atol=1e-4)


def test_ours_is_x_forward_y_left_and_released_is_as_the_files_have_it(whole):
    ours, released = (dataset(whole, sweeps=1, convention=name)[0] for name in ("sparse3d", "released"))
    forward = inverse(ours.extra["world_from_lidar"]) @ ego_pose(0.0)
    np.testing.assert_allclose(forward[:3, 0], [1, 0, 0], atol=0.03)  # the sensor is tilted by so much
    np.testing.assert_allclose(forward[:3, 1], [0, 1, 0], atol=0.03)
    np.testing.assert_array_equal(ours.points[:, :2], released.points[:, [1, 0]] * [1, -1])
    assert ours.points[0, 3] == np.float32(0.2) and released.points[0, 3] == 51
    path = sorted((whole / "samples/LIDAR_TOP").glob("scene-0061*"))[0]
    np.testing.assert_array_equal(released.points, read_nuscenes_scan(path)[:-2])
    np.testing.assert_allclose(released.extra["world_from_lidar"], ego_pose(0.0) @ LIDAR, atol=1e-9)


def test_points_on_the_vehicle_itself_are_left_out_of_every_sweep(whole):
    frame = dataset(whole, sweeps=3)[2]
    assert len(frame.points) == 3 * (4 * 20 + len(LANDMARKS))


def test_sweeps_agree_on_what_stands_still_and_tell_their_age(whole):
    data = dataset(whole, sweeps=10)
    frame = data[1]
    lags = np.unique(frame.points[:, 4])
    np.testing.assert_allclose(lags, np.arange(10) * 0.05, atol=1e-6)
    landmarks = transform_points(LANDMARKS, inverse(frame.extra["world_from_lidar"]) @ WORLD_FROM_START)
    for lag in lags:
        sweep = frame.points[frame.points[:, 4] == lag]
        np.testing.assert_allclose(sweep[: len(LANDMARKS), :3], landmarks, atol=1e-4)
        # The car was elsewhere: its points lie back by speed times lag.
        car = sweep[len(LANDMARKS) : len(LANDMARKS) + 20, :3].mean(axis=0)
        expected = frame.boxes[0, :2] - lag * frame.velocities[0]
        np.testing.assert_allclose(car[:2], expected, atol=0.6)  # the mean of 20 random points of the car
    assert frame.points[0, 4] == 0, "the newest first"


def test_a_scene_starts_with_fewer_sweeps_and_never_reaches_into_the_scene_before(whole):
    data = dataset(whole, "mini_val", sweeps=10, skip_missing=True)
    assert data[0].extra["sequence"] == "scene-0103" and set(data[0].points[:, 4]) == {0}
    assert len(np.unique(dataset(whole, sweeps=40)[2].points[:, 4])) == 21
    both = dataset(whole, "trainval", version="v1.0-mini", sweeps=10)
    assert both[3].extra["sequence"] == "scene-0103" and set(both[3].points[:, 4]) == {0}


def test_the_sequences_are_there_for_a_tracker(whole):
    data = dataset(whole, "scene-0103", version="v1.0-mini", sweeps=1)
    assert data.sequences == {"scene-0103": range(3)}
    times = [data[i].extra["timestamp"] for i in data.sequences["scene-0103"]]
    np.testing.assert_allclose(np.diff(times), 0.5, atol=1e-6)
    tracks = [data[i].box_info["track"].tolist() for i in range(3)]
    assert tracks[0] == tracks[1] == tracks[2] and len(set(tracks[0])) == 3
    both = dataset(whole, "trainval", version="v1.0-mini", sweeps=1)
    assert both.sequences == {"scene-0061": range(3), "scene-0103": range(3, 6)}


def test_velocities_by_hand():
    track = np.array([0, 1, 0, 0, 1, 2, 3, 3, 4, 4, 4])
    time = np.array([1.0, 1, 0, 2, 3.5, 0, 0, 0, 0, 2.9, 3.1])
    world = np.zeros((11, 3))
    world[:, 0] = [5, 0, 2, 10, 9, 7, 1, 2, 0, 2.9, 31]
    got = track_velocities(track, time, world, 1.5)[:, 0]
    nan = np.nan
    # 0: before and after; 1: 2.5 s apart; 2: once; 3: twice at one time; 4: 2.9 > 1.5, 3.1 > 3, then 0.2 s.
    np.testing.assert_allclose(got, [4, nan, 3, 5, nan, nan, nan, nan, nan, nan, 28.1 / 0.2])
    assert track_velocities(np.zeros(0), np.zeros(0), np.zeros((0, 3)), 1).shape == (0, 3)


def test_splits():
    assert len(VAL) == 150 and len(set(VAL)) == 150
    assert scenes_of("train", ["scene-0001", "scene-0003"]) == ["scene-0001"]
    assert scenes_of("nothing", ["scene-0001"]) is None


def test_a_split_of_ones_own(root):
    (root / "splits").mkdir()
    (root / "splits/bends.txt").write_text("scene-0103\n")
    assert list(dataset(root, "bends", version="v1.0-mini").sequences) == ["scene-0103"]
    (root / "splits/bends.txt").write_text("scene-0103\nscene-0777\n")
    with pytest.raises(DataError, match="1 of 2 sequences are not there: scene-0777"):
        dataset(root, "bends", version="v1.0-mini")
    with pytest.raises(DataError, match="no split 'curves'; there are train, val"):
        dataset(root, "curves", version="v1.0-mini")


def test_every_nth_frame_trains_and_every_one_is_judged(whole):
    data = dataset(whole, "trainval", AugmentConfig(), version="v1.0-mini", every=2)
    assert data.sequences == {"scene-0061": range(2), "scene-0103": range(2, 4)}
    assert [i[-2:] for i in data.frame_ids] == ["s0", "s2", "s0", "s2"]
    assert len(dataset(whole, "trainval", version="v1.0-mini", every=2)) == 6


# ---- index and database ------------------------------------------------------------------------------------


def test_the_index_is_built_once_and_anew_when_a_table_changes(root, caplog):
    first = dataset(root)
    paths = list(root.glob("sparse3d_index_*.npz"))
    stamp = paths[0].stat().st_mtime_ns
    again = dataset(root)
    assert len(paths) == 1 and paths[0].stat().st_mtime_ns == stamp
    for a, b in zip(first.table, again.table, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    table = root / "v1.0-mini/sample_annotation.json"
    table.write_text(json.dumps([row for row in json.loads(table.read_text()) if row["num_radar_pts"]]))
    assert len(dataset(root)[0].boxes) == 2
    paths[0].write_bytes(paths[0].read_bytes()[:1000])
    with caplog.at_level(logging.INFO):
        assert len(dataset(root)[0].boxes) == 2
    assert "rebuilt" in caplog.text


def test_pasted_objects_come_with_all_sweeps_and_their_velocity(root):
    steps = AugmentConfig((GroundTruthSampling(counts=(ClassCount("car", 2), ClassCount("pedestrian", 2))),))
    data = dataset(root, augment=steps, sweeps=10)
    database = open_object_database(data.augment.steps[0].database)
    assert len(database) == 9 and database.points.shape[1] == 5
    car = np.flatnonzero(database.labels == 0)[-1]
    lags = database.points[database.offsets[car] : database.offsets[car + 1], 4]
    assert len(np.unique(lags.round(2))) > 3, "points of several scans"
    empty = data.frame(0).select_boxes(np.zeros(3, dtype=bool))
    frame = data.augment.steps[0](empty, np.random.default_rng(0))
    assert set(frame.labels) == {0, 8}
    for box, velocity in zip(frame.boxes, frame.velocities, strict=True):
        origin = np.flatnonzero((database.boxes == box).all(axis=1))[0]
        np.testing.assert_array_equal(velocity, database.velocities[origin])


def test_scenes_of_the_benchmarks_split_that_are_not_there_are_named(whole):
    with pytest.raises(DataError, match="1 of 2 sequences are not there: scene-0916"):
        dataset(whole, "mini_val")


# ---- folders that are not whole ----------------------------------------------------------------------------


def change(root, name, edit):
    path = root / f"v1.0-mini/{name}.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


@pytest.mark.parametrize(
    "name, edit, message",
    [
        ("sample", lambda rows: rows[0].pop("timestamp"), "sample.json: record 0 has no 'timestamp'"),
        ("scene", lambda rows: rows.pop(), "scene.json: no record 't-scene-0103', which another table"),
        ("ego_pose", lambda rows: rows.pop(5), "ego_pose.json: no record 'scene-0061-e5'"),
        (
            "ego_pose",
            lambda rows: rows[2].update(rotation=[0, 0, 0, 0]),
            "ego_pose.json: a quaternion has length",
        ),
        (
            "ego_pose",
            lambda rows: rows[2].update(translation=[1, 2]),
            "e2' has translation .1, 2., expected 3 fin",
        ),
        ("instance", lambda rows: rows.clear(), "instance.json: no record 'scene-0061-o0'"),
        ("category", lambda rows: rows.pop(0), "category.json: no record 'cat0'"),
        (
            "sample_annotation",
            lambda rows: rows[0].update(size=[1, 2]),
            "a0' has size .1, 2., expected 3 finite",
        ),
        ("sample_annotation", lambda rows: rows[0].update(size="big"), "a0' has size big, expected 3 finite"),
        ("sample_annotation", lambda rows: rows[0].update(rotation=[0] * 4), "a rotation of length 0"),
        (
            "sample_annotation",
            lambda rows: rows[0].update(translation=[1, 2, float("nan")]),
            "a0' has translation .1, 2, nan., expected 3 finite numbers",
        ),
    ],
)
def test_broken_tables_are_named(root, name, edit, message):
    change(root, name, edit)
    with pytest.raises(DataError, match=message):
        dataset(root)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{}", "not a table of nuScenes"),
        ("[{}, 3]", "record 0 has no 'token', 'channel'"),
        ("[3]", "record 0 is int"),
        ('[{"token": "a", "channel": "b"}', "after record 0, at character 31: expected , or ]; truncated"),
        ('[{"token": "a", "chan', "record 0 at character 1 is not JSON; truncated"),
        ("[" * 100_000, "is not JSON"),
        ("", "not a table of nuScenes"),
    ],
)
def test_tables_that_are_no_tables(root, text, message):
    (root / "v1.0-mini/sensor.json").write_text(text)
    with pytest.raises(DataError, match=message):
        dataset(root)


def test_missing_tables_say_what_is_there(root):
    with pytest.raises(DataError, match="v1.0-trainval: no such tables; .* has v1.0-mini"):
        dataset(root, "train")
    (root / "v1.0-mini/ego_pose.json").unlink()
    with pytest.raises(DataError, match="ego_pose.json: no such file"):
        dataset(root)


def test_half_a_download(root, caplog):
    scans = sorted((root / "samples/LIDAR_TOP").glob("scene-0061*"))
    scans[1].unlink()
    with pytest.raises(
        DataError, match="1 of 3 frames of 'mini_train' lack files: samples/LIDAR_TOP/scene-0061"
    ):
        dataset(root)
    with caplog.at_level(logging.WARNING):
        data = dataset(root, skip_missing=True, sweeps=20)
    assert data.frame_ids == ("scene-0061-s0", "scene-0061-s2") and "skipped" in caplog.text
    assert len(np.unique(data[1].points[:, 4])) == 19, "20 sweeps but the one that is missing"
    sweep = sorted((root / "sweeps/LIDAR_TOP").glob("scene-0061*"))[-1]
    sweep.write_bytes(sweep.read_bytes()[:-3])
    with pytest.raises(DataError, match="17 bytes are left over at offset"):
        data[1]


def test_points_that_are_not_finite_are_dropped(root, caplog):
    path = sorted((root / "samples/LIDAR_TOP").glob("scene-0061*"))[0]
    cloud = np.fromfile(path, "<f4").reshape(-1, 5)
    cloud[3, 2] = np.nan
    path.write_bytes(cloud.tobytes())
    data = dataset(root)
    with caplog.at_level(logging.WARNING):
        assert len(data[0].points) == len(data[0].points) == len(cloud) - 3
    assert caplog.text.count("dropped 1 points") == 1


def test_classes_that_do_not_exist_are_named(whole):
    with pytest.raises(ConfigError, match=r"data.classes \['Car'\] are not in"):
        dataset(whole, classes=("Car",))


def test_a_frame_without_boxes_is_legal(root):
    change(root, "sample_annotation", lambda rows: rows.clear())
    frame = dataset(root, augment=AugmentConfig())[0]
    assert frame.boxes.shape == (0, 7) and frame.velocities.shape == (0, 2) and len(frame.points)


def test_a_box_of_negative_size_is_named_when_its_frame_is_read(root):
    change(root, "sample_annotation", lambda rows: rows[0].update(size=[-1, 2, 2]))
    data = dataset(root)
    assert len(data[1].boxes) == 3
    with pytest.raises(DataError, match="frame scene-0061-s0: an object to train on has a length"):
        data[0]


def test_a_recorded_scan(real_data):
    path = next((real_data / "nuscenes_sample").glob("*.pcd.bin"))
    points = read_nuscenes_scan(path)
    assert points.shape == (34688, 4) and points[:, 3].max() <= 255 and np.isfinite(points).all()
    # The vehicle's own points are there: they are what `_CLOSE` is for.
    assert (np.abs(points[:, :2]) < 1).all(axis=1).any()
