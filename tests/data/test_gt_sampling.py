"""Ground-truth sampling: what is cut out is what is pasted, into free places only."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d.data.augment import AugmentConfig
from sparse3d.data.gt_sampling import ClassCount, GroundTruthSampling
from sparse3d.data.kitti import KittiDataset, KittiDatasetConfig
from sparse3d.data.object_database import build_object_database, cut_out, open_object_database
from sparse3d.errors import ConfigError, DataError
from sparse3d.frames import LidarFrame
from sparse3d_ops.boxes import box_iou_bev, points_per_box
from tests.data.kitti_folder import points_in, write_folder

CLASSES = ("Car", "Pedestrian")


def object_frame(
    boxes: list[list[float]], labels: list[int], counts: list[int], ground: int = 0
) -> LidarFrame:
    rng = np.random.default_rng(len(boxes))
    array = np.array(boxes, dtype=np.float32).reshape(-1, 7)
    plane = np.column_stack(
        [rng.uniform(0, 60, ground), rng.uniform(-20, 20, ground), np.full((ground, 2), -2.0)]
    )
    cloud = [plane.astype(np.float32), *(points_in(b, n, rng) for b, n in zip(array, counts, strict=True))]
    return LidarFrame("f", np.concatenate(cloud), array, np.array(labels, dtype=np.int64))


def car(x: float, y: float, z: float = 0, yaw: float = 0.3) -> list[float]:
    return [x, y, z, 4, 2, 1.5, yaw]


@pytest.fixture
def folder(tmp_path):
    """Cars at x 10, 30, 50 with 3, 20, 40 points, the second unrated; a pedestrian at x 20 with 8 points."""
    frames = [
        (object_frame([car(10, 0), car(30, 0)], [0, 0], [3, 20], 50), np.array([0, -1])),
        (object_frame([], [], [], 50), np.zeros(0, dtype=np.int64)),
        (object_frame([[20, 5, 0, 1, 1, 2, 0], car(50, 0)], [1, 0], [8, 40]), np.array([1, 2])),
    ]
    return build_object_database(lambda: [cut_out(*pair) for pair in frames], CLASSES, tmp_path, "key")


def step(folder, **changes) -> GroundTruthSampling:
    counts = (ClassCount("Car", 5), ClassCount("Pedestrian", 5))
    return replace(GroundTruthSampling(counts=counts, database=str(folder)), **changes)


def counts_of(frame: LidarFrame) -> list[int]:
    xyz = torch.from_numpy(np.ascontiguousarray(frame.points[:, :3]))
    return points_per_box(xyz, torch.from_numpy(frame.boxes)).tolist()


EMPTY = object_frame([], [], [], 100)


def test_the_database_holds_each_object_with_its_points(folder):
    database = open_object_database(str(folder))
    assert database.class_names == CLASSES and len(database) == 4
    assert np.diff(database.offsets).tolist() == [3, 20, 8, 40]
    assert database.labels.tolist() == [0, 0, 1, 0] and database.difficulty.tolist() == [0, -1, 1, 2]
    for k, box in enumerate(database.boxes):
        points = database.points[database.offsets[k] : database.offsets[k + 1]]
        assert points_per_box(
            torch.from_numpy(points[:, :3].copy()), torch.from_numpy(box[None].copy())
        ).tolist() == [len(points)]


def test_objects_are_pasted_where_they_were_recorded(folder):
    got = step(folder)(EMPTY, np.random.default_rng(0))
    order = np.argsort(got.boxes[:, 0])
    np.testing.assert_array_equal(got.boxes[order][:, 0], [20, 50])
    assert got.labels[order].tolist() == [1, 0]
    assert [counts_of(got)[i] for i in order] == [8, 40]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"min_points": 0}, [10, 20, 50]),
        ({"rated_only": False}, [20, 30, 50]),
        ({"rated_only": False, "min_points": 0}, [10, 20, 30, 50]),
        ({"min_points": 41}, []),
        ({"counts": (ClassCount("Pedestrian", 1),)}, [20]),
        ({"counts": (ClassCount("Car", 0),)}, []),
    ],
)
def test_filters_choose_the_candidates(folder, changes, expected):
    got = step(folder, **changes)(EMPTY, np.random.default_rng(0))
    assert sorted(got.boxes[:, 0].tolist()) == expected


def test_existing_objects_count_towards_the_number_wanted(folder):
    frame = object_frame([car(70, 9), car(80, 9)], [0, 0], [9, 9])
    options = {"rated_only": False, "min_points": 0}
    for wanted, total in ((2, 2), (3, 3), (4, 4), (9, 5)):
        got = step(folder, counts=(ClassCount("Car", wanted),), **options)(frame, np.random.default_rng(1))
        assert len(got.boxes) == total
        np.testing.assert_array_equal(got.boxes[:2], frame.boxes)


def test_nothing_is_pasted_onto_a_box(folder):
    frame = object_frame([car(51, 0.5, yaw=1)], [0], [7])
    got = step(folder)(frame, np.random.default_rng(0))
    assert got.boxes[:, 0].tolist() == [51, 20]
    assert counts_of(got) == [7, 8]


@pytest.mark.parametrize("seed", range(5))
def test_pasted_objects_never_overlap_each_other(tmp_path, seed):
    rng = np.random.default_rng(seed)
    boxes = [car(*rng.uniform(0, 12, 2), yaw=rng.uniform(-3, 3)) for _ in range(30)]
    frames = [(object_frame([box], [0], [6]), np.zeros(1, dtype=np.int64)) for box in boxes]
    folder = build_object_database(lambda: [cut_out(*pair) for pair in frames], CLASSES, tmp_path, "key")
    got = step(folder, counts=(ClassCount("Car", 30),))(EMPTY, rng)
    overlap = box_iou_bev(torch.from_numpy(got.boxes), torch.from_numpy(got.boxes)).fill_diagonal_(0)
    assert overlap.max() == 0 and 1 < len(got.boxes) < 30
    assert counts_of(got) == [6] * len(got.boxes)


def test_scene_points_inside_of_a_pasted_box_go(folder):
    """A wall of points through the place of the car at x = 50; the car's own points come in its stead."""
    rng = np.random.default_rng(0)
    wall = points_in(np.array(car(50, 0), dtype=np.float32), 200, rng)
    frame = replace(EMPTY, points=np.concatenate([EMPTY.points, wall]))
    got = step(folder, counts=(ClassCount("Car", 1),))(frame, rng)
    assert counts_of(got) == [40]
    np.testing.assert_array_equal(got.points[: len(EMPTY.points)], EMPTY.points)


