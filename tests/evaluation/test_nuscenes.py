"""Centre-distance average precision and error terms: fixtures worked out by hand, and laws."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from sparse3d.evaluation import nuscenes
from sparse3d.evaluation.nuscenes import FrameBoxes, evaluate
from sparse3d.geometry.boxes import rotate_boxes_z

NAMES = ["car", "pedestrian", "barrier", "traffic_cone"]


def boxes_at(*centres, size=(4.0, 2.0, 1.5), yaw=0.0):
    return np.array([[x, y, 0, *size, yaw] for x, y in centres]).reshape(-1, 7)


def frame(boxes, label=0, scores=None, **columns):
    scores = None if scores is None else np.asarray(scores, dtype=float)
    return FrameBoxes(boxes, np.full(len(boxes), label), scores, **columns)


def random_truth(count=40, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        boxes = rng.uniform([-50, -50, -1, 1, 1, 1, -3], [50, 50, 1, 5, 3, 2, 3], (8, 7))
        frames.append(
            FrameBoxes(
                boxes, rng.integers(0, len(NAMES), 8), None, rng.normal(size=(8, 2)), rng.integers(0, 3, 8)
            )
        )
    return frames


def detections(truth, seed=1, noise=0.0):
    rng = np.random.default_rng(seed)
    return [
        FrameBoxes(
            f.boxes + noise * rng.normal(size=f.boxes.shape) * [1, 1, 1, 0, 0, 0, 1],
            f.labels,
            rng.uniform(0.1, 1, len(f.boxes)),
            f.velocities,
            f.attributes,
        )
        for f in truth
    ]


def test_one_of_two_cars_by_hand():
    # Recall ends at 1/2 with precision 1: positions 0.11 .. 0.50 are 40 of the 90, each (1 - 0.1) / 0.9 = 1.
    result = evaluate([frame(boxes_at((0, 0), (20, 0)))], [frame(boxes_at((0, 0)), scores=[0.9])], ["car"])
    assert result.classes[0].ap == pytest.approx((40 / 90,) * 4)
    assert result.mean_ap == pytest.approx(40 / 90)


def test_distances_by_hand():
    # 1.5 m away: false at 0.5 and 1 m, true at 2 and 4 m. A distance equal to the threshold is too far.
    truth = [frame(boxes_at((0, 0)))]
    far = evaluate(truth, [frame(boxes_at((0.9, 1.2)), scores=[1])], ["car"])
    assert far.classes[0].ap == pytest.approx((0, 0, 1, 1))
    border = evaluate(truth, [frame(boxes_at((0, 1)), scores=[1])], ["car"])
    assert border.classes[0].ap == pytest.approx((0, 0, 1, 1))


def test_a_false_positive_of_higher_score_by_hand():
    # Recall 0 at precision 0, then recall 1 at precision 1/2: between them the curve is a line, r / 2 at
    # recall r. Clipped: mean over r = 0.11 .. 1 of max(r/2 - 0.1, 0) / 0.9; r/2 > 0.1 from 0.21 on (at 0.20
    # it is 0). Sum over r = 0.21 .. 1.00 of r/2 - 0.1: 80 terms, mean of r 0.605, so 80 (0.3025 - 0.1) =
    # 16.2.
    results = [frame(boxes_at((0, 0), (30, 0)), scores=[0.5, 0.9])]
    result = evaluate([frame(boxes_at((0, 0)))], results, ["car"])
    assert result.classes[0].ap == pytest.approx((16.2 / 90 / 0.9,) * 4)


def test_errors_by_hand():
    # Moved by (0.3, 0.4): 0.5 m. Size 4 x 2 x 1.5 found as 2 x 2 x 1.5: half the volume, 1 - 1/2. Turned by
    # 0.2. Velocity off by (3, 4): 5 m/s. Attribute wrong.
    truth = frame(boxes_at((0, 0)), velocities=np.zeros((1, 2)), attributes=np.array([1]))
    found = frame(
        boxes_at((0.3, 0.4), size=(2, 2, 1.5), yaw=0.2),
        scores=[1],
        velocities=np.array([[3.0, 4.0]]),
        attributes=np.array([2]),
    )
    result = evaluate([truth], [found], ["car"])
    assert result.errors == pytest.approx({"ATE": 0.5, "ASE": 0.5, "AOE": 0.2, "AVE": 5, "AAE": 1})
    # AP at 0.5 m is 0 (0.5 is not nearer), 3/4 in all; 1 - error: 0.5, 0.5, 0.8, 0, 0.
    assert result.score_name == "NDS"
    assert result.score == pytest.approx((5 * 0.75 + 1.8) / 10)


def test_missing_terms_change_the_name_and_the_divisor():
    result = evaluate([frame(boxes_at((0, 0)))], [frame(boxes_at((0, 0)), scores=[1])], ["car"])
    assert result.score == pytest.approx(1) and set(result.errors) == {"ATE", "ASE", "AOE"}
    assert result.score_name == "detection score without AVE, AAE (not NDS)"


@pytest.mark.parametrize(("name", "error"), [("car", math.pi), ("barrier", 0), ("traffic_cone", None)])
def test_front_and_back_by_class(name, error):
    truth, found = frame(boxes_at((0, 0))), frame(boxes_at((0, 0), yaw=math.pi), scores=[1])
    errors = evaluate([truth], [found], [name]).classes[0].errors
    assert errors.get("AOE") == (None if error is None else pytest.approx(error, abs=1e-12))


def test_a_class_that_is_not_found_has_errors_of_one():
    result = evaluate([frame(boxes_at((0, 0)))], [frame(boxes_at(), scores=[])], ["car"])
    assert result.mean_ap == 0 and result.errors == {"ATE": 1, "ASE": 1, "AOE": 1}


def test_running_mean_of_errors_by_hand():
    # Two cars, scores 0.9 (0.2 m off) and 0.8 (0.4 m off). Recall 1/2 at 0.9, 1 at 0.8. Running means 0.2,
    # 0.3. Up to recall 1/2 the error is 0.2, then it goes in a line to 0.3: positions 0.11 .. 0.50: 40 x 0.2;
    # 0.51 .. 1: 50 x 0.2 plus 0.1 (k/50 summed over k = 1 .. 50 = 25.5) = 2.55.
    truth = [frame(boxes_at((0, 0), (20, 0)))]
    results = [frame(boxes_at((0.2, 0), (20.4, 0)), scores=[0.9, 0.8])]
    assert evaluate(truth, results, ["car"]).errors["ATE"] == pytest.approx((40 * 0.2 + 50 * 0.2 + 2.55) / 90)


def test_perfect_detections_are_perfect():
    truth = random_truth()
    result = evaluate(truth, detections(truth), NAMES)
    assert result.mean_ap == pytest.approx(1) and result.score == pytest.approx(1)
    assert set(result.classes[2].errors) == {"ATE", "ASE", "AOE"}
    assert set(result.classes[3].errors) == {"ATE", "ASE"}


def test_order_of_frames_and_shift_of_scores_do_not_matter():
    truth = random_truth()
    results = detections(truth, noise=0.7)
    expected = evaluate(truth, results, NAMES)
    assert 0.2 < expected.mean_ap < 0.95
    order = np.random.default_rng(3).permutation(len(truth))
    shuffled = evaluate([truth[i] for i in order], [results[i] for i in order], NAMES)
    lower = [FrameBoxes(f.boxes, f.labels, f.scores - 7, f.velocities, f.attributes) for f in results]
    for other in (shuffled, evaluate(truth, lower, NAMES)):
        assert other.mean_ap == pytest.approx(expected.mean_ap)
        assert other.errors == pytest.approx(expected.errors)


def test_finding_more_never_lowers_ap():
    truth = random_truth()
    results = detections(truth)
    missing = [
        FrameBoxes(f.boxes[2:], f.labels[2:], f.scores[2:], f.velocities[2:], f.attributes[2:])
        for f in results
    ]
    values = [evaluate(truth, results[:k] + missing[k:], NAMES).mean_ap for k in (0, 13, 27, 40)]
    assert values == sorted(values) and values[0] < values[-1] - 0.1


def test_a_false_positive_below_all_others_never_raises_ap_and_one_above_lowers_it():
    truth = random_truth()
    results = detections(truth, noise=0.5)
    base = evaluate(truth, results, NAMES).mean_ap
    for score, low, high in ((0.001, base - 0.01, base), (2.0, 0, base - 0.05)):
        more = [
            FrameBoxes(
                np.concatenate([f.boxes, f.boxes[:1] + [500, 0, 0, 0, 0, 0, 0]]),
                np.append(f.labels, f.labels[0]),
                np.append(f.scores, score),
                np.concatenate([f.velocities, f.velocities[:1]]),
                np.append(f.attributes, 0),
            )
            for f in results
        ]
        assert low <= evaluate(truth, more, NAMES).mean_ap <= high


def test_turning_and_moving_the_world_changes_nothing():
    def moved(frames):
        turn = np.array([[math.cos(2), math.sin(2)], [-math.sin(2), math.cos(2)]])
        out = []
        for f in frames:
            boxes = rotate_boxes_z(f.boxes, 2.0) + [300, -70, 5, 0, 0, 0, 0]
            out.append(FrameBoxes(boxes, f.labels, f.scores, f.velocities @ turn, f.attributes))
        return out

    truth = random_truth()
    results = [
        FrameBoxes(f.boxes, f.labels, f.scores, f.velocities + [0.5, 0], f.attributes)
        for f in detections(truth, noise=0.5)
    ]
    here, there = evaluate(truth, results, NAMES), evaluate(moved(truth), moved(results), NAMES)
    assert there.mean_ap == pytest.approx(here.mean_ap) and there.errors == pytest.approx(here.errors)
    assert here.errors["AVE"] == pytest.approx(0.5)


def test_of_equal_scores_the_last_is_first():
    # Both detections score 0.5; the later row stands on the car, the earlier one nowhere.
    truth = [frame(boxes_at((0, 0)))]
    assert evaluate(truth, [frame(boxes_at((50, 0), (0, 0)), scores=[0.5, 0.5])], ["car"]).mean_ap > 0.99
    assert evaluate(truth, [frame(boxes_at((0, 0), (50, 0)), scores=[0.5, 0.5])], ["car"]).mean_ap < 0.5


def test_a_second_detection_of_the_same_car_is_false():
    once = evaluate(
        [frame(boxes_at((0, 0), (20, 0)))], [frame(boxes_at((0, 0), (20, 0)), scores=[0.9, 0.5])], ["car"]
    )
    results = [frame(boxes_at((0, 0), (0, 0), (20, 0)), scores=[0.9, 0.8, 0.5])]
    twice = evaluate([frame(boxes_at((0, 0), (20, 0)))], results, ["car"])
    assert once.mean_ap == pytest.approx(1) and twice.mean_ap < 0.9


def test_a_class_without_ground_truth_is_left_out():
    truth = [frame(boxes_at((0, 0)))]
    result = evaluate(truth, [frame(boxes_at((0, 0)), scores=[1])], ["car", "pedestrian"])
    assert result.mean_ap == pytest.approx(1)
    assert math.isnan(result.classes[1].mean_ap)
    tree = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert tree["mAP"] == pytest.approx(1) and tree["classes"][1]["ap"] == [None] * 4
    strict = evaluate(truth, [frame(boxes_at((0, 0)), scores=[1])], ["car", "pedestrian"], absent="zero")
    assert strict.mean_ap == pytest.approx(0.5)
    assert strict.errors == pytest.approx({"ATE": 0.5, "ASE": 0.5, "AOE": 0.5})
    console = Console(width=160, file=io.StringIO())
    console.print(result.table())
    assert [line.count(" - ") for line in console.file.getvalue().splitlines() if "pedestrian" in line] == [8]


def test_nothing_at_all():
    result = evaluate([], [], ["car"])
    assert math.isnan(result.mean_ap) and math.isnan(result.score)


def test_errors_name_what_is_wrong():
    truth = frame(boxes_at((0, 0)))
    with pytest.raises(ValueError, match="0 result frames for 1"):
        evaluate([truth], [], ["car"])
    with pytest.raises(ValueError, match=r"results\[0\] has no scores"):
        evaluate([truth], [truth], ["car"])
    with pytest.raises(ValueError, match=r"velocities has shape \(1, 3\), expected \(1, 2\)"):
        frame(boxes_at((0, 0)), velocities=np.zeros((1, 3)))
    assert nuscenes.ERROR_DISTANCE in nuscenes.DISTANCES
