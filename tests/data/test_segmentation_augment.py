"""Laws of augmentations of labelled scans: no point loses its label, mixes take each place from one scan."""

import numpy as np
import pytest

from sparse3d.data import segmentation_augment as augment
from sparse3d.frames import SegmentationFrame


def scan(seed: int, points: int = 500) -> SegmentationFrame:
    """The feature of a point tells its number and scan; its label follows from it."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 10, (points, 3)) * (1, 1, 0.3)
    number = np.arange(points) + 1000 * seed
    rows = np.column_stack([xyz, number]).astype(np.float32)
    labels = number % 7
    return SegmentationFrame(str(seed), rows, labels, np.where(labels < 2, number % 5 + 1, 0))


def numbers(frame: SegmentationFrame) -> np.ndarray:
    return frame.points[:, 3].astype(np.int64)


CHANGES = [
    augment.ScanFlip(probability=1),
    augment.ScanFlip(axis="x", probability=1),
    augment.ScanRotation(),
    augment.ScanScaling(),
    augment.PointJitter(),
    augment.PointDropout(probability=1),
]
MIXES = [augment.Mix3D(), augment.LaserMix(), augment.PolarMix()]


@pytest.mark.parametrize("step", CHANGES, ids=lambda step: step.kind)
def test_points_keep_their_labels(step):
    frame = scan(1)
    before = frame.points.copy()
    found = step(frame, np.random.default_rng(0))
    np.testing.assert_array_equal(frame.points, before)
    np.testing.assert_array_equal(found.labels, numbers(found) % 7)
    np.testing.assert_array_equal(found.instances > 0, found.labels < 2)
    assert found.points.dtype == np.float32 and not np.array_equal(found.points, before)


@pytest.mark.parametrize("step", MIXES, ids=lambda step: step.kind)
@pytest.mark.parametrize("seed", range(3))
def test_mixed_points_keep_their_labels_and_instances_stay_apart(step, seed):
    one, other = scan(1), scan(2)
    found = step.mix(one, other, np.random.default_rng(seed))
    np.testing.assert_array_equal(found.labels, numbers(found) % 7)
    of_one = numbers(found) < 2000
    assert of_one.any() and not of_one.all()
    things = found.instances > 0
    np.testing.assert_array_equal(things, found.labels < 2)
    assert not set(found.instances[things & of_one]) & set(found.instances[things & ~of_one])


def test_mix3d_is_the_union():
    found = augment.Mix3D().mix(scan(1), scan(2), np.random.default_rng(0))
    assert numbers(found).tolist() == [*range(1000, 1500), *range(2000, 2500)]


@pytest.mark.parametrize("seed", range(4))
def test_lasermix_takes_every_second_area_from_the_other(seed):
    """What one order of the two scans leaves out, the other order takes: together all points, once each."""
    step = augment.LaserMix(areas=(4,))
    one, other = scan(1), scan(2)
    here, there = (step.mix(a, b, np.random.default_rng(seed)) for a, b in ((one, other), (other, one)))
    assert sorted([*numbers(here), *numbers(there)]) == [*range(1000, 1500), *range(2000, 2500)]
    area, of_one = step.area(here.points, 4), numbers(here) < 2000
    assert set(area[of_one]) | set(area[~of_one]) == {0, 1, 2, 3}
    assert not set(area[of_one]) & set(area[~of_one])
    assert len({a % 2 for a in area[of_one]}) == 1


def test_areas_of_lasermix_by_hand():
    step = augment.LaserMix(min_inclination=-20, max_inclination=0)
    angle = np.radians([-50, -19, -11, -10.0001, -9, -1, 30])
    points = np.column_stack([np.cos(angle), np.zeros(7), np.sin(angle)])
    assert step.area(points, 2).tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_polarmix_swaps_a_sector(seed):
    step = augment.PolarMix(swap_probability=1, paste_probability=0, sector=2.0)
    one, other = scan(1), scan(2)
    here, there = (step.mix(a, b, np.random.default_rng(seed)) for a, b in ((one, other), (other, one)))
    assert sorted([*numbers(here), *numbers(there)]) == [*range(1000, 1500), *range(2000, 2500)]
    azimuth, of_one = np.arctan2(here.points[:, 1], here.points[:, 0]), numbers(here) < 2000
    # The other scan's points fill an arc of 2 rad in which none of the first stands: the largest gap.
    mine = np.sort(azimuth[of_one])
    gaps = np.diff(np.append(mine, mine[0] + 2 * np.pi))
    assert gaps.max() >= 2.0
    start = mine[gaps.argmax()]
    assert ((azimuth[~of_one] - start) % (2 * np.pi) <= gaps.max()).all()


def test_polarmix_pastes_objects_in_three_directions():
    step = augment.PolarMix(swap_probability=0)
    one, other = scan(1), scan(2)
    found = step.mix(one, other, np.random.default_rng(0))
    things = int((other.instances > 0).sum())
    assert len(found.points) == 500 + 3 * things
    np.testing.assert_array_equal(found.points[:500], one.points)
    pasted = found.points[500:].reshape(3, things, 4)
    np.testing.assert_allclose(pasted[0], other.points[other.instances > 0])
    np.testing.assert_allclose(np.hypot(*pasted[2, :, :2].T), np.hypot(*pasted[0, :, :2].T), rtol=1e-5)
    turn = np.arctan2(pasted[1, :, 1], pasted[1, :, 0]) - np.arctan2(pasted[0, :, 1], pasted[0, :, 0])
    np.testing.assert_allclose(turn % (2 * np.pi), 2 * np.pi / 3, rtol=1e-4)
    assert len(np.unique(found.instances[500:])) == 3 * len(np.unique(other.instances)) - 3


@pytest.mark.parametrize("step", [*CHANGES, *MIXES], ids=lambda step: step.kind)
def test_empty_scans_are_legal(step):
    rng, empty = np.random.default_rng(0), scan(1, points=0)
    if isinstance(step, augment.MIXES):
        for one, other in ((empty, scan(2)), (scan(2), empty), (empty, empty)):
            step.mix(one, other, rng)
    else:
        assert len(step(empty, rng).points) == 0


def test_dropout_keeps_a_point():
    step = augment.PointDropout(max_share=1, probability=1)
    assert min(len(step(scan(1, points=2), np.random.default_rng(s)).points) for s in range(40)) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: augment.ScanFlip(probability=2),
        lambda: augment.ScanRotation(min_angle=1, max_angle=0),
        lambda: augment.ScanScaling(min_scale=0),
        lambda: augment.PointJitter(std=-1),
        lambda: augment.PointDropout(max_share=-0.1),
        lambda: augment.LaserMix(areas=(1,)),
        lambda: augment.PolarMix(sector=7),
        lambda: augment.Mix3D(probability=-1),
    ],
)
def test_wrong_settings(make):
    with pytest.raises(ValueError):
        make()
