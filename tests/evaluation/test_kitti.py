"""KITTI average precision: fixtures worked out by hand, and laws."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from sparse3d.evaluation import kitti, kitti_counts, kitti_frames
from tests.evaluation.scenes import changed, crowded, detected, objects, random_frames
from tests.oracles.kitti_ap import average_precision

STRICT = [("2d", "strict"), ("aos", "strict"), ("bev", "strict"), ("3d", "strict")]
METRICS = [*STRICT, ("bev", "loose"), ("3d", "loose")]
CLASSES = ("Car", "Pedestrian", "Cyclist")


def all_values(result, recall="R40"):
    return {
        (name, metric, overlap, difficulty.name): result.value(name, metric, difficulty.name, recall, overlap)
        for name in CLASSES
        for metric, overlap in METRICS
        for difficulty in kitti.DIFFICULTIES
    }


def one_frame(truth, results):
    return kitti.evaluate([truth], [results], ["Car"])


# ---- by hand ----


def test_thresholds_by_hand():
    # 4 boxes, 5 positions (recalls 0, 1/4 .. 1), true positives 0.9 0.8 0.7; recall after each: 1/4, 1/2,
    # 3/4. i = 0, wanted 0: the next recall, 1/2, is no closer than 1/4: take 0.9, wanted becomes 1/4. i = 1:
    # 3/4 - 1/4 = 1/2 > 1/4 - 1/2: take 0.8. i = 2: the last one is always taken.
    got = kitti_counts.recall_thresholds(np.array([0.8, 0.7, 0.9]), 4, 5)
    assert got.tolist() == [0.9, 0.8, 0.7]


def test_thresholds_skip_where_boxes_are_many():
    # 8 boxes, 3 positions (0, 1/2, 1), all found with 0.8 .. 0.1; recall after i is (i + 1)/8.
    # i = 0: taken, wanted 1/2. i = 1: 3/8 - 1/2 < 1/2 - 2/8: skipped. i = 2: 4/8 - 1/2 = 0 < 1/8: skipped.
    # i = 3: 5/8 - 1/2 = 1/8 > 0: taken (0.5), wanted 1. i = 4 .. 6: skipped. i = 7: the last, taken (0.1).
    scores = np.arange(8, 0, -1) / 10
    assert kitti_counts.recall_thresholds(scores, 8, 3).tolist() == [0.8, 0.5, 0.1]


def test_two_cars_one_false_positive_by_hand():
    # Scores 0.9 true, 0.8 false, 0.7 true. Thresholds: 0.9 (1 true, 0 false: precision 1), 0.7 (2 true, 1
    # false: 2/3). Positions [1, 2/3, 0, 0, ...]. R40 leaves position 0 out: 2/3 / 40; R11 takes every fourth:
    # 1 / 11.
    truth = objects(("Car", 0, 10), ("Car", 10, 10))
    result = one_frame(
        truth, objects(("Car", 0, 10), ("Car", 10, 10), ("Car", 50, 50), scores=[0.9, 0.7, 0.8])
    )
    for metric, _ in STRICT:
        assert result.value("Car", metric) == pytest.approx(100 * (2 / 3) / 40)
        assert result.value("Car", metric, recall="R11") == pytest.approx(100 / 11)


def test_fifty_cars_half_found_by_hand():
    # 50 frames with one car each, found in 25: recall ends at 1/2 = 20/40 with precision 1 all the way. The
    # sampling takes the 25 recalls i/50 that come closest to 0, 1/40 .. : positions 0 .. 20 are 1, the rest
    # 0.
    truth = [objects(("Car", 0, 10)) for _ in range(50)]
    results = [objects(("Car", 0, 10), scores=[1 - i / 100]) if i < 25 else objects() for i in range(50)]
    result = kitti.evaluate(truth, results, ["Car"])
    assert result.value("Car") == pytest.approx(100 * 20 / 40)
    assert result.value("Car", recall="R11") == pytest.approx(100 * 6 / 11)


def test_shifted_car_by_hand():
    # Moved by 0.5 m along its length of 4 m: IoU 3.5 / 4.5 = 0.778 > 0.7. By 1 m: 3 / 5, loose only. By 1.5
    # m: 2.5 / 5.5.
    truth = objects(("Car", 0, 10))
    for shift, strict, loose in ((0.5, 100 / 11, 100 / 11), (1.0, 0, 100 / 11), (1.5, 0, 0)):
        result = one_frame(truth, objects(("Car", shift, 10)))
        for metric in ("bev", "3d"):
            assert result.value("Car", metric, recall="R11") == pytest.approx(strict)
            assert result.value("Car", metric, recall="R11", overlap="loose") == pytest.approx(loose)
        assert result.value("Car", "2d", recall="R11") == pytest.approx(100 / 11)


def test_overlap_is_taken_in_the_camera_frame():
    # The box reaches from y - h to y: 0.5 m higher (smaller y) it shares 1.0 of 1.5 m, 1 / 2; the x-z plane
    # does not see it. A quarter turn of rotation_y leaves 1.6 x 1.6 of 4 x 1.6: 2.56 / (12.8 - 2.56) = 0.25.
    truth = objects(("Car", 3, 10))
    higher = changed(truth, locations=[[3, 1.2, 10]])
    turned = changed(truth, rotation_y=[math.pi / 2])
    frames = kitti_frames.join_frames([truth, truth], [higher, turned])
    assert frames.overlap_bev == pytest.approx([1, 0.25])
    assert frames.overlap_3d == pytest.approx([0.5, 0.25])


def test_heights_differ_upwards_from_the_ground():
    # Same bottom, 1.5 m and 3 m high: shared 1.5 of 3.
    truth = objects(("Car", 3, 10))
    tall = changed(truth, dimensions=[[3, 1.6, 4]])
    assert kitti_frames.join_frames([truth], [tall]).overlap_3d == pytest.approx([0.5])


def test_rotation_y_turns_from_x_towards_minus_z():
    # At rotation_y = pi/4 a car's front points along (x, z) = (1, -1): a small box 1.5 m that way lies inside
    # of it, the same box 1.5 m along (1, 1) does not.
    d = 1.5 / math.sqrt(2)
    truth = objects(("Car", 0, 10), rotation_y=[math.pi / 4])
    ahead, beside = (
        objects(("Car", d, 10 + z), dimensions=[[1.5, 0.1, 0.1]], rotation_y=[math.pi / 4]) for z in (-d, d)
    )
    frames = kitti_frames.join_frames([truth, truth], [ahead, beside])
    assert frames.overlap_bev == pytest.approx([0.01 / 6.4, 0])


def test_image_overlap_by_hand():
    # 100 x 100 px moved by 50: 5000 / 15000 over the union; over the detection's own area, for a region, 1/2.
    truth = objects(("Car", 0, 10), ("DontCare", 0, 0), boxes_image=[[0, 0, 100, 100]] * 2)
    results = objects(("Car", 0, 10), boxes_image=[[50, 0, 150, 100]])
    assert kitti_frames.join_frames([truth], [results]).overlap_image == pytest.approx([1 / 3, 1 / 2])


def test_difficulties_by_hand():
    # The limits: truncation and occlusion at the limit belong to the level, a height of exactly 40 or 25 px
    # does not.
    def car(height=100.0, occluded=0, truncated=0.0):
        image = [[0, 0, 100, height]]
        return objects(("Car", 0, 10), boxes_image=image, occluded=[occluded], truncated=[truncated])

    easy = [car(), car(truncated=0.15)]
    moderate = [car(height=40), car(height=25.5), car(occluded=1), car(truncated=0.3)]
    hard = [car(occluded=2), car(truncated=0.5)]
    never = [car(height=25), car(occluded=3), car(truncated=0.51)]
    truth = easy + moderate + hard + never
    result = kitti.evaluate(truth, truth, ["Car"])
    assert {row.difficulty: row.count for row in result.rows} == {"easy": 2, "moderate": 6, "hard": 8}


def test_aos_by_hand():
    # Off by 60 degrees: (1 + 1/2) / 2 = 3/4.
    truth = [objects(("Car", 0, 10)) for _ in range(50)]
    results = [changed(frame, alpha=[math.pi / 3], scores=[1 - i / 99]) for i, frame in enumerate(truth)]
    result = kitti.evaluate(truth, results, ["Car"])
    assert result.value("Car", "2d") == pytest.approx(100)
    assert result.value("Car", "aos") == pytest.approx(75)


# ---- who is ignored ----


def with_extra(label, detection, *, label_image=None, detection_image=None):
    """Fifty frames with a car that is found; in each one more label and one more detection, of score 1.5."""
    car, first = ("Car", 0, 10), [0, 0, 100, 100]
    truth, results = [], []
    for i in range(50):
        images = {} if label_image is None else {"boxes_image": [first, label_image]}
        truth.append(objects(car, *label, **images))
        images = {} if detection_image is None else {"boxes_image": [first, detection_image]}
        results.append(objects(car, *detection, scores=[1 - i / 99, 1.5], **images))
    return kitti.evaluate(truth, results, ["Car"])


def test_a_detection_on_a_dont_care_region_is_no_false_positive_in_the_image():
    # The region is twice as wide as the detection: all of the detection's own area, but half of the union.
    result = with_extra([("DontCare", -1000, -1000)], [("Car", 50, 50)], label_image=[200, 0, 400, 100])
    assert result.value("Car", "2d") == pytest.approx(100)
    # In 3-D the benchmark knows no region: all 50 false detections outrank the true ones; at full recall 50
    # of 100.
    assert result.value("Car", "3d") == pytest.approx(50)


def test_a_detection_beside_a_dont_care_region_is_a_false_positive():
    # 30 of its 100 px lie inside.
    result = with_extra([("DontCare", -1000, -1000)], [("Car", 50, 50)], label_image=[270, 0, 400, 100])
    assert result.value("Car", "2d") == pytest.approx(50)


@pytest.mark.parametrize(("neighbour", "expected"), [("Van", 100), ("Truck", 50)])
def test_only_the_neighbour_class_may_be_mistaken(neighbour, expected):
    result = with_extra([(neighbour, 50, 50)], [("Car", 50, 50)])
    for metric in ("2d", "bev", "3d"):
        assert result.value("Car", metric) == pytest.approx(expected)


def test_a_sitting_person_is_no_pedestrian_and_no_false_positive():
    truth = [objects(("Pedestrian", 0, 10), ("Person_sitting", 9, 9)) for _ in range(50)]
    results = [changed(f, names=["Pedestrian"] * 2, scores=[1 - i / 99, 1.5]) for i, f in enumerate(truth)]
    result = kitti.evaluate(truth, results, ["Pedestrian"])
    assert result.value("Pedestrian") == pytest.approx(100)
    assert all(row.count == 50 for row in result.rows)


def test_detections_below_the_least_height_are_ignored_per_difficulty():
    # 30 px: too small for easy (40), not for moderate (25).
    result = with_extra([], [("Car", 50, 50)], detection_image=[200, 0, 300, 30])
    assert result.value("Car", difficulty="easy") == pytest.approx(100)
    assert result.value("Car", difficulty="moderate") == pytest.approx(50)


def test_a_detection_that_is_large_enough_is_preferred_to_an_ignored_one():
    # An ignored detection comes first and overlaps as much; the car must still go to the valid one, else the
    # recall would be lost at every threshold.
    truth = [objects(("Car", 0, 10)) for _ in range(50)]
    images = [[0, 0, 100, 20], [0, 0, 100, 100]]
    results = [
        objects(("Car", 0, 10), ("Car", 0, 10), boxes_image=images, scores=[0.3 - i / 999, 1 - i / 99])
        for i in range(50)
    ]
    assert kitti.evaluate(truth, results, ["Car"]).value("Car") == pytest.approx(100)


def test_a_second_detection_of_the_same_car_is_false():
    truth = [objects(("Car", 0, 10)) for _ in range(50)]
    twice = [objects(("Car", 0, 10), ("Car", 0, 10), scores=[1.0, 1.0]) for _ in truth]
    assert kitti.evaluate(truth, twice, ["Car"]).value("Car") == pytest.approx(50)


# ---- laws ----


@pytest.fixture(scope="module")
def frames():
    return random_frames(160)


@pytest.fixture(scope="module")
def noisy(frames):
    return detected(frames, seed=3, noise=0.1, missed=0.2)


def test_equals_the_slow_evaluation():
    truth = random_frames(30, seed=8)
    results = crowded(truth, seed=9)
    result = kitti.evaluate(truth, results)
    for row in result.rows:
        if row.count:
            slow = average_precision(
                truth, results, row.class_name, row.metric, row.difficulty, row.min_overlap
            )
            assert (row.r40, row.r11) == pytest.approx(slow), row


def test_perfect_detections_are_perfect(frames):
    result = kitti.evaluate(frames, detected(frames))
    assert min(row.count for row in result.rows) >= kitti.POSITIONS
    for recall in ("R40", "R11"):
        values = all_values(result, recall)
        assert values == pytest.approx(dict.fromkeys(values, 100.0))


@pytest.mark.parametrize("count", [1, 2, 7, 40, 41, 42, 60, 81, 200])
def test_perfect_detections_of_few_boxes_reach_the_stated_limit(count):
    truth = [objects(("Car", 0, 10)) for _ in range(count)]
    results = [changed(frame, scores=[1 - i / 999]) for i, frame in enumerate(truth)]
    limit = 100 * min(count - 1, 40) / 40
    assert kitti.evaluate(truth, results, ["Car"]).value("Car") == pytest.approx(limit)


def test_order_of_frames_does_not_matter(frames, noisy):
    order = np.random.default_rng(0).permutation(len(frames))
    shuffled = kitti.evaluate([frames[i] for i in order], [noisy[i] for i in order])
    assert all_values(shuffled) == pytest.approx(all_values(kitti.evaluate(frames, noisy)))


@pytest.mark.parametrize(
    "change", [lambda s: s - 5, lambda s: 3 * s, np.exp], ids=["shift", "stretch", "exp"]
)
def test_only_the_order_of_scores_matters(frames, noisy, change):
    other = [changed(frame, scores=change(frame.scores)) for frame in noisy]
    expected = all_values(kitti.evaluate(frames, noisy))
    assert all_values(kitti.evaluate(frames, other)) == expected
    assert 5 < expected["Car", "3d", "strict", "moderate"] < 95


def test_order_of_detections_within_a_frame_does_not_matter(frames, noisy):
    backwards = [frame.select(np.arange(len(frame))[::-1]) for frame in noisy]
    expected = all_values(kitti.evaluate(frames, noisy))
    assert all_values(kitti.evaluate(frames, backwards)) == pytest.approx(expected)


def test_finding_more_never_lowers_ap():
    # Without false positives every precision is 1: AP is the recall, and grows with every box found.
    truth = random_frames(120, seed=4)
    results = detected(truth, seed=5)
    missing = [frame.select(np.arange(0, len(frame), 3)) for frame in results]
    before = all_values(kitti.evaluate(truth, missing))
    for found in (30, 60, 120):
        now = all_values(kitti.evaluate(truth, results[:found] + missing[found:]))
        assert all(now[key] >= before[key] - 1e-9 for key in now)
        assert any(now[key] > before[key] + 1 for key in now)
        before = now


def test_false_positives_never_raise_ap(frames):
    results = detected(frames, seed=6, missed=0.2)
    clean = all_values(kitti.evaluate(frames, results))
    rng = np.random.default_rng(7)
    cluttered = []
    for frame in results:
        extra = objects(("Car", 90, 90), ("Pedestrian", 95, 90), scores=rng.uniform(0, 1, 2))
        extra = changed(extra, boxes_image=extra.boxes_image + [5000, 0, 5000, 0])
        both = {key: np.concatenate([getattr(frame, key), getattr(extra, key)]) for key in vars(extra)}
        cluttered.append(changed(extra, **both))
    dirty = all_values(kitti.evaluate(frames, cluttered))
    assert all(dirty[key] <= clean[key] + 1e-9 for key in clean)
    assert dirty["Car", "3d", "strict", "moderate"] < clean["Car", "3d", "strict", "moderate"] - 1


def test_a_heading_flipped_by_half_a_turn_keeps_3d_ap_and_ends_aos(frames):
    flipped = [changed(f, rotation_y=f.rotation_y + np.pi, alpha=f.alpha + np.pi) for f in detected(frames)]
    result = kitti.evaluate(frames, flipped)
    for name in CLASSES:
        assert result.value(name, "3d") == pytest.approx(100)
        assert result.value(name, "aos") == pytest.approx(0, abs=1e-9)


def test_counts_do_not_depend_on_threads(frames, noisy):
    import numba

    available = numba.get_num_threads()
    expected = all_values(kitti.evaluate(frames, noisy))
    try:
        numba.set_num_threads(1)
        assert all_values(kitti.evaluate(frames, noisy)) == expected
    finally:
        numba.set_num_threads(available)


def test_frames_without_anything(frames):
    empty = objects()
    nothing_found = kitti.evaluate(frames, [empty] * len(frames))
    assert set(all_values(nothing_found).values()) == {0.0}
    nothing_there = kitti.evaluate([empty], [frames[0]])
    assert all(math.isnan(value) for value in all_values(nothing_there).values())
    assert math.isnan(nothing_there.mean())
    assert kitti.evaluate([], []).frames == 0


# ---- what is shown ----


def test_a_class_without_ground_truth_is_shown_as_a_dash():
    truth = objects(("Car", 0, 10))
    result = kitti.evaluate([truth], [truth], ["Car", "Cyclist"])
    assert math.isnan(result.value("Cyclist"))
    assert result.mean(recall="R11") == pytest.approx(100 / 11)
    console = Console(width=160, file=io.StringIO())
    console.print(result.table())
    text = console.file.getvalue()
    assert [line.count(" - ") for line in text.splitlines() if "Cyclist" in line] == [6] * 6
    assert "fewer than 41" in text
    rows = json.loads(json.dumps(result.to_dict(), allow_nan=False))["rows"]
    assert {row["r40"] for row in rows if row["class_name"] == "Cyclist"} == {None}


def test_unknown_alpha_leaves_only_aos_undefined():
    truth = objects(("Car", 0, 10))
    result = one_frame(truth, changed(truth, alpha=[-10.0]))
    assert math.isnan(result.value("Car", "aos")) and result.value("Car", recall="R11") > 0


def test_names_without_case_and_other_classes():
    result = one_frame(objects(("car", 0, 10)), objects(("CAR", 0, 10), ("Tree", 9, 9)))
    assert result.value("Car", recall="R11") == pytest.approx(100 / 11)


def test_errors_name_what_is_wrong():
    truth = objects(("Car", 0, 10))
    with pytest.raises(ValueError, match="class 'Bus' has no overlap rule; known are Car"):
        kitti.evaluate([truth], [truth], ["Bus"])
    with pytest.raises(ValueError, match="1 result frames for 2"):
        kitti.evaluate([truth, truth], [truth])
    with pytest.raises(ValueError, match=r"results\[0\] has a score that is not finite"):
        kitti.evaluate([truth], [changed(truth, scores=[math.nan])])
    result = one_frame(truth, truth)
    with pytest.raises(ValueError, match="classes are Car"):
        result.value("Cars")
    with pytest.raises(ValueError, match=r"loose \(bev, 3d\)"):
        result.value("Car", "2d", overlap="loose")
    with pytest.raises(ValueError, match="expected 'R40' or 'R11'"):
        result.value("Car", recall="R12")