def test_objects_move_onto_the_ground_when_asked(folder):
    flat = np.zeros((4000, 4), dtype=np.float32)
    flat[:, :2] = np.random.default_rng(0).uniform((0, -10), (60, 10), (4000, 2))
    flat[:, 2] = -1.25
    frame = replace(EMPTY, points=flat)
    got = step(folder, to_ground=True, counts=(ClassCount("Car", 1),))(frame, np.random.default_rng(0))
    # The car is 1.5 m high and was recorded around z = 0: it goes down by half a metre, its points with it.
    np.testing.assert_allclose(got.boxes[0], car(50, 0, -0.5), atol=1e-6)
    assert counts_of(got)[0] >= 40
    far = replace(frame, points=flat - np.array([0, 0, 5, 0], dtype=np.float32))
    kept = step(folder, to_ground=True, counts=(ClassCount("Car", 1),))(far, np.random.default_rng(0))
    assert kept.boxes[0, 2] == 0


def test_sampling_leaves_database_and_frame_alone(folder):
    database = open_object_database(str(folder))
    boxes, points = database.boxes.copy(), np.array(database.points)
    frame = replace(EMPTY, points=EMPTY.points.copy())
    first = step(folder, to_ground=True)(frame, np.random.default_rng(5))
    second = step(folder, to_ground=True)(frame, np.random.default_rng(5))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(frame.points, EMPTY.points)
    np.testing.assert_array_equal(database.boxes, boxes)
    np.testing.assert_array_equal(database.points, points)


def test_nothing_is_pasted_onto_an_object_that_is_no_target(folder):
    frame = replace(EMPTY, extra={"other_boxes": np.array([car(51, 0.5)], dtype=np.float32)})
    got = step(folder)(frame, np.random.default_rng(0))
    assert got.boxes[:, 0].tolist() == [20]


# ---- on disk -----------------------------------------------------------------------------------------------


def never():
    raise AssertionError("built again")


def test_a_whole_database_is_not_built_again(folder, tmp_path):
    assert build_object_database(never, CLASSES, tmp_path, "key") == folder


