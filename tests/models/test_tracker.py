"""The tracker: cases by hand, and laws about moving sensors, order and gaps."""

import math

import numpy as np
import pytest
import torch

from sparse3d.errors import ConfigError
from sparse3d.frames import Detections
from sparse3d.geometry.rigid import inverse, rigid, rotation_from_euler, transform_points
from sparse3d.models.tracker import REACH, Tracker, TrackerConfig

CLASSES = ("Car", "Pedestrian")


def found(places, labels=None, scores=None, velocities=None, queries=None) -> Detections:
    """Boxes of one metre at (x, y); the first has the highest score unless `scores` say otherwise."""
    boxes = torch.zeros(len(places), 7)
    boxes[:, :2] = torch.tensor(places, dtype=torch.float32).reshape(-1, 2)
    boxes[:, 3:6] = 1.0
    return Detections(
        boxes,
        torch.tensor(scores) if scores else torch.linspace(0.9, 0.8, len(places)),
        torch.tensor(labels) if labels else torch.zeros(len(places), dtype=torch.long),
        None if velocities is None else torch.tensor(velocities, dtype=torch.float32),
        None if queries is None else torch.tensor(queries, dtype=torch.float32).reshape(-1, 2),
    )


def tracker(**settings) -> Tracker:
    return Tracker(TrackerConfig(CLASSES, **settings))


def test_objects_keep_their_numbers_while_they_move():
    follow = tracker()
    numbers = [
        follow.update(found([(10 + 0.5 * t, 0), (20 - 0.5 * t, 3)]), 0.1 * t).ids.tolist() for t in range(6)
    ]
    assert numbers == [[1, 2]] * 6


def test_velocity_of_the_network_decides_between_two_partners():
    """One track at 0. Moved back by its 6 m/s the detection at 3 stands there; the one at 1 came from 3."""
    places, velocities = [(1.0, 0.0), (3.0, 0.0)], [(-4, 0), (6, 0)]
    for told, want in ((velocities, [2, 1]), (None, [1, 2])):
        follow = tracker(max_distances=(2.5, 1.0))
        follow.update(found([(0.0, 0.0)]), 0.0)
        assert follow.update(found(places, velocities=told), 0.5).ids.tolist() == want


def test_queries_decide_between_two_partners_where_they_are_asked():
    """Two objects whose boxes jump past each other while the voxels that find them stay."""
    first = found([(0.0, 0), (2.0, 0)], queries=[(-0.5, 0), (2.5, 0)])
    then = found([(1.8, 0), (0.2, 0)], queries=[(-0.5, 0), (2.5, 0)])
    for associate, want in (("centre", [2, 1]), ("query", [1, 2])):
        follow = tracker(associate=associate)
        assert follow.update(first, 0.0).ids.tolist() == [1, 2]
        told = follow.update(then, 0.5)
        assert told.ids.tolist() == want
        # A velocity is that of the object, whatever it is told by: its box went 1.8 m, or 0.2 m, in 0.5 s.
        step = 1.8 if associate == "query" else -0.2
        np.testing.assert_allclose(told.velocities[0], [2 * step, 0], rtol=1e-5)


def test_reach_and_velocities_hold_for_queries_too():
    """A query that stands still is moved back by the velocity of its object: 6 m/s for half a second."""
    for velocity, same in ((0.0, True), (6.0, True), (9.0, False)):
        follow = tracker(associate="query", max_distances=(4.0, 1.0))
        follow.update(found([(0.0, 0)], queries=[(0.0, 0)]), 0.0)
        seen = found([(50.0, 0)], queries=[(0.0, 0)], velocities=[(velocity, 0)])
        assert follow.update(seen, 0.5).ids.tolist() == ([1] if same else [2])


def test_queries_that_lie_in_the_centres_track_as_the_centres_do():
    """From a sensor that drives and turns, its own axes tilted."""
    rng = np.random.default_rng(3)
    start, speed = rng.uniform(-20, 20, (15, 2)), rng.uniform(-3, 3, (15, 2))
    reach = {"max_distances": (1.0, 1.0)}
    by_centre, by_query = tracker(**reach), tracker(**reach, associate="query")
    for t in range(6):
        places = start + speed * (0.2 * t) + rng.normal(0, 0.4, start.shape)
        pose = rigid(rotation_from_euler(0.1, -0.2, 0.3 * t), np.array([2.0 * t, -t, 0.5]))
        local = transform_points(np.column_stack([places, np.zeros(15)]), inverse(pose))[:, :2].tolist()
        seen = found(local, queries=local)
        a, b = by_centre.update(seen, 0.2 * t, pose), by_query.update(seen, 0.2 * t, pose)
        assert a.ids.tolist() == b.ids.tolist() and len(a.ids) == 15
    assert max(a.ids) > 15, "some objects were lost, so that the numbers say something"


def test_a_detector_without_queries_cannot_be_followed_by_them():
    with pytest.raises(ValueError, match="this detector tells none"):
        tracker(associate="query").update(found([(0, 0)]), 0.0)


