"""mIoU and panoptic quality on cases worked out by hand, and laws."""

import numpy as np
import pytest

from sparse3d.evaluation.panoptic import PanopticCounts
from sparse3d.evaluation.segmentation import Confusion
from sparse3d.frames import IGNORE


def test_iou_by_hand():
    confusion = Confusion(4)
    #           truth   0  0  0  1  1  2  ignored
    truth = np.array([0, 0, 0, 1, 1, 2, IGNORE])
    found = np.array([0, 0, 1, 1, 2, IGNORE, 0])
    confusion.add(truth, found)
    result = confusion.result(["a", "b", "c", "d"])
    # a: TP 2, FN 1. b: TP 1, FN 1, FP 1. c: FN 1 (predicted as nothing), FP 1. d: nowhere.
    np.testing.assert_allclose(result.iou, [2 / 3, 1 / 3, 0, np.nan])
    assert result.mean_iou == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert result.accuracy == pytest.approx(3 / 6)
    assert result.points.tolist() == [3, 2, 1, 0]
    assert result.to_dict()["IoU"]["d"] is None


def test_scans_add_up_to_one_matrix():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(-1, 5, (2, 1000))
    whole, parts = Confusion(5), Confusion(5)
    whole.add(truth, found)
    for rows in np.array_split(np.arange(1000), 7):
        parts.add(truth[rows], found[rows])
    np.testing.assert_array_equal(whole.counts, parts.counts)


