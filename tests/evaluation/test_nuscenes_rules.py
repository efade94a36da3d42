"""Which boxes nuScenes' benchmark looks at, by hand."""

import numpy as np
import pytest

from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.evaluation.nuscenes_rules import (
    CLASSES,
    as_frame,
    attributes_by_speed,
    countable,
    in_racks,
)
from sparse3d.io.nuscenes_results import SampleBoxes

NAMES = ("car", "pedestrian", "traffic_cone", "bicycle")


def frame_of(rows, **columns):
    """Rows (x, y, label)."""
    boxes = np.array([[x, y, 0, 1, 1, 1, 0] for x, y, _ in rows], dtype=np.float32).reshape(-1, 7)
    return FrameBoxes(boxes, np.array([label for *_, label in rows], dtype=np.int64), **columns)


def test_ranges_are_those_of_the_class_and_open_at_their_end():
    frame = frame_of(
        [(49.9, 0, 0), (50, 0, 0), (0, -39.9, 1), (0, 40, 1), (30, 0, 2), (18, 24, 2), (18, 23, 2)]
    )
    assert countable(frame, NAMES).labels.tolist() == [0, 1, 2]
    # Seen from a vehicle ten metres further on, 50 and 30 m ahead are near.
    assert countable(frame, NAMES, ego_xy=(10, 0)).labels.tolist() == [0, 0, 2, 2, 2]


def test_height_does_not_count_in_the_range():
    high = FrameBoxes(np.array([[49.0, 0, 40, 1, 1, 1, 0]]), np.array([0]))
    assert len(countable(high, NAMES)) == 1


def test_labels_without_points_are_dropped_and_detections_have_none_to_ask_for():
    frame = frame_of([(1, 0, 0), (2, 0, 0)], num_points=np.array([0, 1]))
    assert countable(frame, NAMES).boxes[:, 0].tolist() == [2]
    assert len(countable(frame_of([(1, 0, 0)], scores=np.array([0.5])), NAMES)) == 1


def test_bicycles_within_racks_are_left_out_and_other_classes_stay():
    # A rack 4 x 1 m, turned by 90 degrees: it reaches from y = 8 to 12 and x = 9.5 to 10.5.
    racks = np.array([[10, 10, 0, 4, 1, 1, np.pi / 2]])
    frame = frame_of([(10.4, 11.9, 3), (10.6, 10, 3), (10, 12.1, 3), (10, 10, 0)])
    kept = countable(frame, NAMES, exclude=in_racks(racks, NAMES))
    assert kept.boxes[:, :2] == pytest.approx(np.array([[10.6, 10], [10, 12.1], [10, 10]]), abs=1e-5)
    assert len(countable(frame, NAMES, exclude=in_racks(np.zeros((0, 7)), NAMES))) == 4


def test_a_class_without_range_is_refused():
    with pytest.raises(ValueError, match="no range for animal"):
        countable(frame_of([]), ("animal",))
    assert len(CLASSES) == 10


def test_attributes_by_speed():
    names = ["car", "car", "bus", "bicycle", "pedestrian", "barrier", "truck"]
    speeds = np.array([[0.1, 0.1], [0.2, 0.1], [0, 0], [0, 5], [0, 0], [9, 0], [np.nan, np.nan]])
    assert attributes_by_speed(names, speeds) == [
        "vehicle.parked",
        "vehicle.moving",
        "vehicle.stopped",
        "cycle.with_rider",
        "pedestrian.standing",
        "",
        "vehicle.parked",
    ]


def test_samples_become_frames_of_the_wanted_classes():
    boxes = np.arange(21, dtype=np.float64).reshape(3, 7)
    sample = SampleBoxes(
        boxes,
        np.zeros((3, 2)),
        np.array(["bicycle", "animal", "car"]),
        np.array([0.1, 0.2, 0.3]),
        np.array(["cycle.with_rider", "", ""]),
    )
    frame = as_frame(sample, NAMES)
    assert frame.labels.tolist() == [3, 0] and frame.attributes.tolist() == [3, -1]
    assert frame.boxes[:, 0].tolist() == [0, 14]
    with pytest.raises(ValueError, match="attribute 'flying' is unknown; there are vehicle.moving"):
        as_frame(
            SampleBoxes(boxes, np.zeros((3, 2)), sample.names, sample.scores, np.array(["flying"] * 3)), NAMES
        )
