"""The slow KITTI evaluation on a case worked out by hand."""

import pytest

from tests.evaluation.scenes import objects
from tests.oracles.kitti_ap import average_precision


@pytest.mark.parametrize("metric", ["2d", "aos", "bev", "3d"])
def test_two_cars_one_false_positive_by_hand(metric):
    # Thresholds 0.9 (precision 1) and 0.7 (2 of 3): positions [1, 2/3, 0, ...].
    truth = objects(("Car", 0, 10), ("Car", 10, 10))
    results = objects(("Car", 0, 10), ("Car", 10, 10), ("Car", 50, 50), scores=[0.9, 0.7, 0.8])
    expected = (100 * (2 / 3) / 40, 100 / 11)
    assert average_precision([truth], [results], "Car", metric, "easy", 0.7) == pytest.approx(expected)