def test_nothing_at_all_is_nan_and_wrong_input_an_error():
    confusion = Confusion(2)
    confusion.add(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert np.isnan(confusion.result(["a", "b"]).mean_iou)
    assert np.isnan(confusion.result(["a", "b"]).accuracy)
    with pytest.raises(ValueError, match=r"\(2,\) true labels for \(3,\) predicted"):
        confusion.add(np.zeros(2, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"predicted lies in \[0, 2\], expected labels below 2"):
        confusion.add(np.zeros(2, np.int64), np.array([0, 2]))


NAMES = ["grass", "sky", "person", "dog"]


def points(*rows: tuple[int, int, int, int, int]) -> list[np.ndarray]:
    """Rows (count, true label, true instance, label, instance) -> the four arrays of `add`."""
    return [np.repeat([row[column] for row in rows], [row[0] for row in rows]) for column in range(1, 5)]


def test_panoptic_quality_by_hand():
    """Grass and sky each lose 10 of 50 points to the other; a dog is called a person; three people, of whom
    two are found: one exactly, and one of 150 points with 50 of its neighbour's."""
    counts = PanopticCounts(NAMES, {"person", "dog"}, min_points=1)
    counts.add(
        *points(
            (50, IGNORE, 0, 0, 0),
            (40, 0, 0, 0, 0),
            (10, 0, 0, 1, 0),
            (40, 1, 0, 1, 0),
            (10, 1, 0, 0, 0),
            (50, 3, 22, 2, 35),
            (150, 2, 33, 2, 8),
            (50, 2, 42, 2, 8),
            (100, 2, 11, 2, 95),
        )
    )
    result = counts.result()
    # grass: IoU 40 / 60. person: IoU 150 / 200 and 1, one true person is missed and one found is the dog.
    np.testing.assert_allclose(result.sq, [2 / 3, 2 / 3, 0.875, 0])
    np.testing.assert_allclose(result.rq, [1, 1, 2 / (2 + 0.5 + 0.5), 0])
    np.testing.assert_allclose(result.pq, [2 / 3, 2 / 3, 0.875 * 2 / 3, 0])
    means = result.means()
    assert means["PQ"] == pytest.approx(0.47916666666666663)
    assert means["SQ"] == pytest.approx(0.5520833333333333)
    assert means["RQ"] == pytest.approx(0.6666666666666666)
    assert means["mIoU"] == pytest.approx(0.5476190476190476)
    assert means["PQ_Th"] == pytest.approx(0.875 / 3)
    # The dagger takes the IoU of stuff, which for these two is their PQ; 300 of 350 person points are right.
    assert means["PQ_dagger"] == pytest.approx(means["PQ"])


def test_small_segments_are_forgiven_but_may_match():
    counts = PanopticCounts(["car"], {"car"}, min_points=50)
    counts.add(
        *points(
            (49, 0, 1, IGNORE, 0),  # a small object missed
            (50, 0, 2, IGNORE, 0),  # an object missed
            (20, 0, 3, 0, 9),  # a small one found
        )
    )
    assert (counts.matched[0], counts.false_negative[0], counts.false_positive[0]) == (1, 1, 0)


def test_the_dagger_forgives_stuff_below_half():
    """A stuff class of IoU 0.4 has PQ 0 and counts as 0.4 in PQ-dagger."""
    counts = PanopticCounts(["road", "car"], {"car"}, min_points=1)
    counts.add(*points((40, 0, 0, 0, 0), (60, 0, 0, IGNORE, 0), (10, 1, 1, 1, 1)))
    means = counts.result().means()
    assert means["PQ"] == pytest.approx(0.5) and means["PQ_dagger"] == pytest.approx(0.7)


def test_exactly_half_is_no_match():
    counts = PanopticCounts(["car"], {"car"}, min_points=1)
    counts.add(*points((10, 0, 1, 0, 1), (10, 0, 1, IGNORE, 0)))
    assert (counts.matched[0], counts.false_positive[0], counts.false_negative[0]) == (0, 1, 1)


def test_stuff_has_one_segment_and_names_of_instances_do_not_matter():
    rng = np.random.default_rng(1)
    true_labels, labels = rng.integers(0, 3, (2, 4000))
    labels = np.where(rng.random(4000) < 0.8, true_labels, labels)
    true_instances = rng.integers(1, 5, 4000)
    instances = np.where(rng.random(4000) < 0.9, true_instances, 7)
    things = {"b", "c"}
    one, other = (PanopticCounts(["a", "b", "c"], things, min_points=5) for _ in range(2))
    one.add(true_labels, true_instances, labels, instances)
    renamed = np.array([0, 900, 3, 77, 12, 5, 6, 1 << 20])
    other.add(true_labels, true_instances + 100, labels, renamed[instances])
    np.testing.assert_array_equal(one.result().pq, other.result().pq)
    assert one.matched[0] + one.false_negative[0] == 1  # stuff, whatever its instances
    assert one.matched[1] == 4 and one.false_positive[1] == 1  # instance 7 alone has no partner


def test_against_a_plain_loop():
    """Segments compared pair by pair, as the definition reads."""
    rng = np.random.default_rng(2)
    true_labels, true_instances = rng.integers(-1, 3, 3000), rng.integers(0, 4, 3000)
    noise = rng.random(3000) < 0.3
    labels = np.where(noise, rng.integers(-1, 3, 3000), true_labels)
    instances = np.where(rng.random(3000) < 0.2, rng.integers(0, 4, 3000), true_instances)
    counts = PanopticCounts(["a", "b", "c"], {"b", "c"}, min_points=40)
    counts.add(true_labels, true_instances, labels, instances)

    def segments(classes: np.ndarray, ids: np.ndarray) -> dict[tuple[int, int], set[int]]:
        found: dict[tuple[int, int], set[int]] = {}
        for p in range(3000):
            if true_labels[p] != IGNORE and classes[p] != IGNORE:
                key = (int(classes[p]), int(ids[p]) if classes[p] else 0)
                found.setdefault(key, set()).add(p)
        return found

    truth, found = segments(true_labels, true_instances), segments(labels, instances)
    matches = [
        (t, f, len(truth[t] & found[f]) / len(truth[t] | found[f]))
        for t in truth
        for f in found
        if t[0] == f[0] and 2 * len(truth[t] & found[f]) > len(truth[t] | found[f])
    ]
    for label in range(3):
        mine = [m for m in matches if m[0][0] == label]
        assert counts.matched[label] == len(mine) > 0
        assert counts.overlap[label] == pytest.approx(sum(m[2] for m in mine))
        taken = {m[1] for m in mine}
        missed = [f for f in found if f[0] == label and len(found[f]) >= 40 and f not in taken]
        assert counts.false_positive[label] == len(missed)