def test_sightings_give_a_velocity_where_the_network_does_not():
    follow = tracker()
    told = [follow.update(found([(4.0 * t, 1.0)]), float(t)) for t in range(3)]
    assert np.isnan(told[0].velocities).all()
    np.testing.assert_allclose(told[1].velocities, [[4, 0]])
    # A jump of 6 m in a second: half of the new step, half of what was known.
    jump = follow.update(found([(14.0, 1.0)]), 3.0)
    np.testing.assert_allclose(jump.velocities, [[5, 0]], rtol=1e-6)
    # Carried on with 5 m/s it stands at 24 two seconds later; its last place is 10.5 m from the detection.
    assert follow.update(found([(24.5, 1.0)]), 5.0).ids.tolist() == [1]


def test_reach_is_that_of_the_class():
    for label, name in enumerate(CLASSES):
        for distance, same in ((0.99, True), (1.01, False)):
            follow = tracker()
            follow.update(found([(0, 0)], [label]), 0.0)
            step = distance * REACH[name.lower()]
            ids = follow.update(found([(step, 0)], [label]), 0.5).ids.tolist()
            assert (ids == [1]) == same, (name, distance)


def test_classes_do_not_mix():
    follow = tracker()
    follow.update(found([(0, 0)], [0]), 0.0)
    assert follow.update(found([(0, 0)], [1]), 0.1).ids.tolist() == [2]


def test_greedy_lets_the_best_choose_and_hungarian_the_sum():
    """Tracks at 0 and 1.5; the best detection at 0.8 is nearer to 1.5, the other, at 3, reaches only that
    one within 2 m."""
    for assignment, want in (("greedy", [2, 3]), ("hungarian", [1, 2])):
        follow = tracker(max_distances=(2.0, 1.0), assignment=assignment)
        follow.update(found([(0.0, 0), (1.5, 0)]), 0.0)
        assert follow.update(found([(0.8, 0), (3.0, 0)]), 0.1).ids.tolist() == want


@pytest.mark.parametrize(("missed", "same"), [(3, True), (4, False)])
def test_a_track_waits_max_age_frames(missed, same):
    follow = tracker(max_age=3)
    follow.update(found([(0, 0)]), 0.0)
    for t in range(missed):
        assert len(follow.update(found([]), 0.1 * (t + 1)).ids) == 0
    assert follow.update(found([(0, 0)]), 1.0).ids.tolist() == ([1] if same else [2])


def test_numbers_are_never_used_twice():
    rng = np.random.default_rng(0)
    follow, born = tracker(max_age=0), set()
    for t in range(40):
        told = follow.update(found(rng.uniform(-30, 30, (8, 2)).tolist()), float(t))
        assert len(set(told.ids.tolist())) == len(told.ids)
        new = set(told.ids[told.ages == 1].tolist())
        assert not new & born
        born |= new
    assert len(born) > 50 and born == set(range(1, len(born) + 1))


@pytest.mark.parametrize("told", [True, False])
def test_motion_of_the_sensor_does_not_matter(told):
    """The same world seen from a sensor that drives and turns: equal numbers, velocities turned along."""
    rng = np.random.default_rng(1)
    start, speed = rng.uniform(-20, 20, (12, 2)), rng.uniform(-3, 3, (12, 2))
    still, moving = tracker(), tracker()
    for t in range(8):
        places = start + speed * (0.2 * t) + rng.normal(0, 0.05, start.shape)
        yaw = 0.15 * t
        pose = np.eye(4)
        pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
        pose[:2, 3] = (3.0 * t, -1.0 * t)
        turned = (places - pose[:2, 3]) @ pose[:2, :2]
        a = still.update(found(places.tolist(), velocities=speed.tolist() if told else None), 0.2 * t)
        seen = (speed @ pose[:2, :2]).tolist() if told else None
        b = moving.update(found(turned.tolist(), velocities=seen), 0.2 * t, pose)
        assert a.ids.tolist() == b.ids.tolist()
        np.testing.assert_allclose(b.velocities @ pose[:2, :2].T, a.velocities, atol=2e-4)
    assert len(set(a.ids.tolist()) & set(range(1, 13))) >= 10


def test_order_and_weak_detections_do_not_matter():
    rng = np.random.default_rng(2)
    a, b = tracker(), tracker()
    for t in range(5):
        places = (np.arange(6)[:, None] * [7.0, 0] + rng.normal(0, 0.2, (6, 2))).tolist()
        scores = rng.uniform(0.5, 1, 6).tolist()
        one = a.update(found(places, scores=scores), float(t))
        order = rng.permutation(6).tolist()
        mixed = [places[k] for k in order] + [(1.0, 1.0), (float("nan"), 0.0)]
        other = b.update(found(mixed, scores=[scores[k] for k in order] + [0.1, 0.9]), float(t))
        assert one.ids.tolist() == other.ids.tolist()
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_wrong_input_is_refused():
    follow = tracker()
    follow.update(found([(0, 0)]), 1.0)
    with pytest.raises(ValueError, match="does not come after"):
        follow.update(found([(0, 0)]), 1.0)
    with pytest.raises(ValueError, match="label 2"):
        follow.update(found([(0, 0)], [2]), 2.0)
    with pytest.raises(ConfigError, match="1 values for 2 classes"):
        tracker(max_distances=(1.0,))
    with pytest.raises(ConfigError, match="must be positive"):
        tracker(max_distances=(1.0, 0.0))
