"""Augmentations: points and boxes move together, nothing collides, and one generator decides everything."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.config import load, to_dict, to_yaml
from sparse3d.data.augment import (
    SECOND_AUGMENTATION,
    AugmentConfig,
    ObjectNoise,
    PointShuffle,
    RandomFlip,
    RandomRotation,
    RandomScaling,
    RandomTranslation,
    RangeFilter,
    box_of_points,
)
from sparse3d.data.gt_sampling import ClassCount, GroundTruthSampling
from sparse3d.frames import LidarFrame
from sparse3d_ops.boxes import box_iou_bev, points_per_box
from tests.data.kitti_folder import points_in


def scene(seed: int = 0, boxes: int = 6, empty_points: int = 300) -> LidarFrame:
    """Boxes in places of their own, each with points in it, and points around that no box comes near."""
    rng = np.random.default_rng(seed)
    rows = [
        (
            8 * (m % 3) + 10 + rng.uniform(-1, 1),
            8 * (m // 3) - 4 + rng.uniform(-1, 1),
            rng.uniform(-1, 0),
            *rng.uniform((2, 1, 1), (4, 2, 2)),
            rng.uniform(-np.pi, np.pi),
        )
        for m in range(boxes)
    ]
    array = np.array(rows, dtype=np.float32).reshape(-1, 7)
    inside = [points_in(box, 5 + m, rng) for m, box in enumerate(array)]
    around = np.column_stack([rng.uniform(-40, 40, (empty_points, 2)), rng.uniform(5, 9, (empty_points, 2))])
    points = np.concatenate([around.astype(np.float32), *inside])
    return LidarFrame("a", points, array, np.arange(boxes, dtype=np.int64) % 3, {"note": 1})


def counts(frame: LidarFrame) -> list[int]:
    return points_per_box(
        torch.from_numpy(np.ascontiguousarray(frame.points[:, :3])), torch.from_numpy(frame.boxes)
    ).tolist()


RIGID = [
    RandomFlip(axis="y", probability=1),
    RandomFlip(axis="x", probability=1),
    RandomRotation(min_angle=-np.pi, max_angle=np.pi),
    RandomScaling(),
    RandomTranslation(),
]
ALL = [*RIGID, ObjectNoise(), PointShuffle(), RangeFilter()]


@pytest.mark.parametrize("step", [*RIGID, ObjectNoise(), PointShuffle()], ids=lambda s: s.kind)
@pytest.mark.parametrize("seed", range(5))
def test_each_box_keeps_its_points(step, seed):
    before = scene(seed)
    after = step(before, np.random.default_rng(seed))
    assert counts(before) == counts(after) == [5, 6, 7, 8, 9, 10]
    assert (after.boxes[:, 6] >= -np.float32(np.pi)).all() and (after.boxes[:, 6] <= np.float32(np.pi)).all()


@pytest.mark.parametrize("step", ALL, ids=lambda s: s.kind)
def test_a_step_is_repeatable_and_leaves_its_input_alone(step):
    frame, untouched = scene(), scene()
    first, second = (step(frame, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(frame.points, untouched.points)
    np.testing.assert_array_equal(frame.boxes, untouched.boxes)
    assert first.points.dtype == first.boxes.dtype == np.float32 and first.extra is frame.extra
    assert first.points.flags.owndata or not np.shares_memory(first.points, frame.points)


@pytest.mark.parametrize("step", ALL, ids=lambda s: s.kind)
@pytest.mark.parametrize("points", [0, 20])
def test_frames_without_points_or_boxes_are_legal(step, points):
    frame = replace(
        scene(boxes=0, empty_points=points), boxes=np.zeros((0, 7), np.float32), labels=np.zeros(0, np.int64)
    )
    after = step(frame, np.random.default_rng(0))
    assert after.boxes.shape == (0, 7) and after.points.shape[1] == 4


@pytest.mark.parametrize("step", RIGID, ids=lambda s: s.kind)
def test_intensity_is_never_touched(step):
    frame = scene()
    np.testing.assert_array_equal(step(frame, np.random.default_rng(0)).points[:, 3], frame.points[:, 3])


def one(x=3.0, y=2.0, yaw=0.5) -> LidarFrame:
    return LidarFrame(
        "a",
        np.array([[x, y, 0, 0.7]], dtype=np.float32),
        np.array([[x, y, 0, 4, 2, 1, yaw]], dtype=np.float32),
        np.zeros(1, dtype=np.int64),
    )


def test_flips_by_hand():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(
        RandomFlip(axis="y", probability=1)(one(), rng).boxes, [[3, -2, 0, 4, 2, 1, -0.5]]
    )
    np.testing.assert_allclose(
        RandomFlip(axis="x", probability=1)(one(), rng).boxes, [[-3, 2, 0, 4, 2, 1, math.pi - 0.5]], rtol=1e-6
    )
    assert RandomFlip(probability=0)(one(), rng).boxes[0, 1] == 2


def test_a_quarter_turn_by_hand():
    step = RandomRotation(min_angle=math.pi / 2, max_angle=math.pi / 2)
    frame = step(one(yaw=3.0), np.random.default_rng(0))
    np.testing.assert_allclose(frame.points[0, :2], [-2, 3], atol=1e-6)
    np.testing.assert_allclose(frame.boxes[0], [-2, 3, 0, 4, 2, 1, 3 + math.pi / 2 - 2 * math.pi], atol=1e-6)


def test_scaling_and_translation_by_hand():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(
        RandomScaling(min_scale=2, max_scale=2)(one(), rng).boxes, [[6, 4, 0, 8, 4, 2, 0.5]]
    )
    moved = RandomTranslation(std=(0, 0, 1))(one(), rng)
    assert moved.boxes[0, :2].tolist() == [3, 2] and moved.boxes[0, 2] == moved.points[0, 2] != 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_flipping_twice_changes_nothing(seed):
    frame, rng = scene(seed), np.random.default_rng(0)
    for axis in ("x", "y"):
        flip = RandomFlip(axis=axis, probability=1)
        back = flip(flip(frame, rng), rng)
        np.testing.assert_array_equal(back.points, frame.points)
        np.testing.assert_allclose(np.cos(back.boxes[:, 6] - frame.boxes[:, 6]), 1, atol=1e-6)


def test_random_flip_flips_about_as_often_as_asked():
    rng = np.random.default_rng(0)
    flips = sum(RandomFlip(probability=0.25)(one(), rng).boxes[0, 1] < 0 for _ in range(400))
    # 400 draws at 1/4: 100 with a standard deviation of 8.7.
    assert 60 < flips < 140


# ---- per-object noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_object_noise_moves_boxes_but_into_no_other(seed):
    frame = scene(seed, boxes=9)
    after = ObjectNoise(std=(2, 2, 0.1), max_angle=1)(frame, np.random.default_rng(seed))
    overlap = box_iou_bev(torch.from_numpy(after.boxes), torch.from_numpy(after.boxes)).fill_diagonal_(0)
    assert overlap.max() == 0
    assert np.abs(after.boxes[:, :2] - frame.boxes[:, :2]).max() > 0.5
    np.testing.assert_array_equal(after.boxes[:, 3:6], frame.boxes[:, 3:6])
    np.testing.assert_array_equal(after.points[:300], frame.points[:300])


def test_a_box_without_a_free_pose_stays():
    """Two boxes that stand in each other: no small motion frees them."""
    frame = one()
    boxes = np.concatenate([frame.boxes, frame.boxes])
    frame = replace(frame, boxes=boxes, labels=np.zeros(2, dtype=np.int64))
    after = ObjectNoise(std=(0.1, 0.1, 0))(frame, np.random.default_rng(0))
    np.testing.assert_allclose(after.boxes, boxes, atol=1e-6)
    np.testing.assert_allclose(after.points, frame.points, atol=1e-6)


# ---- filters -----------------------------------------------------------------------------------------------


def test_range_filter_is_half_open():
    step = RangeFilter(bounds=(0, 0, 0, 1, 1, 1))
    rows = np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.5, 1], [0.99, 0.99, 0.99], [-0.01, 0.5, 0.5]])
    assert step.inside(rows).tolist() == [True, False, False, True, False]


def test_shuffle_is_a_permutation():
    frame = scene()
    after = PointShuffle()(frame, np.random.default_rng(0))
    assert not np.array_equal(after.points, frame.points)
    np.testing.assert_array_equal(np.sort(after.points, axis=0), np.sort(frame.points, axis=0))


def test_box_of_points_by_hand():
    boxes = np.array([[0, 0, 0, 2, 2, 2, 0], [1, 0, 0, 2, 2, 2, 0]], dtype=np.float32)
    points = np.array([[0.5, 0, 0, 9], [1.5, 0, 0, 9], [5, 0, 0, 9]], dtype=np.float32)
    assert box_of_points(points, boxes).tolist() == [0, 1, -1]


# ---- config ------------------------------------------------------------------------------------------------


def test_the_steps_are_written_and_read_as_yaml(tmp_path):
    config = AugmentConfig(
        steps=(
            *SECOND_AUGMENTATION.steps,
            GroundTruthSampling(counts=(ClassCount("Car", 3),), to_ground=True),
            ObjectNoise(std=(1, 2, 3)),
            RandomFlip(axis="x"),
            RandomTranslation(),
            RangeFilter(bounds=(0, 1, 2, 3, 4, 5)),
        )
    )
    path = tmp_path / "augment.yaml"
    path.write_text(to_yaml(config))
    got = load(AugmentConfig, path)
    assert got == config
    assert [s["kind"] for s in to_dict(got)["steps"]][:3] == ["gt_sampling", "flip", "rotation"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomFlip(probability=1.5),
        lambda: RandomRotation(min_angle=1, max_angle=0),
        lambda: RandomScaling(min_scale=0),
        lambda: RandomScaling(min_scale=2),
        lambda: ObjectNoise(tries=0),
        lambda: ObjectNoise(std=(0, -1, 0)),
        lambda: RangeFilter(bounds=(0, 0, 0, 1, 1)),
        lambda: RangeFilter(bounds=(0, 0, 0, 1, 0, 1)),
        lambda: ClassCount("Car", -1),
    ],
)
def test_settings_without_sense_are_refused(make):
    with pytest.raises(ValueError, match="must|larger"):
        make()


def test_velocities_move_with_the_boxes():
    """A box that moves along its heading still does after every change of the scene."""
    frame = scene(boxes=6)
    yaw = frame.boxes[:, 6]
    frame = replace(frame, velocities=np.stack([np.cos(yaw), np.sin(yaw)], axis=1))
    for step in (
        RandomFlip(probability=1),
        RandomFlip(axis="x", probability=1),
        RandomRotation(),
        ObjectNoise(),
    ):
        moved = step(frame, np.random.default_rng(3))
        heading = moved.boxes[:, 6]
        np.testing.assert_allclose(
            moved.velocities, np.stack([np.cos(heading), np.sin(heading)], axis=1), atol=1e-6
        )
    doubled = RandomScaling(min_scale=2.0, max_scale=2.0)(frame, np.random.default_rng(0))
    np.testing.assert_allclose(doubled.velocities, 2 * frame.velocities)
    one = frame.select_boxes(np.array([1]))
    np.testing.assert_array_equal(one.velocities, frame.velocities[1:2])