@pytest.mark.parametrize(
    "name, size", [("points.bin", -1), ("points.bin", 0), ("objects.npz", 0), ("objects.npz", 90)]
)
def test_a_damaged_database_is_built_anew(folder, tmp_path, caplog, name, size):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:size])
    with pytest.raises(DataError, match="not an object database"):
        open_object_database(f"{folder}/")
    with caplog.at_level(logging.WARNING):
        frames = [(object_frame([car(10, 0)], [0], [3]), np.zeros(1, dtype=np.int64))]
        again = build_object_database(lambda: [cut_out(*pair) for pair in frames], CLASSES, tmp_path, "key")
    assert "built anew" in caplog.text
    assert len(open_object_database(f"{again}/.")) == 1


def test_an_interrupted_build_leaves_nothing_that_looks_whole(tmp_path):
    def frames():
        yield cut_out(object_frame([car(10, 0)], [0], [3]), np.zeros(1, dtype=np.int64))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_object_database(frames, CLASSES, tmp_path, "key")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_without_a_database_the_error_says_who_gives_one():
    with pytest.raises(DataError, match="a data set gives its own"):
        GroundTruthSampling()(EMPTY, np.random.default_rng(0))


def test_a_split_without_objects_gives_an_empty_database(tmp_path):
    folder = build_object_database(
        lambda: [cut_out(EMPTY, np.zeros(0, dtype=np.int64))], CLASSES, tmp_path, "none"
    )
    assert step(folder)(EMPTY, np.random.default_rng(0)) is EMPTY


# ---- in the data set ---------------------------------------------------------------------------------------


def test_the_data_set_builds_its_own_database_and_fills_scenes(tmp_path):
    root = write_folder(tmp_path / "kitti")
    steps = AugmentConfig((GroundTruthSampling(counts=(ClassCount("Car", 6), ClassCount("Pedestrian", 4))),))
    data = KittiDataset(KittiDatasetConfig(root=str(root)), "train", steps)
    database = open_object_database(data.augment.steps[0].database)
    assert len(database) == 12 and (np.diff(database.offsets) == 30).all()
    plain = KittiDataset(KittiDatasetConfig(root=str(root)), "train", AugmentConfig())
    grown = [len(data[i].boxes) - len(plain[i].boxes) for i in range(4)]
    assert max(grown) > 0 and min(grown) >= 0
    for index in range(4):
        assert set(counts_of(data[index])) == {30}
    stamp = (root / database_name(data)).stat().st_mtime_ns
    KittiDataset(KittiDatasetConfig(root=str(root)), "train", steps)
    assert (root / database_name(data)).stat().st_mtime_ns == stamp


def test_workers_build_the_same_database(tmp_path):
    root = write_folder(tmp_path / "kitti")
    made, reports = [], []
    for workers in (0, 1):
        config = KittiDatasetConfig(root=str(root), cache_dir=str(tmp_path / f"by{workers}"))
        data = KittiDataset(config, "train")
        folder = Path(data.object_database(workers, lambda *report: reports.append(report)))
        made.append([(folder / name).read_bytes() for name in ("points.bin", "objects.npz")])
    assert made[0] == made[1] and reports == [(1, 4), (2, 4), (3, 4), (4, 4)] * 2
    (root / "training/velodyne/000002.bin").write_bytes(b"x")
    config = KittiDatasetConfig(root=str(root), cache_dir=str(tmp_path / "broken"))
    with pytest.raises(DataError, match="000002.bin: 1 bytes are not whole points"):
        KittiDataset(config, "train").object_database()


def database_name(data: KittiDataset) -> str:
    return data.augment.steps[0].database.rpartition("/")[2] + "/objects.npz"


@pytest.mark.parametrize("classes", [("Car",), ("Pedestrian", "Car")])
def test_classes_that_are_not_the_data_sets_are_refused(tmp_path, folder, classes):
    """A count of an unknown class would do nothing; a database with other labels would teach wrong ones."""
    config = KittiDatasetConfig(root=str(write_folder(tmp_path / "kitti", 1)), classes=classes)
    expected = "counts .'Pedestrian'." if classes == ("Car",) else "was built for the classes"
    with pytest.raises(ConfigError, match=expected):
        KittiDataset(config, "train", AugmentConfig((step(folder),)))


def test_vans_are_obstacles_of_the_data_set(tmp_path):
    data = KittiDataset(KittiDatasetConfig(root=str(write_folder(tmp_path / "kitti", 1))), "train")
    van = data[0].extra["other_boxes"]
    np.testing.assert_allclose(van[:, 3:6], [[5.0, 1.9, 2.2]])
    assert set(counts_of(replace(data[0], boxes=van))) == {30}
