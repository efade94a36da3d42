"""Objects from labelled points: laws of single-linkage clustering."""

import numpy as np

from sparse3d.models.instances import cluster_instances

NAMES = ("road", "car", "person")


def blob(x: float, y: float, count: int = 40, size: float = 0.6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(-size, size, (count, 2)) + (x, y), rng.uniform(-1, 1, count)])


def test_apart_is_two_and_together_is_one():
    points = np.concatenate([blob(0, 0), blob(4, 0, seed=1), blob(0, 0, 30, seed=2)])
    labels = np.repeat([1, 1, 0], [40, 40, 30])
    found = cluster_instances(points, labels, NAMES, {"car": 0.7})
    assert found.tolist() == [1] * 40 + [2] * 40 + [0] * 30


def test_classes_do_not_meet():
    points = np.concatenate([blob(0, 0), blob(0, 0, seed=1)])
    found = cluster_instances(points, np.repeat([2, 1], 40), NAMES)
    assert set(found[:40]) & set(found[40:]) == set() and found[40:].min() == 1  # cars are counted first


def test_a_chain_is_one_object_and_height_does_not_part():
    x = np.arange(0, 30, 0.5)
    points = np.column_stack([x, np.zeros_like(x), 5 * (np.arange(len(x)) % 2)])
    labels = np.ones(len(x), np.int64)
    assert cluster_instances(points, labels, NAMES, {"car": 0.7}).max() == 1
    assert cluster_instances(points, labels, NAMES, {"car": 0.4}).max() == len(x)


def test_order_and_place_do_not_matter():
    points = np.concatenate([blob(i % 7 * 3.0, i // 7 * 3.0, 20, seed=i) for i in range(21)])
    labels = np.ones(len(points), np.int64)
    found = cluster_instances(points, labels, NAMES)
    order = np.random.default_rng(0).permutation(len(points))
    shuffled = cluster_instances(points[order], labels, NAMES)
    same = found[order][:, None] == found[order]
    np.testing.assert_array_equal(same, shuffled[:, None] == shuffled)
    assert found.max() == 21 and (np.diff(found[np.sort(np.unique(found, return_index=True)[1])]) == 1).all()


def test_nothing_and_a_single_point():
    assert len(cluster_instances(np.zeros((0, 4)), np.zeros(0, np.int64), NAMES)) == 0
    assert cluster_instances(np.zeros((1, 4)), np.array([2]), NAMES).tolist() == [1]
    assert cluster_instances(np.zeros((2, 4)), np.array([-1, 0]), NAMES).tolist() == [0, 0]
